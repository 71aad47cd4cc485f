"""The types of a table's columns in the catalogue, and how a value gets into each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import psycopg
from psycopg.adapt import PyFormat, Transformer
from psycopg.types.multirange import Multirange
from psycopg.types.range import Range

from pgmrl.ingestion.driver import catalogue_rows
from pgmrl.ingestion.scalar_values import SCALARS, Convert, is_row, plain_value
from pgmrl.model.compat import RANGE_BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pgmrl.ingestion.driver import Driver

__all__ = ["ServerType", "column_types"]

# Each column's type and the types that those are made of: below a domain, in an array, of a range's bounds.
_TYPES: Final = """
    WITH RECURSIVE own AS (
        SELECT a.attnum, a.attname, a.atttypid AS oid FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = %s AND a.attnum > 0 AND NOT a.attisdropped
    ), used (oid) AS (
        SELECT oid FROM own
        UNION
        SELECT part.oid FROM used
        JOIN pg_catalog.pg_type AS t ON t.oid = used.oid
        LEFT JOIN pg_catalog.pg_range AS r ON t.oid IN (r.rngtypid, r.rngmultitypid)
        CROSS JOIN LATERAL (VALUES (t.typbasetype), (t.typelem), (r.rngsubtype)) AS part (oid)
        WHERE part.oid <> 0
    )
    SELECT own.attname, used.oid, t.typname, coalesce(p.proname, ''), CASE
        WHEN t.typtype = 'd' THEN t.typbasetype
        WHEN t.typtype IN ('r', 'm') THEN r.rngsubtype
        WHEN p.proname = 'array_recv' THEN t.typelem ELSE 0 END AS inner_type
    FROM used JOIN pg_catalog.pg_type AS t ON t.oid = used.oid
    LEFT JOIN pg_catalog.pg_proc AS p ON p.oid = t.typreceive
    LEFT JOIN pg_catalog.pg_range AS r ON t.oid IN (r.rngtypid, r.rngmultitypid)
    LEFT JOIN own ON own.oid = used.oid
    ORDER BY own.attnum
