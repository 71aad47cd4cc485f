"""pgmrl's entry point for Alembic, which imports it whenever it is imported itself: it imports nothing of pgmrl.

Where the entry point is not found, `env.py` sets the plugin up:

    import pgmrl_alembic
    from alembic.runtime.plugins import Plugin

    Plugin.setup_plugin_from_module(pgmrl_alembic, "pgmrl")

The plugin proper is `pgmrl.alembic.plugin`; it is loaded when autogenerate first asks for a comparison. Alembic 1.18.0
to 1.20.0 iterate over what an entry point gives: this module can be iterated, so that `import alembic` works there too.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from alembic.runtime.plugins import Plugin

__all__ = ["setup"]


def setup(plugin: Plugin) -> None:
    """Register the comparisons; called by Alembic."""
    from alembic.util import DispatchPriority  # noqa: PLC0415 - Alembic is being imported when this module is

    first, last = DispatchPriority.FIRST, DispatchPriority.LAST
    add = plugin.add_autogenerate_comparator
    add(_later("compare_table"), "table", "pgmrl", qualifier="postgresql", priority=first)
    add(_later("skip_short_default"), "column", "server_default", qualifier="postgresql", priority=first)
    add(_later("compare"), "autogenerate", "pgmrl", qualifier="postgresql", priority=last)


def _later(name: str) -> Any:
    """A function of the plugin's, which is imported when it is called."""

    def comparator(*arguments: Any) -> Any:
        return getattr(import_module("pgmrl.alembic.plugin"), name)(*arguments)

    return comparator


class _Iterable(ModuleType):
    def __iter__(self) -> Iterator[ModuleType]:
        yield self


sys.modules[__name__].__class__ = _Iterable
