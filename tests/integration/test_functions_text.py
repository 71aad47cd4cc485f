"""Python's statements and the installed functions have their numbers and texts from one place."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Connection, Integer, MetaData, Select, Table, Text, literal_column, select, text
from sqlalchemy.dialects import postgresql

from pgmrl import (
    FullText,
    Nearest,
    Rrf,
    SqlFunctions,
    Weighted,
    Words,
    install_functions,
    search,
    search_diverse,
    search_groups,
    search_hybrid,
)
from pgmrl.database.settings import Setting, store_setting, stored_numbers_sql
from pgmrl.functions.plpgsql import dynamic_text, value_of
from pgmrl.limits import EF_SEARCH_LIMIT, RRF_K
from pgmrl.model import ranking_sql, scan_settings
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.fulltext import Match, finds_rows_sql, tsquery_sql
from pgmrl.model.shortening import Definition, Short
from pgmrl.searching.scan import Scan, gated_sql

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sqlalchemy import Engine

QUERY = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
KEYS = ["key_1"]


@pytest.fixture(scope="module")
def docs(module_engine: Engine) -> Table:
    """A table with every function there is."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("part", Text),
        Column("words", FullText("part", config="english")),
        Column("e", Matryoshka(8, Short(4))),
    )
    with module_engine.begin() as connection:
        table.create(connection)
        install_functions(connection, table.c.e, SqlFunctions(group_by="part", words="words"))
    return table


@pytest.fixture
def connection(module_engine: Engine) -> Iterator[Connection]:
    """A connection whose transaction is rolled back."""
    with module_engine.connect() as opened:
        yield opened


@pytest.fixture
def source(connection: Connection) -> Callable[[str], str]:
    """The text of an installed function."""

    def text_of(name: str) -> str:
        found: str = connection.execute(
            text("SELECT prosrc FROM pg_proc WHERE oid = CAST(:name AS regproc)"), {"name": name}
        ).scalar_one()
        return found

    return text_of


def definition(table: Table) -> Definition:
    """Of its vectors, with pgvector's schema as the functions say it."""
    return replace(attachment_of(table.c.e).definition, vector_schema="public")


def inside(statement: str) -> str:
    """A part of a dynamic statement as it stands in a function's text."""
    return dynamic_text(statement)[1:-1]


def compiled(statement: Select[*tuple[Any, ...]]) -> str:
    """A search as text with named parameters."""
    return str(statement.compile(dialect=postgresql.dialect(paramstyle="named")))  # type: ignore[no-untyped-call]


def value(connection: Connection, sql: str) -> Any:
    """What an expression is."""
    return connection.exec_driver_sql(f"SELECT {sql}").scalar_one()


# -- numbers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 40, 999, 1000, 1001, 4999, 5001, 100_000])
def test_a_search_sets(connection: Connection, size: int) -> None:
    """ef_search, max_scan_tuples and scan_mem_multiplier for a shortlist, in numbers and as SQL."""
    ef_search = int(value(connection, scan_settings.default_ef_search_sql(str(size))))
    assert ef_search == scan_settings.default_ef_search(size)
    settings = scan_settings.scan_settings(f"'{ef_search}'")
    if size > EF_SEARCH_LIMIT:
        tuples = value(connection, scan_settings.max_scan_tuples_sql(str(size)))
        assert tuples == str(scan_settings.max_scan_tuples(size))
        settings |= scan_settings.long_scan_settings(f"'{tuples}'")
    else:
        assert scan_settings.max_scan_tuples(size) is None
    connection.execute(select(literal_column(gated_sql("1", Scan(size, ef_search)))))
    for name, expression in settings.items():
        assert value(connection, f"current_setting('{name}') = {expression}")


@pytest.mark.parametrize("worker", ["docs_search_v1", "docs_search_groups_v1", "docs_search_diverse_v1"])
def test_a_function_sets(docs: Table, source: Callable[[str], str], worker: str) -> None:
    """The same, and puts back what was there."""
    assert docs.name in worker
    body = source(worker)
    ef_search = scan_settings.default_ef_search_sql("coalesce(ef_search, shortlist_size)")
    for name, expression in {
        **scan_settings.scan_settings(f"{ef_search}::text"),
        **scan_settings.long_scan_settings(scan_settings.max_scan_tuples_sql("shortlist_size")),
    }.items():
        assert f"set_config('{name}', {expression}, true)" in body
    for name, default in scan_settings.PGVECTOR_DEFAULTS.items():
        assert f"set_config('{name}', coalesce(old_{name.removeprefix('hnsw.')}, '{default}'), true)" in body


def test_pgvectors_defaults(connection: Connection) -> None:
    """As the server says, in a session that has set none."""
    value(connection, "'[1]'::vector")  # loads the library, which brings the settings
    for name, default in scan_settings.PGVECTOR_DEFAULTS.items():
        assert value(connection, f"boot_val FROM pg_settings WHERE name = '{name}'") == default


@pytest.mark.parametrize("k", [1, 4, 5, 77, 9_999, 10_001, 100_000])
def test_the_default_shortlist(connection: Connection, k: int) -> None:
    """Where neither a caller nor tuning says."""
    assert value(connection, scan_settings.default_shortlist_sql(f"{k}::numeric")) == scan_settings.default_shortlist(k)


