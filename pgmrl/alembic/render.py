"""How autogenerate writes pgmrl's types into a migration: as plain pgvector types, which stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pgvector.sqlalchemy import BIT

from pgmrl.types import NumpyVector

if TYPE_CHECKING:
    from alembic.autogenerate.api import AutogenContext

__all__ = ["render_item"]


def render_item(kind: str, item: Any, context: AutogenContext) -> str | Literal[False]:
    """For `context.configure(render_item=render_item)` in an application's `env.py`.

    A Matryoshka type in a migration would bring its short column a second time, and change with the model; the plain
    type stays what it was. Generated columns and indexes are written by Alembic itself. Triggers and storage are not:
    add `op.add_short` for a rotation.
    """
    if kind != "type":
        return False
    if isinstance(item, NumpyVector):
        if item.vector_schema:  # pgvector's own types cannot say a schema
            context.imports.add("from pgmrl.types import NumpyVector")
            return NumpyVector.__repr__(item)
        name = item.kind.upper()
        context.imports.add(f"from pgvector.sqlalchemy import {name}")
        return f"{name}({item.dims})"
    if isinstance(item, BIT):
        context.imports.add("from pgvector.sqlalchemy import BIT")
        return f"BIT({getattr(item.impl_instance, 'length', '')})"
    return False
