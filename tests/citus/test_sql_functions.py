"""SQL functions of distributed tables: what they find, which shards they ask, whose rights they have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import errors
from sqlalchemy import Column, Engine, Integer, MetaData, Table, insert
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import pgmrl.alembic  # noqa: F401
from pgmrl import (
    Matryoshka,
    Short,
    SqlFunctions,
    VectorArray,
    add_functions,
    database,
    full_text,
    install_functions,
    matryoshka,
    reflect,
)
from pgmrl.database.shards import on_this_node
from pgmrl.doctor import doctor
from pgmrl.embedders.token_model import load_token_model
from pgmrl.errors import DefinitionError, MigrationError
from pgmrl.functions.install import drop_functions
from pgmrl.functions.installed import drop as drop_functions_named
from pgmrl.functions.installed import functions
from pgmrl.functions.named_queries import add_query, remove_query
from pgmrl.functions.text_models import install_model, remove_model
from pgmrl.online.distributing import distribution_statements
from tests.citus.proof import DIMS, DOCUMENTS, NEEDS_CITUS, QUERIES, ROWS, TENANTS, URL, Document, Package, truth
from tests.conftest import vector_text
from tests.small_model import write_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from psycopg import Connection

pytestmark = NEEDS_CITUS

ARTICLES, AUTHORS = 800, 10
READER = "pgmrl_proof_reader"
SHARDS = 4


class Base(DeclarativeBase):
    """A table with words and groups, of which nobody else changes policies."""


class Article(Base):
    """Distributed by author."""

    __tablename__ = "pgmrl_proof_articles"
    author: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    part: Mapped[int]
    title: Mapped[str]
    words: Mapped[str] = full_text("title", config="english")
    embedding: Mapped[VectorArray] = matryoshka(DIMS, Short(64), distributed="author")


add_functions(Article.embedding, SqlFunctions(filters=("author", "part >="), group_by="part", words="words"))


@pytest.fixture(scope="module")
def installed(citus: Engine) -> Iterator[Engine]:
    """Functions of three tables: of two installed at once, of one declared, and made before it was distributed."""
    with citus.begin() as connection:
        database.upgrade(connection)
    Base.metadata.drop_all(citus)
    try:
        with citus.begin() as connection:
            Base.metadata.create_all(connection)
        with citus.begin() as connection:
            for statement in distribution_statements(connection, None, "pgmrl_proof_articles", "author", SHARDS):
                connection.exec_driver_sql(statement)
        with citus.begin() as connection:
            rows = [
                {"author": n % AUTHORS, "id": n, "part": n % 40, "title": f"word{n % 7} all", "embedding": DOCUMENTS[n]}
                for n in range(ARTICLES)
            ]
            connection.execute(insert(Article), rows)
            declared = SqlFunctions(filters=("id", "part", "part in", "name"))
            install_functions(connection, reflect(connection, "pgmrl_proof_packages.embedding"), declared)
            install_functions(connection, Document.embedding, SqlFunctions(filters=("tenant",)))
        yield citus
    finally:
        with citus.begin() as connection:
            for column in (Package.embedding, Document.embedding):
                drop_functions(connection, column)
        Base.metadata.drop_all(citus)


@pytest.fixture
def asked(installed: Engine) -> Iterator[Connection[Any]]:
    """A client without SQLAlchemy, each of whose statements is a transaction."""
    assert installed is not None
    assert URL is not None
    with psycopg.connect(URL, autocommit=True, prepare_threshold=None) as connection:
        yield connection


def ids(asked: Connection[Any], call: str, *values: Any) -> list[int]:
    """The ids that a call finds, in their order."""
    return [row[0] for row in asked.execute(f"SELECT id FROM {call} ORDER BY rank", values)]


def query(number: int) -> str:
    """One of the queries, as text."""
    return vector_text(QUERIES[number])


def statements_on_shards(asked: Connection[Any], call: str) -> int:
    """How many a call sends."""
    sent: list[str] = []

    def keep(notice: Any) -> None:
        sent.append(str(notice.message_primary))

    asked.execute("SET citus.log_remote_commands = on")
    asked.add_notice_handler(keep)
    asked.execute(f"SELECT id FROM {call}").fetchall()
    asked.remove_notice_handler(keep)
    asked.execute("SET citus.log_remote_commands = off")
    return sum(statement.startswith("issuing") and "public.pgmrl_proof_" in statement for statement in sent)


# -- installing ----------------------------------------------------------------------------------------------------


def test_they_are_on_the_coordinator_alone(installed: Engine) -> None:
    """And in its catalogue, as ordinary ones are."""
    with installed.connect() as connection:
        names = {function.function_name for function in functions(connection)}
        assert {"pgmrl_proof_packages_search", "pgmrl_proof_articles_hybrid"} <= names
        elsewhere = connection.exec_driver_sql(
            "SELECT success, result FROM run_command_on_workers("
            "$$SELECT count(*) FROM pg_proc WHERE proname LIKE 'pgmrl_proof_%%'$$)"
        ).all()
    assert elsewhere
    assert {tuple(row) for row in elsewhere} == {(True, "0")}


def test_autogenerate_leaves_them(installed: Engine) -> None:
    """Declared, made before the table was distributed: nothing to write."""
    with installed.connect() as connection:
        options = {
            "autogenerate_plugins": ["alembic.autogenerate.*", "pgmrl"],
            "include_name": lambda name, kind, _: kind != "table" or name == "pgmrl_proof_articles",
        }
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_what_is_refused(installed: Engine) -> None:
    """A declaration that says nothing of Citus, another column than Citus has, a view over the shards."""
    with installed.connect() as connection:
        for distributed, said in ((False, "an ordinary table"), ("id", "one distributed by id")):
            table = Table(
                "pgmrl_proof_documents",
                MetaData(),
                Column("tenant", Integer, primary_key=True),
                Column("id", Integer, primary_key=True),
                Column("embedding", Matryoshka(DIMS, Short(64), distributed=distributed)),
            )
            with pytest.raises(MigrationError, match=f"expected {said}, got distributed by tenant"):
                install_functions(connection, table.c.embedding)
        with pytest.raises(DefinitionError, match="related=3 is a view that calls a function for each row"):
            install_functions(connection, Package.embedding, SqlFunctions(related=3))


def test_functions_that_were_there_before(installed: Engine) -> None:
    """Of a table of one node: `pgmrl distribute` refuses them; the doctor finds them where Citus was asked directly."""
    table = Table(
        "pgmrl_proof_functions",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(DIMS, Short(64))),
    )
    try:
        with installed.begin() as connection:
            table.create(connection)
            install_functions(connection, table.c.embedding)
        with installed.begin() as connection:
            with pytest.raises(MigrationError, match=r"is searched by the functions public\.pgmrl_proof_functions_…"):
                distribution_statements(connection, None, table.name, "id", SHARDS)
            connection.exec_driver_sql(
                "SELECT create_distributed_table('pgmrl_proof_functions', 'id', shard_count => 4)"
            )
        with installed.begin() as connection:
            searched = reflect(connection, "pgmrl_proof_functions.embedding")
            findings = [finding for finding in doctor(connection, searched) if finding.check == "functions"]
            assert ["distributed by None, now id" in finding.message for finding in findings] == [True]
            install_functions(connection, searched)
            assert [finding for finding in doctor(connection, searched) if finding.check == "functions"] == []
    finally:
        with installed.begin() as connection:
            drop_functions(connection, table.c.embedding)
            table.drop(connection, checkfirst=True)


# -- what they find ------------------------------------------------------------------------------------------------


def recall(asked: Connection[Any], **options: Any) -> float:
    """Of 20 queries for 10 rows."""
    found = 0
    arguments = "".join(f", {name} => {value}" for name, value in options.items())
    for number in range(20):
        rows = ids(asked, f"pgmrl_proof_packages_search(%s, 10{arguments})", query(number))
        assert len(rows) == 10
        found += len(set(rows) & set(truth(QUERIES[number], 10)))
    return found / 200


def test_recall_grows_with_the_shortlist(asked: Connection[Any]) -> None:
    """`ef_search` reaches the shards: without it each would give 40 rows, whatever is asked."""
    low, high, exact = recall(asked, shortlist=40), recall(asked, shortlist=800), recall(asked, exact="true")
    print(f"recall@10: shortlist 40 {low:.3f}, 800 {high:.3f}, exact {exact:.3f}")
    assert high > low
    assert high > 0.9
    assert exact > 0.999
    for exact_or_not in ("shortlist => 800", "exact => true"):
        rows = asked.execute(f"SELECT * FROM pgmrl_proof_packages_search(%s, 800, {exact_or_not})", [query(0)])
        numbers = rows.fetchall()
        assert len(numbers) == 800
        assert [row[3] for row in numbers] == list(range(1, 801))
        assert {tuple(row[4:]) for row in numbers} == {(800, 800)}
        assert [row[1] for row in numbers] == sorted(row[1] for row in numbers)


@pytest.mark.parametrize("function", ["search", "similar", "search_diverse"])
def test_filters(asked: Connection[Any], function: str) -> None:
    """What a filter leaves, all of it: where the shortlist is not full, each shard ranks its own rows exactly."""
    first = "7" if function == "similar" else f"'{query(1)}'"
    call = f"pgmrl_proof_packages_{function}({first}, %s, {{}})"
    own = [n for n in range(ROWS) if n % 100 == 33]
    rows = ids(asked, call.format("part => 33"), 10)
    assert len(set(rows)) == 10
    assert set(rows) <= set(own)
    assert sorted(ids(asked, call.format("part => 33"), 300)) == own
    assert sorted(ids(asked, call.format("part_any => '{33,101}', name_is => 'package 233'"), 300)) == [233]
    assert ids(asked, call.format("part => 101"), 10) == []
    assert ids(asked, call.format("id_is => 33"), 10) == [33]
    if function == "search":
        assert len(set(rows) & set(truth(QUERIES[1], 10, own))) >= 8


def test_similar(asked: Connection[Any]) -> None:
    """Without the row itself; a row that is not there, and one without its key, are errors."""
    for number in range(5):
        own = [n for n in range(ROWS) if n != number]
        rows = ids(asked, "pgmrl_proof_packages_similar(%s, 10, shortlist => 400)", number)
        assert number not in rows
        assert len(set(rows) & set(truth(DOCUMENTS[number], 10, own))) >= 8
    with pytest.raises(errors.NoDataFound, match="there is no row of pgmrl_proof_packages with the key 99999"):
        ids(asked, "pgmrl_proof_packages_similar(99999)")
    with pytest.raises(errors.NullValueNotAllowed, match="id is NULL"):
        ids(asked, "pgmrl_proof_packages_similar(NULL)")


def test_a_named_query(installed: Engine, asked: Connection[Any]) -> None:
    """Is its vector."""
    with installed.begin() as connection:
        assert add_query(connection, Package.embedding, "second", QUERIES[1])
    try:
        named = ids(asked, "pgmrl_proof_packages_search_named('second', 9, part => 3)")
        assert named == ids(asked, "pgmrl_proof_packages_search(%s, 9, part => 3)", query(1))
    finally:
        with installed.begin() as connection:
            assert remove_query(connection, Package.embedding, "second")


def test_words(installed: Engine, asked: Connection[Any], tmp_path: Path) -> None:
    """That a model in the coordinator's database embeds."""
    model = load_token_model(str(write_model(tmp_path / "model", dims=DIMS)))
    with installed.begin() as connection:
        install_model(connection, "pgmrl_proof", model)
        install_functions(connection, Article.embedding, SqlFunctions(name="pgmrl_proof_words", model="pgmrl_proof"))
    try:
        rows = ids(asked, "pgmrl_proof_words_search_text('a game with trains', 10, exact => true)")
        embedded = "pgmrl.embed_text('pgmrl_proof', 'a game with trains')::halfvec"
        assert rows == ids(asked, f"pgmrl_proof_words_search({embedded}, 10, exact => true)")
        assert len(rows) == 10
        assert len(ids(asked, "pgmrl_proof_words_search_text('a game with trains', 10)")) == 10
    finally:
        with installed.begin() as connection:
            drop_functions_named(connection, "public", "pgmrl_proof_words")
            assert remove_model(connection, "pgmrl_proof")


