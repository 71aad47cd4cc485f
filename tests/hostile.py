"""A database full of somebody else's operators, functions and types that fit better than the server's own.

Each does what the server's own does, and is counted by the server (`track_functions`), also in a transaction that is
read-only or rolled back: `called` has the names of those that ran.
"""

from __future__ import annotations

import re
import time
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

import pgmrl
from pgmrl.database import execute_plain
from pgmrl.names import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection, Engine

__all__ = ["called", "fill_with_strangers", "temporary_strangers"]

TYPES: Final = (
    "oid", "integer", "bigint", "smallint", "name", "text", '"char"', "boolean", "regclass", "regtype", "regproc",
    "double precision", "real", "numeric", "jsonb", "timestamptz", "interval", "varchar", "bytea", "text[]", "name[]",
    "smallint[]", "int2vector", "oid[]",
)  # fmt: skip
OPERATORS: Final = (
    "=",
    "<>",
    "<",
    ">",
    "<=",
    ">=",
    "~~",
    "!~~",
    "~",
    "!~",
    "||",
    "+",
    "-",
    "*",
    "/",
    "%",
    "@>",
    "->>",
    "?",
)
WIDER: Final = {
    "oid": ("integer", "regclass", "bigint"),
    "regclass": ("oid", "integer"),
    "text": ("name", "varchar", '"char"', "regclass"),
    "name": ("varchar",),
    "bigint": ("integer", "smallint"),
    "integer": ("smallint",),
    "numeric": ("integer", "bigint"),
    "double precision": ("integer", "bigint", "numeric", "real"),
    "real": ("integer", "numeric"),
    '"any"': ("integer", "bigint", "text", "name", "oid", "boolean", "smallint", "double precision"),
    "anyelement": ("integer", "text", "name", "oid", "double precision", "boolean"),
    "anyarray": ("text[]", "oid[]", "integer[]", "name[]", "smallint[]"),
    "anynonarray": ("text", "integer", "name"),
    "anycompatible": ("integer", "text", "oid"),
    "anycompatiblearray": ("text[]", "oid[]"),
}
"""Types that fit the argument of a call better, by the type that the server's own function takes."""

_ARGUMENTS: Final = "ARRAY(SELECT t::regtype::text FROM unnest(p.proargtypes) WITH ORDINALITY AS a(t, n) ORDER BY n)"
_FUNCTION: Final = (
    "CREATE FUNCTION public.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql VOLATILE "
    "SET search_path = pg_catalog, pg_temp AS $$ BEGIN {body}; END $$"
)


def fill_with_strangers(connection: Connection, vector_schema: str) -> int:
    """Make them in the schema `public`; how many there are.

    Args:
        connection: of a superuser, in a transaction.
        vector_schema: pgvector's, which is not `public`: its operators and functions are made there, too.
    """
    statements = [*_operators(connection), *_functions(connection), *_vector_objects(connection, vector_schema)]
    made = 0
    for statement in statements:
        try:
            with connection.begin_nested():
                execute_plain(connection, statement)
        except DBAPIError:
            continue  # a combination that means nothing
        made += 1
    return made


