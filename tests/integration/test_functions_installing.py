"""Installing, replacing and dropping SQL functions: what is kept, what is refused, and that nothing is left behind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, Text, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import SqlFunctions, VectorArray, add_functions, database, install_functions, matryoshka
from pgmrl.errors import DefinitionError, MigrationError, NotMigrated
from pgmrl.functions.install import drop_functions
from pgmrl.functions.installed import functions
from pgmrl.model.columns import Matryoshka, add_side_table
from pgmrl.model.shortening import Short
from pgmrl.model.types import NumpyVector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.conftest import Wares
else:
    Wares = Any

QUERY = "'[1,2,3,4,5,6,7,8]'"
ALL = SqlFunctions(filters=("kind", "size >="), related=2, stored=True)


def ask(connection: Connection, statement: str) -> list[Any]:
    """All rows of a statement."""
    return [tuple(row) for row in connection.execute(text(statement))]


@pytest.fixture
def docs(connection: Connection) -> Table:
    """Five rows and two vector columns."""
    docs = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("kind", Text),
        Column("size", Integer),
        Column("e", Matryoshka(8, Short(4))),
        Column("f", Matryoshka(8, Short(4))),
    )
    docs.create(connection)
    vectors = [[1, 2, 3, 4, 5, 6, 7, 8 + n] for n in range(5)]
    rows = [{"id": n, "kind": "ab"[n % 2], "size": n, "e": v, "f": v} for n, v in enumerate(vectors)]
    connection.execute(docs.insert(), rows)
    return docs


def everything(connection: Connection) -> set[tuple[Any, ...]]:
    """Every function, relation, type and comment in the database."""
    return set(
        ask(
            connection,
            "SELECT 'pg_proc', oid::bigint, proname::text, proacl::text, md5(prosrc) FROM pg_proc "
            "UNION ALL SELECT 'pg_class', oid, relname, relacl::text, relkind::text FROM pg_class "
            "UNION ALL SELECT 'pg_type', oid, typname, typacl::text, NULL FROM pg_type "
            "UNION ALL SELECT 'pg_description', objoid, description, objsubid::text, NULL FROM pg_description "
            "UNION ALL SELECT 'pg_rewrite', oid, rulename, ev_class::text, NULL FROM pg_rewrite",
        )
    )


# -- nothing is left behind ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [SqlFunctions(), ALL, SqlFunctions(name="other", schema="bi", group_by="kind")])
def test_dropping_leaves_nothing_behind(connection: Connection, docs: Table, declared: SqlFunctions) -> None:
    """No function, view, index, type or comment; and dropping again finds nothing."""
    connection.exec_driver_sql("CREATE SCHEMA bi")
    before = everything(connection)
    install_functions(connection, docs.c.e, declared)
    install_functions(connection, docs.c.e, declared)  # again changes nothing
    assert everything(connection) > before
    assert drop_functions(connection, docs.c.e) == ["bi.other" if declared.schema else "public.docs"]
    assert everything(connection) == before
    assert drop_functions(connection, docs.c.e) == []
    assert functions(connection) == []


def test_long_names(connection: Connection) -> None:
    """Two tables whose names differ only at the end, each with functions of its own that can be dropped."""
    before = everything(connection)
    for end in ("a", "b"):
        docs = Table(
            "t" * 62 + end, MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4)))
        )
        docs.create(connection)
        connection.execute(docs.insert(), {"id": ord(end), "e": [1] * 8})
        searched = install_functions(connection, docs.c.e, SqlFunctions(related=2, stored=True))
        assert len(searched.object_name("search_named")) == 63
        assert ask(connection, f"SELECT id FROM {searched.qualified_name('search')}('[1,2,3,4,5,6,7,8]')") == [
            (ord(end),)
        ]
    for end in ("a", "b"):
        docs = Table(
            "t" * 62 + end, MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4)))
        )
        assert len(drop_functions(connection, docs.c.e)) == 1
        docs.drop(connection)
    assert everything(connection) == before


def test_create_all_and_drop_all(connection: Connection) -> None:
    """Declared with the model, also behind a side table."""

    class Base(DeclarativeBase):
        pass

    class Doc(Base):
        __tablename__ = "docs"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        embedding: Mapped[VectorArray] = matryoshka(8, Short(4))
        other: Mapped[VectorArray] = mapped_column(NumpyVector(8, "vector"))

    add_side_table(Doc.other, Short(4))
    add_functions(Doc.embedding, SqlFunctions(filters=("kind",), related=3, stored=True))
    add_functions(Doc.other, SqlFunctions(name="others", related=3))
    with pytest.raises(DefinitionError, match="already"):
        add_functions(Doc.other)
    before = everything(connection)
    Base.metadata.create_all(connection)
    rows = {"id": 1, "kind": "a", "embedding": [1] * 8, "other": [2] * 8}
    connection.execute(Doc.__table__.insert(), rows)  # type: ignore[attr-defined]
    assert ask(connection, f"SELECT id FROM docs_search({QUERY}, kind => 'a')") == [(1,)]
    assert ask(connection, f"SELECT id FROM others_search({QUERY})") == [(1,)]
    Base.metadata.drop_all(connection)
    assert everything(connection) == before


# -- replacing -----------------------------------------------------------------------------------------------------


def test_a_view_of_the_users_survives_a_reinstall(connection: Connection, docs: Table) -> None:
    """Functions of the same arguments and results are replaced in place."""
    install_functions(connection, docs.c.e, ALL)
    connection.exec_driver_sql(f"CREATE VIEW mine AS SELECT id, distance FROM docs_search({QUERY}, 3, kind => 'a')")
    connection.exec_driver_sql("CREATE VIEW yours AS SELECT * FROM docs_related")
    before = ask(connection, "SELECT * FROM mine")
    install_functions(connection, docs.c.e, SqlFunctions(filters=ALL.filters, related=4, stored=True))
    assert ask(connection, "SELECT * FROM mine") == before
    assert len(ask(connection, "SELECT * FROM yours WHERE id = 1")) == 4


@pytest.mark.parametrize("use", [
    f"CREATE VIEW mine AS SELECT id FROM docs_search({QUERY}, 3, kind => 'a')",
    "CREATE VIEW mine AS SELECT * FROM docs_related",
    "CREATE TABLE mine (hit docs_hit)",
    f"CREATE FUNCTION mine() RETURNS SETOF docs_hit LANGUAGE sql BEGIN ATOMIC SELECT * FROM docs_search({QUERY}); END",
])  # fmt: skip
def test_other_arguments_are_refused_while_something_uses_them(connection: Connection, docs: Table, use: str) -> None:
    """One clear error that names it, and nothing has changed."""
    install_functions(connection, docs.c.e, ALL)
    connection.exec_driver_sql(use)
    before = everything(connection)
    for change in (
        lambda: install_functions(connection, docs.c.e, SqlFunctions(filters=("kind",), related=2, stored=True)),
        lambda: drop_functions(connection, docs.c.e),
    ):
        with pytest.raises(MigrationError, match="mine"):
            change()
        assert everything(connection) == before


def test_other_arguments_replace_the_earlier_ones(connection: Connection, docs: Table) -> None:
    """No overload stays that would make a call ambiguous."""
    for filters in ((), ("kind",), ("size",), ("kind", "size in")):
        install_functions(connection, docs.c.e, SqlFunctions(filters=filters, related=1 if filters else None))
        count = "SELECT proname, count(*) FROM pg_proc WHERE proname LIKE 'docs\\_%' GROUP BY 1 HAVING count(*) > 1"
        assert ask(connection, count) == []
        assert len(ask(connection, f"SELECT id FROM docs_search({QUERY})")) == 5


def test_rights_that_another_declaration_granted_are_taken_back(
    connection: Connection, docs: Table, roles: list[str]
) -> None:
    """From PUBLIC to one role, from that to another one, and back."""
    one, other = roles
    for grant_to, may in (((), roles), ((one,), [one]), ((other,), [other]), ((one, other), roles), ((), roles)):
        install_functions(connection, docs.c.e, SqlFunctions(related=1, stored=True, grant_to=grant_to))
        for role in roles:
            found = ask(
                connection,
                "SELECT proname FROM pg_proc WHERE proname LIKE 'docs\\_%' "
                f"AND has_function_privilege('{role}', oid, 'EXECUTE') <> {str(role in may).lower()}",
            )
            assert found == []
        for view in ("docs_related", "docs_related_stored"):
            allowed = ask(
                connection,
                f"SELECT {', '.join(f'has_table_privilege({one!r}, {view!r}, $$SELECT$$)' for one in roles)}",
            )
            everybody = view == "docs_related" and not grant_to
            assert allowed == [tuple(everybody or role in grant_to for role in roles)]


# -- what is somebody else's ---------------------------------------------------------------------------------------


def test_one_name_for_two_columns_is_refused(connection: Connection, docs: Table) -> None:
    """With the remedy; the first ones stay."""
    install_functions(connection, docs.c.e, ALL)
    before = everything(connection)
    with pytest.raises(MigrationError, match=r"(?s)docs_….*public\.docs\.e.*another name"):
        install_functions(connection, docs.c.f, ALL)
    assert everything(connection) == before
    install_functions(connection, docs.c.f, SqlFunctions(name="docs_f"))
    assert len(functions(connection)) > 8
    assert drop_functions(connection, docs.c.f) == ["public.docs_f"]
    assert everything(connection) == before


@pytest.mark.parametrize("theirs", [
    "CREATE FUNCTION docs_search(text) RETURNS text LANGUAGE sql RETURN $1",
    "CREATE FUNCTION docs_search(halfvec, integer, integer, boolean, text) RETURNS text LANGUAGE sql RETURN $5",
    "CREATE FUNCTION docs_vector(integer) RETURNS halfvec LANGUAGE sql RETURN '[1]'::halfvec",
    "CREATE FUNCTION docs_search_v1(text) RETURNS text LANGUAGE sql RETURN $1",
    "CREATE TABLE docs_hit (id integer)",
    "CREATE DOMAIN docs_hit AS text",
    "CREATE TYPE docs_hit AS ENUM ('a')",
    "CREATE VIEW docs_related AS SELECT 1 AS one",
    "CREATE TABLE docs_related AS SELECT 1 AS one",
    "CREATE MATERIALIZED VIEW docs_related_stored AS SELECT 1 AS one",
    "CREATE VIEW docs_related AS SELECT id, id AS related_id, 1 AS rank, 0.5 AS distance, 0.5 AS similarity FROM docs",
])  # fmt: skip
def test_what_is_there_already_is_not_overwritten(connection: Connection, docs: Table, theirs: str) -> None:
    """One clear error, and nothing has changed."""
    connection.exec_driver_sql(theirs)
    before = everything(connection)
    with pytest.raises(MigrationError, match=r"(?s)docs_.*did not make.*another name"):
        install_functions(connection, docs.c.e, ALL)
    assert everything(connection) == before


def test_what_came_later_is_not_dropped(connection: Connection, docs: Table) -> None:
    """An overload of the user's beside ours stays."""
    install_functions(connection, docs.c.e, ALL)
    connection.exec_driver_sql("CREATE FUNCTION docs_search(text) RETURNS text LANGUAGE sql RETURN $1")
    drop_functions(connection, docs.c.e)
    assert ask(connection, "SELECT docs_search('a'::text)") == [("a",)]


