"""SQL functions against hostile text, hostile names, a hostile search_path, and roles without rights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import ARRAY, Column, Connection, Engine, Integer, MetaData, Table, Text, create_engine, text
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.exc import DBAPIError

from pgmrl import SqlFunctions, database, install_functions
from pgmrl.functions.install import drop_functions
from pgmrl.functions.installed import functions
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Prefix, Short
from pgmrl.names import quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pgmrl.model.rotation import Rotation
else:
    Rotation = Any

QUERY = "[1,2,3,4,5,6,7,8]"
VECTOR = np.array([1.0, 2, 3, 4, 5, 6, 7, 8])
INJECTIONS = [
    "'; DROP TABLE docs; --",
    "' OR '1'='1",
    "x' OR t.kind IS NOT NULL --",
    "$pgmrl$; DROP TABLE docs; $pgmrl$",
    "$1", "$5 OR true", "%s", "%I %L %1$s", "{query}", "{candidates}", "\\'; DROP TABLE docs; --", "\\", "'", '"', "''",
    "a\nb; DROP TABLE docs;", "/* */ OR true", "\u2019 OR 1=1", "NULL", "true", "pg_sleep(10)", "{a,b}", "ARRAY['a']",
]  # fmt: skip


@pytest.fixture
def docs(connection: Connection) -> Connection:
    """Rows whose texts are the injections themselves, so that each must find exactly its own."""
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("kind", Text),
        Column("tags", ARRAY(Text)),
        Column("e", Matryoshka(8, Short(4))),
        Column("words", TSVECTOR),
    )
    docs.create(connection)
    rows = [
        {"id": n, "kind": one, "tags": ["x", one], "e": VECTOR + n, "words": "a b"}
        for n, one in enumerate(["plain", *INJECTIONS])
    ]
    connection.execute(docs.insert(), rows)
    filters = ("kind", "kind >=", "kind <=", "kind in", "tags contains")
    install_functions(connection, docs.c.e, SqlFunctions(filters=filters, words="words", config="simple"))
    for one in INJECTIONS:
        sent = {"name": one, "vector": QUERY}
        connection.execute(text("INSERT INTO pgmrl.queries VALUES ('docs', 'e', :name, NULL, NULL, :vector)"), sent)
    return connection


@pytest.mark.parametrize("said", INJECTIONS)
def test_text_is_never_syntax(docs: Connection, said: str) -> None:
    """Through every filter, and as the name of a query."""
    for given in (
        "kind => :said",
        "kind_any => ARRAY[:said]",
        "tags_with => ARRAY['x', :said]",
        "kind_min => :said, kind_max => :said",
    ):
        for call in (
            "docs_search(:query, 50, {})",
            "docs_search(:query, 50, exact => true, {})",
            "docs_similar(0, 50, {})",
            "docs_search_diverse(:query, 50, {})",
            "docs_hybrid(:query, :said, 50, {})",
            "docs_hybrid(:query, :said, 50, match => 'web', fusion => 'weighted', {})",
        ):
            sent = {"said": said} | ({"query": QUERY} if "query" in call else {})
            found = docs.execute(text(f"SELECT id FROM {call.format(given)}"), sent).scalars().all()
            assert found == [INJECTIONS.index(said) + 1], call
    found = docs.execute(text("SELECT id FROM docs_search_named(:said, 50)"), {"said": said}).scalars().all()
    assert len(found) == len(INJECTIONS) + 1
    for argument in ("match", "fusion"):
        with pytest.raises(DBAPIError, match=f"{argument} is"), docs.begin_nested():
            docs.execute(
                text(f"SELECT * FROM docs_hybrid(:query, 'a', {argument} => :said)"), {"said": said, "query": QUERY}
            )
    with pytest.raises(DBAPIError) as caught:
        docs.execute(text("SELECT * FROM docs_search_named(:said)"), {"said": said + "?"}).all()
    assert getattr(caught.value.orig, "sqlstate", None) == "P0002"


# -- names ---------------------------------------------------------------------------------------------------------


NAMES = [
    ("my.schema", "order", "select", 'a"b', "group"),
    ("100%", "50%s", "%(x)s", "%I", "%"),
    ("$pgmrl$", "$pgmrl$; DROP", "$1", "$pgmrl_$", "$$"),
    ("{query}", "{candidates}", "{dims}", "{k}", "{zero_full}"),
    ("back\\slash", "it's", "a\\'b", "'", "\\"),
    ("new\nline", "tab\tle", "a\nb", "c\rd", "--"),
    ("two words", "größe", "表" * 21, "Ключ", "Größe"),
    ("s" * 63, "t" * 63, "k" * 63, "e" * 63, "f" * 63),
    ("a:b", ":name", "::k", "?", "/* x */"),
    ("public", "t", "query", "e", "k"),
    ("public", "v", "rank", "distance", "shortlist"),
    ("public", "docs", "distance", "similarity", "exact"),
    ("public", "docs", "id", "e", "name"),
    ("public", "docs", "name", "e", "query"),
    ("public", "docs", "k", "e", "rank"),
    ("public", "docs", "exact", "e", "key_1"),
    ("public", "docs", "shortlist", "full_vector", "distance"),
    ("public", "docs", "not_1", "d", "size"),
    ("public", "docs", "key_1", "shortlist", "hits"),
    ("public", "docs", "stored", "t", "not_1"),
    ("public", "docs", "returned", "v", "requested"),
    ("public", "docs", "relevance", "hits", "per_group"),
]  # schema, table, key, vector, filter and group


WORDS = "w\"$1 {k}%s'\\"


@pytest.mark.parametrize("by", ["prefix", "rotation"])
@pytest.mark.parametrize("names", NAMES)
def test_hostile_names(connection: Connection, small_rotation: Rotation, names: tuple[str, ...], by: str) -> None:
    """Schema, table, key, vector and filter, in every function and view that is made of them."""
    schema, table, key, vector, kind = names
    rule = small_rotation if by == "rotation" else Prefix()
    docs = Table(
        table,
        MetaData(schema=schema),
        Column(key, Integer, primary_key=True),
        Column(kind, Text),
        Column(vector, Matryoshka(8, Short(4, rule))),
        Column(WORDS, TSVECTOR),
    )
    database.install_rotation(connection, small_rotation)
    database.execute_plain(connection, f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
    before = objects(connection)
    docs.create(connection)
    rows = [{key: n, kind: "ab"[n % 2], vector: VECTOR + n * n, WORDS: f"word{n} all"} for n in range(6)]
    connection.execute(docs.insert(), rows)
    declared = SqlFunctions(
        filters=(kind, f"{kind} in"), related=2, stored=True, group_by=kind, words=WORDS, config="simple"
    )
    searched = install_functions(connection, docs.c[vector], declared)
    filters = [quoted(searched.argument_name(test)) for test in declared.tests]

    def call(kind: str, arguments: str) -> list[int]:
        columns = f"SELECT * FROM {searched.qualified_name(kind)}({arguments})"
        return [int(row[0]) for row in database.execute_plain(connection, columns)]

    assert call("search", f"'{QUERY}', exact => true") == call("search", f"'{QUERY}'") == [0, 1, 2, 3, 4, 5]
    assert call("search", f"'{QUERY}', {filters[0]} => 'b'") == [1, 3, 5]
    assert call("search", f"'{QUERY}', {filters[1]} => '{{b}}'") == [1, 3, 5]
    assert call("similar", f"0, 2, {filters[0]} => 'a'") == [2, 4]
    assert call("search_diverse", f"'{QUERY}', 1") == [0]
    assert call("search_groups", f"'{QUERY}'") == [0, 1]
    assert set(call("hybrid", f"'{QUERY}', 'word4 all', 3, {filters[0]} => 'a'")) == {0, 2, 4}
    database.execute_plain(
        connection,
        f"INSERT INTO pgmrl.queries SELECT c.oid, a.attname, 'q', NULL, NULL, '{QUERY}' FROM pg_class AS c "
        "JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum = (SELECT 3) "
        f"WHERE c.oid = (SELECT max(oid) FROM pg_class WHERE relkind = 'r' AND relnamespace <> 'pgmrl'::regnamespace)",
    )
    assert call("search_named", f"'q', 3, {filters[0]} => 'b'") == [1, 3, 5]
    for view in searched.view_names:
        name = f"{quoted(searched.functions_schema)}.{quoted(view)}"
        if view != searched.view_names[0]:
            database.execute_plain(connection, f"REFRESH MATERIALIZED VIEW {name}")
        assert len(database.execute_plain(connection, f"SELECT * FROM {name}").all()) == 12
    with pytest.raises(DBAPIError, match="query has 2 dimensions"), connection.begin_nested():
        call("search", "'[1,2]'")
    with pytest.raises(DBAPIError, match="there is no row"), connection.begin_nested():
        call("similar", "99")
    assert {one.table_name for one in functions(connection)} == {table}
    install_functions(connection, docs.c[vector], declared)
    drop_functions(connection, docs.c[vector])
    docs.drop(connection)
    assert objects(connection) == before


def objects(connection: Connection) -> set[tuple[Any, ...]]:
    """Every function, relation and type."""
    parts = (("proname", "pg_proc"), ("relname", "pg_class"), ("typname", "pg_type"))
    statement = " UNION ".join(f"SELECT oid, {name} FROM {catalogue}" for name, catalogue in parts)
    return {tuple(row) for row in connection.exec_driver_sql(statement)}


def test_two_long_filters_that_differ_at_the_end(connection: Connection) -> None:
    """Arguments of 63 bytes with an ending are cut and stay apart."""
    one, other = "f" * 62 + "a", "f" * 62 + "b"
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column(one, Integer),
        Column(other, Integer),
        Column("e", Matryoshka(8, Short(4))),
    )
    docs.create(connection)
    connection.execute(docs.insert(), [{"id": n, one: n, other: -n, "e": VECTOR + n} for n in range(4)])
    declared = SqlFunctions(filters=(one, f"{one} >=", f"{one} <=", other, f"{other} >=", f"{other} in"))
    searched = install_functions(connection, docs.c.e, declared)
    names = [searched.argument_name(test) for test in declared.tests]
    assert len(set(names)) == 6
    assert all(len(name.encode()) <= 63 for name in names)
    for name, value, expected in (
        (names[1], "2", [2, 3]),
        (names[2], "1", [0, 1]),
        (names[4], "-1", [0, 1]),
        (names[5], "'{-3}'", [3]),
        (names[3], "-2", [2]),
    ):
        found = connection.execute(text(f"SELECT id FROM docs_search('{QUERY}', {quoted(name)} => {value})"))
        assert found.scalars().all() == expected


def test_a_composite_key_whose_names_collide(connection: Connection) -> None:
    """With each other as the related view names them, and with its own columns."""
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("related_id", Integer, primary_key=True),
        Column("rank", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4))),
    )
    docs.create(connection)
    connection.execute(docs.insert(), [{"id": n, "related_id": 1, "rank": 2, "e": VECTOR + n} for n in range(4)])
    install_functions(connection, docs.c.e, SqlFunctions(related=2, stored=True))
    connection.exec_driver_sql("REFRESH MATERIALIZED VIEW docs_related_stored")
    connection.exec_driver_sql("REFRESH MATERIALIZED VIEW CONCURRENTLY docs_related_stored")
    assert len(connection.exec_driver_sql("SELECT * FROM docs_related_stored").all()) == 8


def test_the_same_table_name_in_two_schemas(connection: Connection) -> None:
    """Each one's functions read their own table, whatever the search_path; queries are not mixed up."""
    for schema, first in (("one", 1), ("two", 5)):
        connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        docs = Table(
            "docs",
            MetaData(schema=schema),
            Column("id", Integer, primary_key=True),
            Column("e", Matryoshka(8, Short(4))),
        )
        docs.create(connection)
        connection.execute(docs.insert(), [{"id": first + n, "e": VECTOR + n} for n in range(3)])
        install_functions(connection, docs.c.e, SqlFunctions(related=1))
        connection.execute(
            text(f"INSERT INTO pgmrl.queries VALUES ('{schema}.docs', 'e', '{schema}', NULL, NULL, '{QUERY}')")
        )
    for path in ("one", "two", "two, one"):
        connection.exec_driver_sql(f"SET LOCAL search_path = {path}, public")
        for schema, expected in (("one", [1, 2, 3]), ("two", [5, 6, 7])):
            assert found(connection, f"{schema}.docs_search('{QUERY}')") == expected
            assert found(connection, f"{schema}.docs_search_named('{schema}')") == expected
            assert sorted(found(connection, f"{schema}.docs_related")) == expected
            with pytest.raises(DBAPIError, match="no query named"), connection.begin_nested():
                found(connection, f"{schema}.docs_search_named('{'two' if schema == 'one' else 'one'}')")