def called(engine: Engine) -> list[str]:
    """The strangers' functions that ran so far, when the sessions that may have called them are over."""
    query = text(
        "SELECT schemaname || '.' || funcname FROM pg_stat_user_functions WHERE schemaname = 'public' ORDER BY 1"
    )
    others = text(
        "SELECT count(*) FROM pg_catalog.pg_stat_activity AS a WHERE a.datname OPERATOR(pg_catalog.=) "
        "pg_catalog.current_database() AND a.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("SET search_path = pg_catalog")
        for _ in range(200):
            if not connection.execute(others).scalar_one():
                break
            time.sleep(0.05)
        return [str(name) for name in connection.execute(query).scalars()]


def temporary_strangers(connection: Connection) -> None:
    """Temporary views in place of the catalogue's tables, which an unpinned path finds first; each row is counted."""
    for name in ("pg_class", "pg_namespace", "pg_attribute", "pg_type", "pg_proc", "pg_trigger", "pg_index", "pg_am",
                 "pg_opclass", "pg_extension", "pg_roles", "pg_settings", "pg_attrdef", "pg_depend"):  # fmt: skip
        columns = execute_plain(
            connection,
            "SELECT pg_catalog.string_agg(pg_catalog.quote_ident(a.attname), ', ') FROM pg_catalog.pg_attribute AS a "
            f"WHERE a.attrelid OPERATOR(pg_catalog.=) 'pg_catalog.{name}'::pg_catalog.regclass::pg_catalog.oid "
            "AND a.attnum OPERATOR(pg_catalog.>) 0::smallint "
            "AND a.attname OPERATOR(pg_catalog.<>) 'attmissingval'::name",
        ).scalar_one()
        execute_plain(
            connection,
            f"CREATE TEMPORARY VIEW {name} AS "
            f"SELECT {columns} FROM pg_catalog.{name} AS c WHERE public.canary_relation({name!r})",
        )


def _operators(connection: Connection) -> Iterator[str]:
    there = _existing(connection, "SELECT oprname, oprleft::regtype::text, oprright::regtype::text FROM pg_operator")
    for operator, left, right in product(OPERATORS, TYPES, TYPES):
        if (operator, _spelt(left), _spelt(right)) in there:
            continue
        call = f"CAST(NULL AS {left}) OPERATOR(pg_catalog.{operator}) CAST(NULL AS {right})"
        result = _result(connection, call)
        if result is None:
            continue
        name = quoted(f"{operator} {left}, {right}".replace('"', ""))
        body = f"RETURN $1 OPERATOR(pg_catalog.{operator}) $2"
        yield _FUNCTION.format(name=name, arguments=f"{left}, {right}", returns=result, body=body)
        yield f"CREATE OPERATOR public.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.{name})"


def _functions(connection: Connection) -> Iterator[str]:
    names = sorted(_called_names())
    query = text(
        f"SELECT p.proname, {_ARGUMENTS}, "
        "p.prorettype::regtype::text, p.proretset, p.prokind::text FROM pg_proc AS p "
        "WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (:names) AND p.pronargs BETWEEN 1 AND 4 "
        "AND p.provariadic = 0 ORDER BY 1, 2"
    )
    rows = connection.execute(query, {"names": names}).all()
    there = {(name, tuple(arguments)) for name, arguments, *_ in rows}
    for name, arguments, returns, is_set, kind in rows:
        for types in _better(arguments):
            if (name, tuple(map(_spelt, types))) in there:
                continue
            there.add((name, tuple(map(_spelt, types))))
            call = f"pg_catalog.{quoted(name)}({', '.join(f'CAST(NULL AS {type_})' for type_ in types)})"
            result = returns if is_set or kind != "f" else _result(connection, call)
            if result is None:
                continue
            places = ", ".join(f"${n}" for n in range(1, len(types) + 1))
            body = f"RETURN pg_catalog.{quoted(name)}({places})" if not is_set and kind == "f" else "RETURN"
            if not is_set and kind != "f":
                body = "RETURN NULL"
            if result.startswith("any"):
                result = types[0].removesuffix("[]") if result in {"anyelement", "anycompatible"} else types[0]
            made = "SETOF " + result if is_set else result
            yield _FUNCTION.format(name=quoted(name), arguments=", ".join(types), returns=made, body=body)
    for count in (2, 3, 4):
        for types in product(("text", "name", "integer"), repeat=count):
            for name, returns in (("format", "text"), ("concat_ws", "text"), ("concat", "text")):
                places = ", ".join(f"${n}" for n in range(1, count + 1))
                yield _FUNCTION.format(
                    name=name, arguments=", ".join(types), returns=returns, body=f"RETURN pg_catalog.{name}({places})"
                )
    yield _FUNCTION.format(name="canary_relation", arguments="text", returns="boolean", body="RETURN true")


def _vector_objects(connection: Connection, schema: str) -> Iterator[str]:
    """Pgvector's own names once more: found first where the path has `public` before the extension's schema."""
    functions = text(
        f"SELECT p.proname, {_ARGUMENTS}, "
        "p.prorettype::regtype::text FROM pg_proc AS p WHERE p.pronamespace = CAST(:schema AS regnamespace) "
        "AND p.prokind = 'f' AND NOT p.proretset ORDER BY 1, 2"
    )
    for name, arguments, returns in connection.execute(functions, {"schema": schema}).all():
        places = ", ".join(f"${n}" for n in range(1, len(arguments) + 1))
        body = f"RETURN {schema}.{name}({places})"
        yield _FUNCTION.format(name=name, arguments=", ".join(arguments), returns=returns, body=body)
    operators = text(
        "SELECT o.oprname, o.oprleft::regtype::text, o.oprright::regtype::text, o.oprresult::regtype::text "
        "FROM pg_operator AS o WHERE o.oprnamespace = CAST(:schema AS regnamespace) AND o.oprleft <> 0 ORDER BY 1, 2, 3"
    )
    for operator, left, right, result in connection.execute(operators, {"schema": schema}).all():
        name = quoted(f"{operator} {left}, {right}")
        body = f"RETURN $1 OPERATOR({schema}.{operator}) $2"
        yield _FUNCTION.format(name=name, arguments=f"{left}, {right}", returns=result, body=body)
        yield f"CREATE OPERATOR public.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.{name})"


def _called_names() -> set[str]:
    """Whatever stands before a parenthesis in pgmrl's sources: among it is each function that pgmrl calls."""
    folder = Path(pgmrl.__file__).parent
    sources = [*folder.rglob("*.py"), *folder.rglob("*.sql")]
    put_together = {"plainto_tsquery", "ts_rank", "ts_rank_cd", "websearch_to_tsquery"}
    found = {name for path in sources for name in re.findall(r"\b([a-z_0-9]+)\(", path.read_text(encoding="utf-8"))}
    return found | put_together


def _better(arguments: list[str]) -> Iterator[tuple[str, ...]]:
    """Types of a call that the server's own function takes by a cast: one argument's, and all."""
    for place, type_ in enumerate(arguments):
        for other in WIDER.get(type_, ()):
            yield (*arguments[:place], other, *arguments[place + 1 :])
    choices = [WIDER.get(type_, (type_,))[:3] for type_ in arguments]
    yield from product(*choices)


def _existing(connection: Connection, query: str) -> set[tuple[Any, ...]]:
    return {tuple(row) for row in connection.execute(text(f"{query} WHERE oprnamespace = 'pg_catalog'::regnamespace"))}


def _result(connection: Connection, call: str) -> str | None:
    """The type that a call gives; None where it means nothing."""
    try:
        with connection.begin_nested():
            return str(
                connection.execute(text(f"SELECT pg_catalog.pg_typeof({call})".replace(":", "\\:"))).scalar_one()
            )
    except DBAPIError:
        return None


def _spelt(type_: str) -> str:
    return {"timestamptz": "timestamp with time zone", "varchar": "character varying"}.get(type_, type_)