@pytest.mark.parametrize("k", [1, 10, 11, 37, 5_000])
@pytest.mark.parametrize("setting", [Setting(10, 37, 23), Setting(7, 90_000, 999), Setting(3, 3, 1)])
def test_what_tuning_chose(connection: Connection, docs: Table, setting: Setting, k: int) -> None:
    """In proportion, rounded up, within the limits."""
    store_setting(connection, docs.c.e, setting)
    short = attachment_of(docs.c.e).short
    stored = stored_numbers_sql("'docs'", "'e'", f"'{short}'", f"{k}::numeric")
    assert tuple(map(int, connection.exec_driver_sql(stored).one())) == setting.numbers(k)


# -- texts ---------------------------------------------------------------------------------------------------------


def test_nearest(docs: Table, source: Callable[[str], str]) -> None:
    """The exact order of a shortlist."""
    distance = ranking_sql.distance_sql(definition(docs), "$1")
    in_function = ranking_sql.nearest_sql(distance, KEYS, "shortlist", value_of("$2"))
    assert inside(in_function) in source("docs_search_v1")
    made = compiled(search(select(docs.c.id), docs.c.e, QUERY, k=7, complete=False))
    own = attachment_of(docs.c.e).definition
    in_python = ranking_sql.distance_sql(own, "{}").partition("{}")
    assert in_python[0] in made
    assert in_python[2] in made


def test_groups(docs: Table, source: Callable[[str], str]) -> None:
    """Which groups, and which rows of each."""
    distances = ranking_sql.distances_sql(definition(docs), "$1", "key_1, group_key", "shortlist")
    numbers = map(value_of, ("$2", "$5", "$2 * $5"))
    in_function = ranking_sql.groups_sql(f"({distances})", KEYS, "group_key", *numbers)
    assert inside(in_function) in source("docs_search_groups_v1")
    made = compiled(search_groups(select(docs.c.id), docs.c.e, QUERY, docs.c.part, k=6, per_group=3, exact=True))
    assert ranking_sql.groups_sql("pgmrl_all", KEYS, "group_key", "6", "3", "18") in made


def test_diverse(docs: Table, source: Callable[[str], str]) -> None:
    """Which row is picked next."""
    in_function = ranking_sql.diverse_sql(definition(docs), "numbered", KEYS, value_of("$5"), value_of("$2"))
    assert inside(in_function) in source("docs_search_diverse_v1")
    made = compiled(search_diverse(select(docs.c.id), docs.c.e, QUERY, k=6, relevance=0.25))
    own = attachment_of(docs.c.e).definition
    assert ranking_sql.diverse_sql(own, "pgmrl_ranked", KEYS, ":pgmrl_relevance_1", "6") in made


@pytest.mark.parametrize("fuse", [Rrf(), Weighted()])
def test_fusion(docs: Table, source: Callable[[str], str], fuse: Rrf | Weighted) -> None:
    """What a list adds to a score, and how the lists are put together."""
    in_function = ranking_sql.fused_sql(
        ["nearest", "matching"], [value_of("vector_part"), value_of("words_part")], KEYS, value_of("$3")
    )
    assert inside(in_function) in source("docs_hybrid_v1")

    def part(weight: str, rrf_k: str) -> str:
        is_rrf = isinstance(fuse, Rrf)
        return ranking_sql.rrf_part_sql(weight, rrf_k) if is_rrf else ranking_sql.weighted_part_sql(weight)

    assert f"vector_part := '{part('1', str(RRF_K))}'" in source("docs_hybrid_v1")
    assert f"words_part := '{part('$4', str(RRF_K))}'" in source("docs_hybrid_v1")
    made = search_hybrid(
        select(docs.c.id), [Nearest(docs.c.e, QUERY), Words(docs.c.words, "train")], k=6, fuse=fuse
    ).compile(dialect=postgresql.dialect(paramstyle="named"))  # type: ignore[no-untyped-call]
    parts = [part(f":pgmrl_weight_{number}_1", ":pgmrl_rrf_k_1") for number in (1, 2)]
    assert ranking_sql.fused_sql(["pgmrl_list_1", "pgmrl_list_2"], parts, KEYS, "6") in str(made)
    assert made.params.get("pgmrl_rrf_k_1") in {None, RRF_K}


@pytest.mark.parametrize("match", ["any", "all", "web"])
def test_words(docs: Table, source: Callable[[str], str], match: Match) -> None:
    """How a text becomes a query, and which one finds nothing."""
    body, config = source("docs_hybrid_v1"), "'english'"
    assert f"WHEN '{match}' THEN {tsquery_sql(config, match, '$2')}" in body
    assert finds_rows_sql("words_query") in body
    made = compiled(search_hybrid(select(docs.c.id), [Words(docs.c.words, "train", match=match)]))
    made = re.sub(r"(:words_1)::\w+", r"\1", made)  # SQLAlchemy says the parameter's type
    query = tsquery_sql(config, match, ":words_1")
    assert query in made
    assert (finds_rows_sql(query) in made) == (match == "web")
