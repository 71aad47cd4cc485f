"""What Alembic cannot do before its newest versions, each with the version that it is for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import alembic
from alembic.autogenerate import comparators
from alembic.autogenerate.render import renderers
from alembic.operations import ops

from pgmrl.errors import MigrationError

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

__all__ = ["ALEMBIC", "PLUGINS", "require_plugins"]

PLUGINS: Final = (1, 18)
ALEMBIC: Final = tuple(int(part) for part in re.findall(r"\d+", alembic.__version__)[:3])


def require_plugins(version: tuple[int, ...]) -> None:
    """Refuse an Alembic that would leave pgmrl's plugin out without a word.

    Raises:
        MigrationError: it is older than 1.18.
    """
    if version < PLUGINS:
        numbers = ".".join(map(str, version))
        raise MigrationError(
            f"expected Alembic 1.18 or later for pgmrl's autogenerate plugin, got {numbers}: pip install "
            "'alembic>=1.18', or take pgmrl out of autogenerate_plugins and write its operations by hand"
        )


if ALEMBIC < PLUGINS:  # it has none, and no eye for `autogenerate_plugins`

    @comparators.dispatch_for("schema")
    def _refuse_plugin(context: AutogenContext, *_: Any) -> None:
        if "pgmrl" in (context.opts.get("autogenerate_plugins") or ()):
            require_plugins(ALEMBIC)


if PLUGINS <= ALEMBIC < (1, 19):  # it writes no CHECK

    @renderers.dispatch_for(ops.CreateCheckConstraintOp, replace=True)
    def _render_check(context: AutogenContext, operation: ops.CreateCheckConstraintOp) -> str:
        from alembic.autogenerate.render import _ident, _render_gen_name, _render_potential_expr  # noqa: PLC0415

        arguments = [repr(_render_gen_name(context, operation.constraint_name))]
        arguments += [] if context._has_batch else [repr(_ident(operation.table_name))]
        arguments.append(_render_potential_expr(operation.to_constraint().sqltext, context, wrap_in_element=False))
        arguments += [f"schema={_ident(operation.schema)!r}"] if operation.schema and not context._has_batch else []
        prefix = "batch_op." if context._has_batch else context.opts["alembic_module_prefix"] or ""
        return f"{prefix}create_check_constraint({', '.join(arguments)})"
