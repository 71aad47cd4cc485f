"""How autogenerate writes pgmrl's operations and types into a migration, with the imports they need.

Vector types are written as plain pgvector types, which stay as they are when the model changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from alembic.autogenerate.render import render_op, renderers
from pgvector.sqlalchemy import BIT, HALFVEC, VECTOR
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeDecorator

from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DropChunks,
    DropEmbedding,
    DropFunctions,
    DropShort,
    DropShortIndex,
    DropSide,
    InstallFunctions,
    InstallRotation,
    InstallTextModel,
    KeepChunks,
    KeepEmbedding,
    KeepSide,
    MarkShort,
    OneWay,
    RebuildShortIndex,
    RemoveRotation,
    RemoveTextModel,
    SetStorage,
    UpgradePgmrl,
    ValidateShort,
)
from pgmrl.model.filter_index import FilterIndex
from pgmrl.model.hnsw import index_source
from pgmrl.model.rotation import Rotation
from pgmrl.model.types import NumpyVector

if TYPE_CHECKING:
    from collections.abc import Callable

    from alembic.autogenerate.api import AutogenContext

    from pgmrl.alembic.operations import OnIndex, OnShort
    from pgmrl.model.shortening import Definition
    from pgmrl.model.sql_functions import SqlFunctions
    from pgmrl.online.index_statements import ShortIndex

    RenderItem = Callable[[str, Any, AutogenContext], str | Literal[False]]

__all__ = ["NewRotation", "render_item", "with_types"]

_POSTGRESQL: Final = postgresql.dialect()  # type: ignore[no-untyped-call]
REGISTERS: Final = "import pgmrl.alembic  # noqa: F401"
FROM: Final = "from pgmrl import "


# -- types ---------------------------------------------------------------------------------------------------------


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """For `context.configure(render_item=render_item)` where pgmrl's plugin is not listed in `autogenerate_plugins`.

    A Matryoshka type in a migration would bring its short column a second time, and change with the model; the plain
    type stays what it was. The plugin brings this of its own. Without it Alembic writes generated columns and indexes
    itself; triggers and storage are not written: add `op.add_short` for a rotation.
    """
    if kind != "type":
        return False
    if isinstance(item, BIT):
        return _plain("BIT", item.length, context)
    if isinstance(item, TypeDecorator):  # of the application, around a vector
        item = item.load_dialect_impl(_POSTGRESQL)
    if isinstance(item, NumpyVector):
        if item.vector_schema:  # pgvector's own types cannot say a schema
            context.imports.add("from pgmrl.alembic import NumpyVector")
            return NumpyVector.__repr__(item)
        return _plain(item.kind.upper(), item.dims, context)
    if isinstance(item, VECTOR | HALFVEC):  # or the application's subclass of it, which has no import
        return _plain("VECTOR" if isinstance(item, VECTOR) else "HALFVEC", item.dim, context)
    return False


def _plain(name: str, size: int | None, context: AutogenContext) -> str:
    context.imports.add(f"from pgvector.sqlalchemy import {name}")
    return f"{name}({'' if size is None else size})"


def with_types(own: RenderItem | None) -> RenderItem:
    """The application's own `render_item` first, then pgmrl's for what it leaves."""
    if own is None or own is render_item:
        return render_item

    def render(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
        rendered = own(kind, item, context)
        return render_item(kind, item, context) if rendered is False else rendered

    return render


# -- values --------------------------------------------------------------------------------------------------------


def _import(context: AutogenContext, *names: str) -> None:
    """Add to the one line that imports from pgmrl."""
    lines = {line for line in context.imports if line.startswith(FROM)}
    imported = {name for line in lines for name in line.removeprefix(FROM).split(", ")}
    context.imports.difference_update(lines)
    context.imports.add(FROM + ", ".join(sorted(imported | set(names))))


def _definition(context: AutogenContext, definition: Definition) -> str:
    short = definition.short
    arguments = [str(short.dims)]
    if isinstance(short.by, Rotation):
        _import(context, "Rotation")
        arguments.append(f"Rotation({short.by.id!r})")
    arguments += [f"type={short.type!r}"] if short.type != "halfvec" else []
    arguments += [f"name={_name(short.name)}"] if short.name is not None else []
    _import(context, "Definition", "Short")
    vector_schema = f", {definition.vector_schema!r}" if definition.vector_schema else ""
    return (
        f"Definition.of({definition.dims}, Short({', '.join(arguments)}), {definition.metric.name!r}, "
        f"{definition.full!r}{vector_schema}{'' if definition.has_column else ', stored=False'})"
    )


def _short_index(context: AutogenContext, index: ShortIndex) -> str:
    _import(context, type(index).__name__)
    if isinstance(index, FilterIndex):
        return repr(index)
    return index_source(index)


def _name(name: str) -> str:
    return repr(str(name))  # SQLAlchemy's quoted_name has a repr of its own


def _call(context: AutogenContext, directive: str, *positional: str, schema: str | None = None, **named: str) -> str:
    """A call of a directive, from rendered arguments."""
    context.imports.add(REGISTERS)
    if schema:
        named["schema"] = _name(schema)
    arguments = [*positional, *(f"{name}={value}" for name, value in named.items())]
    return f"{context.opts['alembic_module_prefix'] or ''}{directive}({', '.join(arguments)})"


def _on_short(context: AutogenContext, directive: str, op: OnShort, **named: str) -> str:
    short = (_name(op.table), _name(op.column), _definition(context, op.definition))
    return _call(context, directive, *short, schema=op.schema, **named)


# -- operations ----------------------------------------------------------------------------------------------------


@renderers.dispatch_for(OneWay)
def _one_way(context: AutogenContext, op: OneWay) -> list[str]:
    return [] if op.downgrade else render_op(context, op.operation)


@renderers.dispatch_for(UpgradePgmrl)
def _upgrade_pgmrl(context: AutogenContext, op: UpgradePgmrl) -> str:
    named = {"since": repr(op.since)} if op.since else {}
    return _call(context, "upgrade_pgmrl", repr(op.to), **named)


@renderers.dispatch_for(InstallRotation)
def _install_rotation(context: AutogenContext, op: InstallRotation) -> str:
    return _call(context, "install_rotation", repr(op.path))


@dataclass(frozen=True)
class NewRotation(InstallRotation):
    """A rotation of the model; its axes are saved beside the migrations when the migration is written.

    Attributes:
        rotation: with its axes.
        folder: where they are saved.

    """

    rotation: Rotation = field(default=Rotation(), compare=False, repr=False)
    folder: Path = field(default=Path(), compare=False, repr=False)


@renderers.dispatch_for(NewRotation)
def _new_rotation(context: AutogenContext, op: NewRotation) -> str:
    if not (op.folder / Path(op.path).name).exists():
        op.rotation.save(op.folder)
    return _install_rotation(context, op)


@renderers.dispatch_for(RemoveRotation)
def _remove_rotation(context: AutogenContext, op: RemoveRotation) -> str:
    return _call(context, "remove_rotation", repr(op.path))


@renderers.dispatch_for(InstallTextModel)
def _install_text_model(context: AutogenContext, op: InstallTextModel) -> str:
    return _call(context, "install_text_model", repr(op.source), **({"name": repr(op.name)} if op.name else {}))


@renderers.dispatch_for(RemoveTextModel)
def _remove_text_model(context: AutogenContext, op: RemoveTextModel) -> str:
    return _call(context, "remove_text_model", repr(op.name))


@renderers.dispatch_for(AddShort)
def _add_short(context: AutogenContext, op: AddShort) -> str:
    return _on_short(context, "add_short", op, **({"online": "True"} if op.online else {}))


@renderers.dispatch_for(DropShort)
def _drop_short(context: AutogenContext, op: DropShort) -> str:
    return _call(context, "drop_short", _name(op.table), _name(op.short), schema=op.schema)


@renderers.dispatch_for(AlterShort)
def _alter_short(context: AutogenContext, op: AlterShort) -> str:
    return _on_short(context, "alter_short", op)


@renderers.dispatch_for(BackfillShort)
def _backfill_short(context: AutogenContext, op: BackfillShort) -> str:
    rate = op.max_rows_per_second
    named = {} if rate is None else {"max_rows_per_second": repr(rate)}
    return _on_short(context, "backfill_short", op, **named)


@renderers.dispatch_for(ValidateShort)
def _validate_short(context: AutogenContext, op: ValidateShort) -> str:
    return _on_short(context, "validate_short", op)


@renderers.dispatch_for(MarkShort)
def _mark_short(context: AutogenContext, op: MarkShort) -> str:
    return _call(context, "mark_short", _name(op.table), _name(op.short), repr(op.stage), schema=op.schema)


@renderers.dispatch_for(CreateShortIndex)
def _create_short_index(context: AutogenContext, op: CreateShortIndex) -> str:
    return _on_short(context, "create_short_index", op, **_build_arguments(context, op))


@renderers.dispatch_for(DropShortIndex)
def _drop_short_index(context: AutogenContext, op: DropShortIndex) -> str:
    return _on_short(context, "drop_short_index", op, **_build_arguments(context, op))


@renderers.dispatch_for(RebuildShortIndex)
def _rebuild_short_index(context: AutogenContext, op: RebuildShortIndex) -> str:
    return _on_short(context, "rebuild_short_index", op, **_build_arguments(context, op))


def _build_arguments(context: AutogenContext, op: OnIndex) -> dict[str, str]:
    named = {"index": _short_index(context, op.index)}
    if op.name is not None:
        named["name"] = _name(op.name)
    if not op.build.concurrently:
        named["concurrently"] = "False"
    return named


@renderers.dispatch_for(SetStorage)
def _set_storage(context: AutogenContext, op: SetStorage) -> str:
    return _call(context, "set_storage", _name(op.table), _name(op.column), repr(op.storage), schema=op.schema)


@renderers.dispatch_for(KeepSide)
def _keep_side(context: AutogenContext, op: KeepSide) -> str:
    keys = repr([str(key) for key in op.keys])
    return _call(context, "keep_side", _name(op.table), _name(op.side), keys, _name(op.column), schema=op.schema)


@renderers.dispatch_for(KeepEmbedding)
def _keep_embedding(context: AutogenContext, op: KeepEmbedding) -> str:
    _import(context, "Embed")
    notify = "" if op.embed.notify else ", notify=False"
    embed = f"Embed({op.embed.template!r}, {op.embed.by!r}{notify})"
    return _call(context, "keep_embedding", _name(op.table), _name(op.column), embed, schema=op.schema)


@renderers.dispatch_for(DropEmbedding)
def _drop_embedding(context: AutogenContext, op: DropEmbedding) -> str:
    return _call(context, "drop_embedding", _name(op.table), _name(op.column), schema=op.schema)


@renderers.dispatch_for(DropSide)
def _drop_side(context: AutogenContext, op: DropSide) -> str:
    return _call(context, "drop_side", _name(op.table), _name(op.side), _name(op.column), schema=op.schema)


@renderers.dispatch_for(InstallFunctions)
def _install_functions(context: AutogenContext, op: InstallFunctions) -> str:
    named = {"keys": repr({str(name): type_ for name, type_ in op.keys})}
    named |= {"types": repr({str(name): type_ for name, type_ in op.types})} if op.types else {}
    named |= {"side": _name(op.side)} if op.side else {}
    named |= {"distributed": _name(op.distributed)} if op.distributed else {}
    searched = (_name(op.table), _name(op.column), _definition(context, op.definition))
    functions = _functions(context, op.functions)
    return _call(context, "install_functions", *searched, functions, schema=op.schema, **named)


def _functions(context: AutogenContext, functions: SqlFunctions) -> str:
    _import(context, "SqlFunctions")
    values = {field.name: getattr(functions, field.name) for field in fields(functions)}
    values["filters"] = tuple(map(str, functions.tests))
    defaults = {field.name: field.default for field in fields(functions)}
    arguments = [f"{name}={value!r}" for name, value in values.items() if value != defaults[name]]
    return f"SqlFunctions({', '.join(arguments)})"


@renderers.dispatch_for(DropFunctions)
def _drop_functions(context: AutogenContext, op: DropFunctions) -> str:
    return _call(context, "drop_functions", _name(op.name), schema=op.schema)


@renderers.dispatch_for(KeepChunks)
def _keep_chunks(context: AutogenContext, op: KeepChunks) -> str:
    _import(context, "Chunks")
    chunks = op.chunks
    overlap = f", overlap={chunks.overlap}" if chunks.overlap else ""
    notify = "" if chunks.notify else ", notify=False"
    rendered = f"Chunks({chunks.template!r}, {chunks.by!r}, size={chunks.size}{overlap}{notify})"
    return _call(context, "keep_chunks", _name(op.table), rendered, schema=op.schema)


@renderers.dispatch_for(DropChunks)
def _drop_chunks(context: AutogenContext, op: DropChunks) -> str:
    return _call(context, "drop_chunks", _name(op.table), schema=op.schema)