def found(connection: Connection, source: str) -> list[int]:
    """The first column."""
    return [row[0] for row in connection.exec_driver_sql(f"SELECT * FROM {source}")]


# -- the search_path -----------------------------------------------------------------------------------------------


HOSTILE = [
    ("set_config(text, text, boolean)", "text"), ("current_setting(text, boolean)", "text"),
    ("to_regclass(text)", "regclass"), ("greatest(integer, integer)", "integer"),
    ("format(text, bigint, integer)", "text"),
    ("l2_normalize(halfvec)", "halfvec"), ("subvector(halfvec, integer, integer)", "halfvec"),
    ("vector_dims(halfvec)", "integer"), ("l2_norm(halfvec)", "double precision"),
    ("rotate_v1(halfvec, text, integer)", "halfvec"),
    ("binary_quantize(halfvec)", "bit"), ("array_agg(double precision)", "double precision[]"),
    ("unnest(double precision[])", "double precision"), ("cardinality(double precision[])", "integer"),
    ("pg_stat_get_xact_numscans(oid)", "bigint"), ("count(integer)", "bigint"), ("gave_up_v1(text, bigint)", "boolean"),
    ("plainto_tsquery(regconfig, text)", "tsquery"), ("websearch_to_tsquery(regconfig, text)", "tsquery"),
    ("ts_rank_cd(tsvector, tsquery)", "real"), ("btrim(text, text)", "text"), ("replace(text, text, text)", "text"),
    ("query_v1(text, text, text)", "vector"), ("docs_vector(integer)", "halfvec"), ("quote_literal(text)", "text"),
]  # fmt: skip
OPERATORS = [
    ("<=>", "halfvec", "halfvec", "float8"), ("<->", "halfvec", "halfvec", "float8"), ("=", "text", "text", "boolean"),
    ("=", "integer", "integer", "boolean"), ("<", "double precision", "double precision", "boolean"),
    ("<>", "double precision", "double precision", "boolean"), (">=", "integer", "integer", "boolean"),
    ("<=", "integer", "integer", "boolean"), ("||", "text", "text", "text"),
    ("+", "double precision", "integer", "float8"),
    ("-", "integer", "double precision", "float8"), ("*", "bigint", "integer", "bigint"),
    ("@>", "text[]", "text[]", "boolean"),
    ("@@", "tsvector", "tsquery", "boolean"), ("/", "double precision", "bigint", "float8"),
]  # fmt: skip