@pytest.mark.parametrize("call", [
    "pgmrl_proof_articles_search_groups(%s, 5, 2, shortlist => 800{})",
    "pgmrl_proof_articles_search_groups(%s, 5, 2, part_min => 37{})",
    "pgmrl_proof_articles_hybrid(%s, 'word3 all', 20, shortlist => 200{})",
    "pgmrl_proof_articles_hybrid(%s, 'word3', 20, fusion => 'weighted', author_is => 4{})",
    "pgmrl_proof_articles_search_diverse(%s, 5, relevance => 1, shortlist => 800{})",
])  # fmt: skip
def test_the_other_functions(asked: Connection[Any], call: str) -> None:
    """Most of what their exact search gives."""
    made, exact = (ids(asked, call.format(given), query(2)) for given in ("", ", exact => true"))
    assert len(made) == len(exact) >= 5
    assert len(set(made) & set(exact)) >= 0.6 * len(exact)


# -- where they look -----------------------------------------------------------------------------------------------


def test_a_value_of_the_distribution_column_goes_to_one_shard(asked: Connection[Any]) -> None:
    """As one statement; without it each shard is asked once, and a second time where a filter leaves too few."""
    found = 0
    for number in range(TENANTS):
        own = [n for n in range(ROWS) if n % TENANTS == number]
        rows = ids(asked, "pgmrl_proof_documents_search(%s, 10, tenant_is => %s::int)", query(number), number)
        found += len(set(rows) & set(truth(QUERIES[number], 10, own)))
    assert found >= 180
    for call, count in (
        (f"pgmrl_proof_documents_search('{query(0)}', 10, tenant_is => 3)", 1),
        (f"pgmrl_proof_articles_search('{query(0)}', 10, shortlist => 20, author_is => 3, part_min => 3)", 1),
        (f"pgmrl_proof_documents_search('{query(0)}', 10)", SHARDS),
        (f"pgmrl_proof_packages_search('{query(0)}', 10, exact => true)", SHARDS),
        (f"pgmrl_proof_packages_search('{query(0)}', 10, part => 5, shortlist => 200)", SHARDS * 2),
        (
            f"pgmrl_proof_packages_search('{query(0)}', 10, part_any => '{{1,2,3,4,5,6,7,8,9}}', shortlist => 20)",
            SHARDS,
        ),
    ):
        assert statements_on_shards(asked, call) == count, call