"""
"""A receive function's name is looked at without its schema: an extension's may be anywhere."""


class _Row(NamedTuple):
    column: str | None
    oid: int
    name: str
    receive: str
    inner: int


@dataclass(frozen=True, slots=True)
class ServerType:
    """How values get into a column.

    Attributes:
        name: the type in the catalogue, of a domain the one below it; of an array with an underscore, `_int4`.
        sent_type: the oid of the type whose dumper sends them.
        convert: makes of a value what that dumper sends unchanged; TypeError or ValueError where it cannot.
        known: whether that is certain for this type; else psycopg must have a dumper for the value's class that says
            it makes this type, which the application has registered.
        received: whether the server can read the type's binary form at all.
    """

    name: str
    sent_type: int
    convert: Convert
    known: bool = True
    received: bool = True


def column_types(driver: Driver, table: str) -> dict[str, ServerType]:
    """The columns of a table in their order; empty where there is none.

    Args:
        driver: the connection.
        table: as SQL text.
    """
    rows = [_Row(*row) for row in catalogue_rows(driver, _TYPES, table)]
    types = {row.oid: row for row in rows}
    return {row.column: _server_type(driver, types, row.oid) for row in rows if row.column is not None}


def _server_type(driver: Driver, types: Mapping[int, _Row], oid: int) -> ServerType:
    row = _below_domains(types, oid)
    if row.receive in SCALARS:
        sent, convert = SCALARS[row.receive]
        return ServerType(row.name, psycopg.adapters.types[sent].oid, _of_plain(convert))
    convert_inner = _inner(driver, types, row)
    if convert_inner is not None:
        return ServerType(row.name, row.oid, convert_inner)
    return ServerType(
        row.name, psycopg.adapters.types["bytea"].oid, _registered(driver, row.oid), False, bool(row.receive)
    )


def _below_domains(types: Mapping[int, _Row], oid: int) -> _Row:
    row = types[oid]
    while row.receive == "domain_recv":
        row = types[row.inner]
    return row


def _of_bound(bound: Callable[[int], Any], convert: Convert) -> Convert:
    return lambda value: bound(convert(value))


def _of_plain(convert: Convert) -> Convert:
    return lambda value: convert(plain_value(value))


def _inner(driver: Driver, types: Mapping[int, _Row], row: _Row) -> Convert | None:
    """Of an array, a range or a multirange whose dumper psycopg has; None of another type."""
    made = {"array_recv": _array, "range_recv": _range, "multirange_recv": _multirange}.get(row.receive)
    if made is None or psycopg.adapters.types.get(row.oid) is None:
        return None
    element = types[row.inner]
    if element.receive in SCALARS:
        sent, convert = SCALARS[element.receive]
        if made is not _array and sent in RANGE_BOUNDS:
            convert = _of_bound(RANGE_BOUNDS[sent], convert)
        # the dumper of an array writes its elements' type, which must be theirs
        return made(_of_plain(convert)) if psycopg.adapters.types[sent].oid == element.oid else None
    convert_inner = _inner(driver, types, element)
    return None if convert_inner is None else made(convert_inner)


# -- values of values ----------------------------------------------------------------------------------------------


def _array(convert: Convert) -> Convert:
    def converted(value: Any) -> list[Any]:
        items = _items(value)
        if items is None:
            raise TypeError("not a list")
        _shape(items)
        return [None if item is None else _item(item) for item in items]

    def _item(item: Any) -> Any:
        return converted(item) if _items(item) is not None else convert(item)

    return converted


def _items(value: Any) -> list[Any] | tuple[Any, ...] | None:
    """What an array holds; None of what is none."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "V":  # records
            return None
        if value.dtype.kind in "mM" or value.dtype == np.longdouble:  # which `tolist` makes integers of, or loses
            return list(value)
        return list(value.tolist()) if value.ndim else None
    return value if isinstance(value, (list, tuple)) and not is_row(value) else None


def _shape(items: list[Any] | tuple[Any, ...]) -> tuple[int, ...]:
    """The lengths of an array in each of its dimensions.

    Raises:
        ValueError: they are not the same everywhere, or there is nothing in the inner ones.
    """
    inner = [_items(item) for item in items]
    if not any(item is not None for item in inner):
        return (len(items),)
    shapes = {None if item is None else _shape(item) for item in inner}
    if len(shapes) > 1 or None in shapes or (0,) in shapes:
        raise ValueError("an array has as many elements in each of its parts")
    return (len(items), *(shapes.pop() or ()))


def _range(convert: Convert) -> Convert:
    def converted(value: Any) -> Range[Any]:
        if not isinstance(value, Range):
            raise TypeError("not psycopg's Range")
        if value.isempty:
            return Range(empty=True)
        bounds = [None if bound is None else convert(bound) for bound in (value.lower, value.upper)]
        return Range(bounds[0], bounds[1], value.bounds)

    return converted


def _multirange(convert: Convert) -> Convert:
    of_range = _range(convert)

    def converted(value: Any) -> Multirange[Any]:
        if not isinstance(value, Multirange):
            raise TypeError("not psycopg's Multirange")
        return Multirange([of_range(one) for one in value])

    return converted


def _registered(driver: Driver, oid: int) -> Convert:
    """What psycopg's own dumper for the value's class makes, where that is this type."""
    transformer = Transformer(driver)

    def converted(value: Any) -> bytes:
        try:
            dumper = transformer.get_dumper(value, PyFormat.BINARY)
        except psycopg.ProgrammingError:
            raise TypeError("psycopg has no binary form of it") from None
        if dumper.oid != oid:
            raise TypeError("psycopg makes another type of it")
        dumped = dumper.dump(value)
        if dumped is None:
            raise ValueError("psycopg makes NULL of it")
        return bytes(dumped)

    return converted