@pytest.mark.parametrize("by", ["prefix", "rotation", "shards"])
@pytest.mark.parametrize("place", ["decoy", "pg_temp"])
def test_nothing_on_the_search_path_is_run(
    connection: Connection, small_rotation: Rotation, place: str, by: str
) -> None:
    """Functions, operators and tables in front of ours, also of pg_catalog's: each would raise, none does."""
    rule = small_rotation if by == "rotation" else Prefix()
    docs = Table(
        "docs",
        MetaData(schema="public"),
        Column("id", Integer, primary_key=True),
        Column("kind", Text),
        Column("tags", ARRAY(Text)),
        Column("size", Integer),
        Column("e", Matryoshka(8, Short(4, rule), distributed=by == "shards")),
        Column("words", TSVECTOR),
    )
    database.install_rotation(connection, small_rotation)
    docs.create(connection)
    rows = [{"id": n, "kind": "ab"[n % 2], "tags": ["x"], "size": n, "e": VECTOR + n, "words": "a"} for n in range(6)]
    connection.execute(docs.insert(), rows)
    filters = ("kind", "size >=", "size <=", "kind in", "tags contains")
    related = None if by == "shards" else 2
    install_functions(
        connection,
        docs.c.e,
        SqlFunctions(
            filters=filters, related=related, stored=bool(related), group_by="kind", words="words", config="simple"
        ),
    )
    connection.exec_driver_sql(f"INSERT INTO pgmrl.queries VALUES ('docs', 'e', 'q', NULL, NULL, '{QUERY}')")
    given = "kind => 'b', size_min => 1, size_max => 5, kind_any => '{a,b}', tags_with => '{x}'"
    calls = [
        f"SELECT id FROM public.docs_search('{QUERY}', {given})",
        f"SELECT id FROM public.docs_search('{QUERY}', exact => true, {given})",
        f"SELECT id FROM public.docs_similar(1, {given})",
        f"SELECT id FROM public.docs_search_named('q', {given})",
        f"SELECT id FROM public.docs_search_diverse('{QUERY}', {given})",
        f"SELECT id FROM public.docs_search_groups('{QUERY}', {given})",
        f"SELECT id, score FROM public.docs_hybrid('{QUERY}', 'a b', {given})",
        f"SELECT id, score FROM public.docs_hybrid('{QUERY}', 'a', match => 'web', fusion => 'weighted', {given})",
        *(["SELECT id, related_id FROM public.docs_related"] if related else []),
    ]
    before = [connection.execute(text(call)).all() for call in calls]
    if place != "pg_temp":
        connection.exec_driver_sql(f"CREATE SCHEMA {place}")
    plant(connection, place)
    path = f"{place}, pg_catalog, public, {'decoy' if place == 'decoy' else 'pg_temp'}"
    connection.exec_driver_sql(f"SET LOCAL search_path = {path}")
    with pytest.raises(DBAPIError, match="hostile"), connection.begin_nested():  # they would be run
        connection.execute(
            text("SELECT 'a'::text = 'a'::text") if place == "decoy" else text("SELECT pg_temp.to_regclass('a')")
        )
    assert [connection.execute(text(call)).all() for call in calls] == before
    if related:
        connection.exec_driver_sql("REFRESH MATERIALIZED VIEW public.docs_related_stored")