def test_prepared_statements(installed: Engine) -> None:
    """Every argument a parameter, prepared by the client or not, more often than the server makes custom plans."""
    assert installed is not None
    assert URL is not None
    statement = "SELECT id FROM pgmrl_proof_packages_search(%s::halfvec, %s, %s, %s, part => %s) ORDER BY rank"
    for threshold in (None, 0):
        with psycopg.connect(URL, autocommit=True, prepare_threshold=threshold) as connection:
            for number in range(8):
                own = [n for n in range(ROWS) if n % 100 == number]
                rows = connection.execute(statement, [query(number), 7, None, True, number]).fetchall()
                assert [row[0] for row in rows] == truth(QUERIES[number], 7, own)
                rows = connection.execute(statement, [query(number), number + 1, 100, False, None]).fetchall()
                assert len(rows) == number + 1


def test_joins(asked: Connection[Any]) -> None:
    """To the table over all shards, and of a subquery; where Citus would send all to one shard, an error."""
    call = "pgmrl_proof_packages_similar(7, 5)"
    names = asked.execute(f"SELECT p.name FROM {call} AS s JOIN pgmrl_proof_packages AS p USING (id) ORDER BY s.rank")
    assert [row[0] for row in names] == [f"package {number}" for number in ids(asked, call)]
    each = asked.execute(
        "SELECT p.id, s.id FROM (SELECT id FROM pgmrl_proof_packages ORDER BY id LIMIT 3) AS p "
        "CROSS JOIN LATERAL pgmrl_proof_packages_similar(p.id, 2) AS s"
    ).fetchall()
    assert sorted(row[0] for row in each) == [0, 0, 1, 1, 2, 2]
    with pytest.raises(errors.UndefinedFunction, match="pgmrl_proof_packages_search"):
        ids(asked, "pgmrl_proof_packages_search((SELECT embedding FROM pgmrl_proof_packages WHERE id = 7), 5)")


