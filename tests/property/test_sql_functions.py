"""Whatever is passed to an installed SQL function ends in an error of the server's that says why, or in right rows.

One argument of a call that works is exchanged for a value of its type that nobody expects, or for a text that is none.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgmrl.urls import connection_options, libpq_url
from tests.property.small_shop import DIMS, QUERY, ROWS, Shop

if TYPE_CHECKING:
    from collections.abc import Iterator

Values = dict[str, str | None]

VECTOR = "[" + ",".join(map(str, QUERY)) + "]"
CALLS: dict[str, Values] = {
    "items_hybrid": {"query": VECTOR, "words": "item", "k": "5"},
    "items_search": {"query": VECTOR, "k": "5"},
    "items_search_diverse": {"query": VECTOR, "k": "5"},
    "items_search_groups": {"query": VECTOR, "k": "2"},
    "items_search_named": {"name": "mine", "k": "5"},
    "items_similar": {"id": "3", "k": "5"},
    "items_vector": {"id": "3"},
}
NUMBERS = ("0", "-1", "1", "2147483647", "-2147483648", "2147483648", "1e3", "NaN", "", "100001", "40", "0x10", "1_0")
OF_TYPE: dict[str, tuple[str, ...]] = {
    "integer": NUMBERS,
    "double precision": (*NUMBERS, "Infinity", "-0", "1e-320", "1e308", "0.5", "1.0000001"),
    "boolean": ("true", "f", "2", "", "null", "yes"),
    "halfvec": (
        *("[]", "[1]", f"[{','.join(['0'] * DIMS)}]", f"[{','.join(['1e9'] * DIMS)}]", f"[{','.join(['NaN'] * DIMS)}]"),
        *(f"[0,0,0,0,{','.join(['1'] * (DIMS - 4))}]", f"[{','.join(['6e-8'] * DIMS)}]", "[1,2", "null"),
        *(f"[{','.join(['65504'] * DIMS)}]", f"[{','.join(['-1'] * DIMS)}]", f"[{','.join(['1'] * (DIMS + 1))}]"),
    ),
    "text": (
        "",
        " ",
        "all",
        "web",
        "rrf",
        "%s",
        "$1",
        "'",
        "\\",
        '"a" or -b',
        "-item",
        "the",
        "x" * 2_000,
        "é\u0301",
        "mine",
    ),
    "character varying": ("", "a", "b' OR true --", "%", "x" * 10_000),
    "character varying[]": ("{}", "{a,b}", "{NULL}", "{{a},{b}}", "[2:3]={a,b}", "{", "a"),
}


@pytest.fixture(scope="module")
def sql(hostile_shop: Shop) -> Iterator[psycopg.Connection[Any]]:
    """A connection without a transaction; no statement may take long."""
    url = hostile_shop.engine.url.render_as_string(hide_password=False)
    with psycopg.connect(libpq_url(connection_options(url)), autocommit=True) as connection:
        connection.execute("SET statement_timeout = '20s'")
        connection.execute(
            "INSERT INTO pgmrl.queries VALUES ('items', 'embedding', 'mine', 'a question', 'static', %s)", [VECTOR]
        )
        yield connection


def argument_types(connection: psycopg.Connection[Any], function: str) -> dict[str, str]:
    """The arguments of a function by name, each with its type."""
    query = "SELECT pg_get_function_arguments(oid) FROM pg_proc WHERE proname = %s"
    row = connection.execute(query, [function]).fetchone()
    assert row is not None
    arguments = [argument.split(" DEFAULT ")[0] for argument in row[0].split(", ")]
    return {argument.split(" ", 1)[0]: argument.split(" ", 1)[1] for argument in arguments}


def called(connection: psycopg.Connection[Any], function: str, types: dict[str, str], values: Values) -> Any:
    """The rows of a call; each value is a text that the server reads as one of the argument's type."""
    arguments = ", ".join(f"{name} => CAST(%({name})s::text AS {types[name]})" for name in values)
    cursor = connection.cursor(row_factory=psycopg.rows.dict_row)
    return cursor.execute(f"SELECT * FROM {function}({arguments})", values).fetchall()


def check_error(error: psycopg.Error) -> None:
    """The server refuses by itself: the connection is not lost, nothing was cancelled, no error is an internal one."""
    assert error.sqlstate is not None
    assert error.sqlstate[:2] not in {"08", "57", "58", "XX"}
    assert 10 < len(str(error)) < 3_000


def whole(text: str) -> int:
    """A number as the server reads it, also in other bases."""
    return int(text, 0) if text.strip().lower().startswith(("0x", "0b", "0o")) else int(text)


def check_hits(shop: Shop, function: str, values: Values, rows: list[dict[str, Any]]) -> None:
    """Rows with the distances that NumPy computes; all those that are nearest where nothing is left out."""
    assert len(rows) <= whole(values.get("k") or "10") * whole(values.get("per_group") or "1")
    if function in {"items_hybrid", "items_search_named"} or not rows:
        return
    query = (
        shop.vectors[whole(values["id"] or "0")]
        if "id" in values
        else np.array(str(values["query"])[1:-1].split(","), float)
    )
    truth = shop.distances(query)
    for row in rows:
        assert math.isclose(row["distance"], truth[row["id"]], abs_tol=1e-3)
    if function in {"items_search", "items_similar"} and values.keys() <= {"query", "id", "k", "exact"}:
        own = {whole(values["id"] or "0")} if "id" in values else set()
        nearest = [n for n in np.argsort(truth).tolist() if n not in own][: whole(values.get("k") or "10")]
        assert [row["id"] for row in rows] == nearest


def test_every_function_is_tried(sql: psycopg.Connection[Any]) -> None:
    """A new kind of function needs a call here; those with a version are called by the others."""
    names = sql.execute("SELECT DISTINCT proname FROM pg_proc WHERE proname LIKE 'items%'").fetchall()
    assert {name for (name,) in names if not re.search(r"_v\d+$", name)} == set(CALLS)
    for function, values in CALLS.items():
        assert called(sql, function, argument_types(sql, function), values)


@pytest.mark.parametrize("function", sorted(CALLS))
def test_hostile_values(function: str, sql: psycopg.Connection[Any], hostile_shop: Shop) -> None:
    """Each argument by itself, also one that the call leaves out."""
    types = argument_types(sql, function)
    assert set(types.values()) <= set(OF_TYPE)

    def values_of(name: str) -> st.SearchStrategy[tuple[str, str | None]]:
        own = st.one_of(
            st.none(), st.sampled_from(OF_TYPE[types[name]]), st.text(st.characters(codec="utf-8"), max_size=9)
        )
        return own.map(lambda value: (name, None if value is None else value.replace("\0", "")))

    @given(exchanged=st.sampled_from(sorted(types)).flatmap(values_of))
    def run(exchanged: tuple[str, str | None]) -> None:
        values: Values = {**CALLS[function], exchanged[0]: exchanged[1]}
        try:
            rows = called(sql, function, types, values)
        except psycopg.Error as error:
            check_error(error)
            return
        if function != "items_vector":
            check_hits(hostile_shop, function, values, rows)

    run()
    assert sql.execute("SELECT count(*) FROM items").fetchone() == (ROWS + 2,)