def plant(connection: Connection, place: str) -> None:
    """Functions, operators and tables that raise as soon as anything uses them."""
    raises = "LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hostile'; END$$"
    for signature, result in HOSTILE:
        connection.exec_driver_sql(f"CREATE FUNCTION {place}.{quoted_call(signature)} RETURNS {result} {raises}")
    for number, (name, left, right, result) in enumerate(OPERATORS):
        connection.exec_driver_sql(f"CREATE FUNCTION {place}.op_{number}({left}, {right}) RETURNS {result} {raises}")
        connection.exec_driver_sql(
            f"CREATE OPERATOR {place}.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {place}.op_{number})"
        )
    for table in ("docs", "queries", "axes", "rotations", "shortlist", "ranked", "pg_class"):
        connection.exec_driver_sql(f"CREATE TABLE {place}.{table} (id integer, kind text, e halfvec(8))")


def quoted_call(signature: str) -> str:
    """`greatest` is a word of SQL."""
    name, rest = signature.split("(", 1)
    return f'"{name}"({rest}'


# -- rights --------------------------------------------------------------------------------------------------------


@pytest.fixture
def guarded(engine: Engine) -> Iterator[Engine]:
    """An Engine of a role that may do nothing yet, on a database with functions for `analysts` of a table of ours."""
    role = f"reader_{engine.url.database}"
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("kind", Text),
        Column("secret", Text),
        Column("e", Matryoshka(8, Short(4))),
    )
    with engine.begin() as connection:
        for name in (role, f"{role}_analysts"):
            connection.exec_driver_sql(f"CREATE ROLE {name}")
        docs.create(connection)
        connection.execute(
            docs.insert(), [{"id": n, "kind": "ab"[n % 2], "secret": "x", "e": VECTOR + n} for n in range(6)]
        )
        install_functions(
            connection, docs.c.e, SqlFunctions(filters=("kind", "secret"), related=2, grant_to=(f"{role}_analysts",))
        )
        connection.exec_driver_sql(f"INSERT INTO pgmrl.queries VALUES ('docs', 'e', 'q', 'who?', NULL, '{QUERY}')")
    reader = create_engine(engine.url, connect_args={"options": f"-c role={role}"})
    yield reader
    reader.dispose()
    with engine.begin() as connection:
        for name in (role, f"{role}_analysts"):
            connection.exec_driver_sql(f"DROP OWNED BY {name}")
            connection.exec_driver_sql(f"DROP ROLE {name}")