# -- whose rights --------------------------------------------------------------------------------------------------


def test_a_hostile_search_path(installed: Engine, asked: Connection[Any]) -> None:
    """Operators, functions and tables in front of the server's own: none is run."""
    calls = [
        f"pgmrl_proof_articles_search('{query(0)}', 5, part_min => 20)",
        f"pgmrl_proof_articles_search('{query(0)}', 5, exact => true, author_is => 3)",
        "pgmrl_proof_articles_similar(3, 13, 5)",
        f"pgmrl_proof_articles_search_groups('{query(0)}', 5)",
        f"pgmrl_proof_articles_search_diverse('{query(0)}', 5)",
        f"pgmrl_proof_articles_hybrid('{query(0)}', 'word3', 5)",
    ]
    before = [ids(asked, f"public.{call}") for call in calls]
    raises = "LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'hostile'; END$$"
    try:
        with installed.begin() as connection, on_this_node(connection):
            connection.exec_driver_sql("CREATE SCHEMA pgmrl_proof_decoy")
            for operator, type_, result in (
                ("<=>", "public.halfvec", "float8"),
                ("=", "integer", "boolean"),
                (">=", "integer", "boolean"),
                ("||", "text", "text"),
                ("+", "float8", "float8"),
            ):
                function = f"pgmrl_proof_decoy.f_{result}"
                connection.exec_driver_sql(
                    f"CREATE OR REPLACE FUNCTION {function}({type_}, {type_}) RETURNS {result} {raises}"
                )
                connection.exec_driver_sql(
                    f"CREATE OPERATOR pgmrl_proof_decoy.{operator} (LEFTARG = {type_}, RIGHTARG = {type_}, "
                    f"FUNCTION = {function})"
                )
            for function, result in (
                ("set_config(text, text, boolean)", "text"),
                ("subvector(public.halfvec, integer, integer)", "public.halfvec"),
                ("l2_normalize(public.halfvec)", "public.halfvec"),
            ):
                connection.exec_driver_sql(f"CREATE FUNCTION pgmrl_proof_decoy.{function} RETURNS {result} {raises}")
            for table in ("pgmrl_proof_articles", "shortlist", "ranked", "settings"):
                connection.exec_driver_sql(f"CREATE TABLE pgmrl_proof_decoy.{table} (id integer)")
        asked.execute("SET search_path = pgmrl_proof_decoy, pg_catalog, public")
        with pytest.raises(psycopg.Error, match="hostile"):  # they would be run
            asked.execute("SELECT 1::integer = 1::integer")
        assert [asked.execute(f"SELECT id FROM public.{call}").fetchall() for call in calls] == [
            [(number,) for number in numbers] for numbers in before
        ]
    finally:
        with installed.begin() as connection, on_this_node(connection):
            connection.exec_driver_sql("DROP SCHEMA IF EXISTS pgmrl_proof_decoy CASCADE")