def test_a_schema_that_is_not_there(connection: Connection, docs: Table) -> None:
    """Said, with the remedy."""
    with pytest.raises(MigrationError, match=r"(?s)no schema nowhere.*Create it"):
        install_functions(connection, docs.c.e, SqlFunctions(schema="nowhere"))


@pytest.mark.parametrize(("declared", "what"), [
    (SqlFunctions(filters=("colour",)), "colour"), (SqlFunctions(group_by="colour"), "colour"),
])  # fmt: skip
def test_a_column_that_is_not_there(connection: Connection, docs: Table, declared: SqlFunctions, what: str) -> None:
    """By name."""
    with pytest.raises(DefinitionError, match=what):
        install_functions(connection, docs.c.e, declared)


# -- the catalogue -------------------------------------------------------------------------------------------------


def test_the_catalogue_lists_them(connection: Connection, docs: Table, roles: list[str]) -> None:
    """With arguments, table, filters, and whether the current role may call them."""
    install_functions(connection, docs.c.e, SqlFunctions(filters=("kind", "size >="), grant_to=(roles[0],)))
    found = {one.function_name: one for one in functions(connection)}
    assert sorted(found) == [
        f"docs_{kind}" for kind in ("search", "search_diverse", "search_named", "similar", "vector")
    ]
    one = found["docs_search"]
    assert (one.function_schema, one.table_schema, one.table_name, one.full_column) == ("public", "public", "docs", "e")
    assert (one.short_column, one.filters, one.version, one.callable) == ("e_short_4", ["kind", "size >="], 1, True)
    assert "k integer DEFAULT 10" in one.arguments
    assert "size_min integer DEFAULT NULL" in one.arguments
    assert "docs" in (one.description or "")
    connection.exec_driver_sql(f"SET LOCAL ROLE {roles[1]}")
    assert {one.callable for one in functions(connection)} == {False}
    connection.exec_driver_sql(f"SET LOCAL ROLE {roles[0]}")
    assert {one.callable for one in functions(connection)} == {True}