CALLS = [
    "docs_search('[1,2,3,4,5,6,7,8]')",
    "docs_search('[1,2,3,4,5,6,7,8]', exact => true)",
    "docs_similar(1)",
    "docs_search_diverse('[1,2,3,4,5,6,7,8]')",
]


def state(engine: Engine, source: str) -> str:
    """The SQLSTATE that a call ends with."""
    with engine.connect() as connection, pytest.raises(DBAPIError) as caught:
        connection.execute(text(f"SELECT count(*) FROM {source}")).all()
    return str(getattr(caught.value.orig, "sqlstate", None))


def grant(engine: Engine, reader: Engine, what: str) -> None:
    """Grant the reader something."""
    role = reader.dialect.create_connect_args(reader.url)[1].get("user") or ""
    role = f"reader_{engine.url.database}"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"GRANT {what.replace('ANALYSTS', role + '_analysts')} TO {role}")


def test_rights_are_the_callers_own(engine: Engine, guarded: Engine) -> None:
    """EXECUTE and SELECT are both needed, and columns that are enough are enough."""
    for call in [*CALLS, "docs_search_named('q')", "docs_vector(1)", "docs_related"]:
        assert state(guarded, call) == "42501"
    grant(engine, guarded, "SELECT ON docs")
    for call in CALLS:  # EXECUTE is missing
        assert state(guarded, call) == "42501"
    with engine.begin() as connection:
        connection.exec_driver_sql(f"REVOKE SELECT ON docs FROM reader_{engine.url.database}")
    grant(engine, guarded, "ANALYSTS")
    for call in [*CALLS, "docs_vector(1)", "docs_related"]:  # SELECT is missing
        assert state(guarded, call) == "42501"
    assert state(guarded, "docs_search_named('q')") in {"42501", "P0002"}
    with guarded.connect() as connection:
        assert connection.exec_driver_sql("SELECT * FROM pgmrl.queries").all() == []
    grant(engine, guarded, "SELECT (id, e, e_short_4, kind) ON docs")
    with guarded.connect() as connection:
        for call in [*CALLS, "docs_search_named('q')", "docs_search('[1,2,3,4,5,6,7,8]', kind => 'a')"]:
            assert len(connection.execute(text(f"SELECT * FROM {call}")).all()) >= 3
        assert len(connection.execute(text("SELECT * FROM docs_related")).all()) == 12
        assert connection.exec_driver_sql("SELECT name FROM pgmrl.queries").scalars().all() == ["q"]
    assert state(guarded, "docs_search('[1,2,3,4,5,6,7,8]', secret => 'x')") == "42501"


def test_named_queries_cannot_be_written_by_readers(engine: Engine, guarded: Engine) -> None:
    """Whoever may read the table reads its queries, and no more."""
    grant(engine, guarded, "SELECT ON docs")
    for statement in (
        "INSERT INTO pgmrl.queries VALUES ('docs', 'e', 'mine', NULL, NULL, '[1]')",
        "UPDATE pgmrl.queries SET name = 'x'",
        "DELETE FROM pgmrl.queries",
    ):
        with guarded.connect() as connection, pytest.raises(DBAPIError, match="permission denied"):
            connection.execute(text(statement))