def test_row_level_security(installed: Engine, asked: Connection[Any]) -> None:
    """The nearest rows are those of the caller's rows, and as many as are asked for; without SELECT there are none."""
    call = f"pgmrl_proof_articles_search('{query(0)}', 10)"
    try:
        with installed.begin() as connection:
            connection.exec_driver_sql(f"CREATE ROLE {READER} LOGIN")
        with installed.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE pgmrl_proof_articles ENABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql(
                f"CREATE POLICY own ON pgmrl_proof_articles FOR SELECT TO {READER} USING (part < 4)"
            )
        asked.execute(f"SET ROLE {READER}")
        with pytest.raises(errors.InsufficientPrivilege):
            ids(asked, call)
        with installed.begin() as connection:
            connection.exec_driver_sql(f"GRANT SELECT ON pgmrl_proof_articles TO {READER}")
        own = [n for n in range(ARTICLES) if n % 40 < 4]
        for given in ("", ", part_min => 1", ", exact => true"):
            rows = ids(asked, call.replace("10)", f"10{given})"))
            mine = [n for n in own if not given.startswith(", part") or n % 40 >= 1]
            assert len(rows) == 10
            assert set(rows) <= set(mine)
            assert len(set(rows) & set(truth(QUERIES[0], 10, mine))) >= 8
        assert ids(asked, call.replace("10)", "10, part_min => 4)")) == []
    finally:
        asked.execute("RESET ROLE")
        with installed.begin() as connection:
            connection.exec_driver_sql("DROP POLICY IF EXISTS own ON pgmrl_proof_articles")
            connection.exec_driver_sql("ALTER TABLE pgmrl_proof_articles DISABLE ROW LEVEL SECURITY")
            connection.exec_driver_sql(f"REVOKE ALL ON pgmrl_proof_articles FROM {READER}")
        with installed.begin() as connection:  # Citus changes roles in transactions of their own
            connection.exec_driver_sql(f"DROP ROLE IF EXISTS {READER}")