def test_a_function_that_only_looks_like_ours(connection: Connection, docs: Table, roles: list[str]) -> None:
    """Whoever may create functions cannot break the catalogue, nor have others' views dropped by an administrator."""
    connection.exec_driver_sql(f"GRANT CREATE ON SCHEMA public TO {roles[0]}")
    connection.exec_driver_sql("CREATE VIEW precious AS SELECT 1 AS one")
    connection.exec_driver_sql("CREATE TYPE cherished AS (one integer)")
    connection.exec_driver_sql(
        "CREATE FUNCTION dear() RETURNS text LANGUAGE plpgsql AS E'\\n-- pgmrl\\nBEGIN RETURN 1; END'"
    )
    connection.exec_driver_sql(f"SET LOCAL ROLE {roles[0]}")
    for name in ("docs_hit", "other"):
        connection.exec_driver_sql(f"CREATE TYPE {name} AS (id integer)")
    marker = (
        '{"name": "docs", "schema": "public", "table": "docs", "column": "e", "signature": "x", "version": 0, '
        '"filters": [], "grant_to": [], "keys": [], "types": [], "results": ["docs_hit", "cherished"], '
        '"functions": ["dear"], "workers": ["docs_search_v1"], "views": ["precious"]}'
    )
    for name, said in (("docs_search_v1", marker), ("broken", "{broken}"), ("odd", '{"filters": 3}')):
        connection.exec_driver_sql(
            f"CREATE FUNCTION {name}() RETURNS {'docs_hit' if said == marker else 'other'} LANGUAGE plpgsql AS "
            f"$f$\n-- pgmrl functions {said}\nBEGIN RETURN NULL; END$f$"
        )
    connection.exec_driver_sql("RESET ROLE")
    assert "broken" not in {one.function_name for one in functions(connection)}
    with pytest.raises(MigrationError, match=r"docs_search_v1\(\) belongs to pgmrl_one"):
        install_functions(connection, docs.c.e, SqlFunctions())
    for statement in ("DROP FUNCTION docs_search_v1()", "DROP TYPE docs_hit"):
        connection.exec_driver_sql(statement)
    install_functions(connection, docs.c.e, SqlFunctions())
    assert ask(connection, "SELECT * FROM precious") == [(1,)]
    assert ask(connection, "SELECT dear()") == [("1",)]
    assert ask(connection, "SELECT 'cherished'::regtype::text") == [("cherished",)]


@pytest.fixture
def roles(connection: Connection) -> Iterator[list[str]]:
    """Two ordinary roles, gone with the transaction."""
    names = ["pgmrl_one", "pgmrl_other"]
    for name in names:
        connection.exec_driver_sql(f"CREATE ROLE {name}")
    yield names
    connection.rollback()


# -- pgmrl's schema ------------------------------------------------------------------------------------------------


def test_downgrading_is_refused_while_functions_use_it(engine: Engine) -> None:
    """As the error says, dropping them first helps."""
    docs = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", Matryoshka(8, Short(4))))
    with engine.begin() as connection:
        docs.create(connection)
        install_functions(connection, docs.c.e)
    with engine.begin() as connection, pytest.raises(DBAPIError, match=r"in use by the functions public\.docs_…"):
        database.downgrade(connection)
    with engine.begin() as connection:
        assert database.installed_revision(connection) == database.NEWEST_REVISION
        drop_functions(connection, docs.c.e)
        database.downgrade(connection)
        with pytest.raises(NotMigrated, match="pgmrl upgrade"):
            install_functions(connection, docs.c.e)
        database.upgrade(connection)
        install_functions(connection, docs.c.e)


# -- related rows --------------------------------------------------------------------------------------------------


def test_the_related_view_is_what_similar_says(wares: Wares) -> None:
    """For one row, a few, and many; rows without a vector are not there."""
    with wares.engine.connect() as connection:
        for n in (0, 17, 3999):
            similar = ask(connection, f"SELECT id, rank, distance, similarity FROM passages_similar({n}, 5)")
            view = f"SELECT related_id, rank, distance, similarity FROM passages_related WHERE id = {n} ORDER BY rank"
            assert ask(connection, view) == similar
            assert len(similar) == 5
        assert ask(connection, "SELECT * FROM passages_related WHERE id BETWEEN 4000 AND 4020") == []
        related = "SELECT count(*) FROM passages_related JOIN passages USING (id) WHERE package = 'asyncio'"
        wanted = ask(connection, "SELECT 5 * count(*) FROM passages WHERE package = 'asyncio'")
        assert ask(connection, related) == wanted
        assert wanted[0][0] > 0
        with pytest.raises(DBAPIError, match="has not been populated"):
            ask(connection, "SELECT * FROM passages_related_stored")


def test_the_stored_view_is_the_view_when_refreshed(connection: Connection, docs: Table) -> None:
    """At once, and then concurrently after rows have changed."""
    install_functions(connection, docs.c.e, ALL)
    both = "SELECT * FROM {} ORDER BY id, rank"
    connection.exec_driver_sql("REFRESH MATERIALIZED VIEW docs_related_stored")
    stored = ask(connection, both.format("docs_related_stored"))
    assert stored == ask(connection, both.format("docs_related"))
    assert len(stored) == 10
    connection.exec_driver_sql("DELETE FROM docs WHERE id = 2")
    assert ask(connection, both.format("docs_related_stored")) == stored
    connection.exec_driver_sql("REFRESH MATERIALIZED VIEW CONCURRENTLY docs_related_stored")
    assert ask(connection, both.format("docs_related_stored")) == ask(connection, both.format("docs_related")) != stored
