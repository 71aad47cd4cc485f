"""A column declared as distributed, on one server: its statement gives the rows of the ordinary one.

What only Citus can show is in tests/citus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import (
    Column,
    Connection,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    Table,
    Text,
    bindparam,
    event,
    select,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, joinedload, mapped_column, relationship

from pgmrl import (
    Nearest,
    Short,
    add_short,
    assert_index_used,
    check_schema,
    evaluate,
    explain,
    matryoshka,
    more_like_this,
    search_hybrid,
)
from pgmrl.doctor import doctor
from pgmrl.errors import DefinitionError, MeasureError, SearchError
from pgmrl.evaluation import Judged, Query
from pgmrl.explanation import plan_text
from pgmrl.measure import measure_recall
from pgmrl.model.columns import Matryoshka
from pgmrl.model.embed import Embed
from pgmrl.model.rotation import Rotation
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.compile_sql import compile_sql
from pgmrl.searching.diverse import search_diverse
from pgmrl.searching.funnel import search_funnel
from pgmrl.searching.groups import search_groups
from pgmrl.searching.plans import explained
from pgmrl.searching.search import search
from pgmrl.searching.search_many import search_many
from pgmrl.tune import tune
from tests.integration.test_more_like_this import vectors

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.integration.conftest import Shop
else:
    Shop = Any
    Callable = tuple


class Base(DeclarativeBase):
    """The shop's tables once more."""


class Maker(Base):
    """One for many packages."""

    __tablename__ = "makers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Package(Base):
    """The shop's packages, as if Citus distributed them."""

    __tablename__ = "packages"
    id: Mapped[int] = mapped_column(primary_key=True)
    maker_id: Mapped[int] = mapped_column(ForeignKey("makers.id"))
    part: Mapped[int]
    embedding: Mapped[VectorArray | None] = matryoshka(256, Short(64), distributed=True)
    maker: Mapped[Maker] = relationship()


SHAPES: dict[str, Callable[[Any, Any, Any], Any]] = {
    "entity": lambda p, q, _: search(select(p), p.embedding, q),
    "columns": lambda p, q, _: search(select(p.id, p.part.label("p")), p.embedding, q, k=20, shortlist=200, label="d"),
    "similarity": lambda p, q, _: search(select(p.id), p.embedding, q, similarity="cosine"),
    "counts": lambda p, q, _: search(select(p.id).where(p.id < 7), p.embedding, q, counts=True),
    "filter": lambda p, q, _: search(select(p).where(p.part == 3), p.embedding, q),
    "few": lambda p, q, _: search(select(p).where(p.id.in_([5, 9, 700])), p.embedding, q),
    "incomplete": lambda p, q, _: search(select(p).where(p.part < 50), p.embedding, q, complete=False),
    "offset": lambda p, q, _: search(select(p), p.embedding, q, offset=10, shortlist=200),
    "offset of a filter": lambda p, q, _: search(
        select(p.id).where(p.id.between(40, 70)), p.embedding, q, offset=20, shortlist=60
    ),
    "after": lambda p, q, _: search(select(p), p.embedding, q, after=(0.3, 17)),
    "after of a filter": lambda p, q, _: search(select(p.id).where(p.part == 1), p.embedding, q, after=(0.9, 1)),
    "threshold": lambda p, q, _: search(select(p), p.embedding, q, max_distance=0.6),
    "exact": lambda p, q, _: search(select(p).where(p.part != 4), p.embedding, q, exact=True),
    "exact page": lambda p, q, _: search(select(p.id), p.embedding, q, exact=True, after=(0.3, 17)),
    "exact counts": lambda p, q, _: search(select(p.id), p.embedding, q, exact=True, counts=True),
    "join": lambda p, q, m: search(select(p, m).join(m).where(m.id < 9), p.embedding, q),
    "option": lambda p, q, _: search(select(p).options(joinedload(p.maker)), p.embedding, q),
    "vector": lambda p, q, _: search(select(p.id, p.embedding), p.embedding, q),
    "subquery": lambda p, q, _: search(
        select(p.id).where(p.part == select(p.part).where(p.id == 5).scalar_subquery()), p.embedding, q
    ),
    "groups": lambda p, q, _: search_groups(select(p), p.embedding, q, p.maker_id, k=5, per_group=2),
    "groups of a filter": lambda p, q, _: search_groups(
        select(p.id).where(p.part < 3), p.embedding, q, p.maker_id, k=5, per_group=2
    ),
    "exact groups": lambda p, q, _: search_groups(select(p.id), p.embedding, q, p.maker_id, k=5, exact=True),
    "diverse": lambda p, q, _: search_diverse(select(p), p.embedding, q, k=5),
    "diverse of a filter": lambda p, q, _: search_diverse(select(p).where(p.id < 30), p.embedding, q, k=5),
    "exact diverse": lambda p, q, _: search_diverse(select(p), p.embedding, q, k=5, exact=True),
    "funnel": lambda p, q, _: search_funnel(select(p), p.embedding, q, [(128, 50)], shortlist=200),
    "funnel of a filter": lambda p, q, _: search_funnel(
        select(p).where(p.id < 60), p.embedding, q, [(128, 50)], shortlist=100
    ),
    "examples": lambda p, _q, _: search(select(p), p.embedding, more_like_this(p.embedding, [5, 9])),
    "expression": lambda p, _q, _: search(
        select(p), p.embedding, select(p.embedding).where(p.id == 11).scalar_subquery()
    ),
    "hybrid": lambda p, q, _: search_hybrid(
        select(p).where(p.part < 70), [Nearest(p.embedding, q), Nearest(p.embedding, q[::-1].copy())]
    ),
    "one shard": lambda p, q, _: search(select(p).where(p.id == 17), p.embedding, q),
    "many": lambda p, q, _: search_many(select(p), p.embedding, np.stack([q, q[::-1]])),
    "many of a filter": lambda p, q, _: search_many(
        select(p.id, p.part).where(p.part < 30), p.embedding, np.stack([q, q[::-1], q]), k=3, label="far"
    ),
    "many of few": lambda p, q, _: search_many(select(p).where(p.id < 30), p.embedding, np.stack([q, q[::-1]])),
    "many exact": lambda p, q, _: search_many(select(p), p.embedding, np.stack([q, q[::-1]]), exact=True),
    "many of a join": lambda p, q, m: search_many(
        select(p, m).join(m).where(m.id < 9), p.embedding, np.stack([q, q[::-1]]), query_label="number"
    ),
    "many of one shard": lambda p, q, _: search_many(
        select(p.id).where(p.part < 30, p.id == 17), p.embedding, np.stack([q, q])
    ),
}


def plain(rows: Any) -> list[list[Any]]:
    """Rows with objects by their key, vectors as lists and distances without the last bit."""
    return [[_plain(value) for value in row] for row in rows]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return pytest.approx(value, abs=1e-9)
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, DeclarativeBase):
        return type(value).__name__, getattr(value, "id", None), getattr(value, "name", None)
    return value


@pytest.mark.parametrize("name", SHAPES)
def test_the_rows_of_the_ordinary_statement(shop: Shop, name: str) -> None:
    """Of every shape, for two queries of one shape each."""
    for query in shop.queries[:2]:
        with Session(shop.engine) as session:
            ordinary = session.execute(SHAPES[name](shop.package, query, shop.maker)).all()
            distributed = session.execute(SHAPES[name](Package, query, Maker)).all()
        assert plain(distributed) == plain(ordinary)
        assert ordinary
        assert ordinary[0]._fields == distributed[0]._fields


def test_a_parameter_of_the_callers(shop: Shop) -> None:
    """Built once, executed with the vector."""
    with Session(shop.engine) as session:
        built = search(select(Package.id), Package.embedding, bindparam("mine"))
        ordinary = search(select(shop.package.id), shop.package.embedding, shop.queries[0])
        assert plain(session.execute(built, {"mine": shop.queries[0]})) == plain(session.execute(ordinary))


def test_an_alias(shop: Shop) -> None:
    """It is not the table's name, so its results are joined."""
    other = aliased(Package)
    with Session(shop.engine) as session:
        rows = session.execute(search(select(other.id), other.embedding, shop.queries[0])).all()
        ordinary = search(select(shop.package.id), shop.package.embedding, shop.queries[0])
        assert plain(rows) == plain(session.execute(ordinary))


@pytest.mark.parametrize("kind", ["subquery", "cte"])
def test_objects_inside_another_statement(shop: Shop, kind: str) -> None:
    """There an object is all of its columns, the vector too; built, of a known shape, and from a buffer filled anew."""
    for query in shop.queries[:3]:
        buffer = query.copy()
        results = [search(select(package), package.embedding, buffer, k=5) for package in (shop.package, Package)]
        buffer[:] = 1
        with Session(shop.engine) as session:
            sources = [getattr(result, kind)() for result in results]
            ordinary, distributed = (
                session.execute(select(source.c.part, source.c.embedding).order_by(source.c.distance)).all()
                for source in sources
            )
            assert plain(distributed) == plain(ordinary)
            objects = session.scalars(select(aliased(Package, sources[1])).order_by(sources[1].c.distance))
            assert [package.part for package in objects] == [row.part for row in ordinary]
    columns = search(select(Package.id), Package.embedding, shop.queries[0])
    assert "pgmrl_results" not in text_of(select(getattr(columns, kind)()))  # which is one round also there


def test_rows_are_locked(shop: Shop) -> None:
    """Those of the table: FOR UPDATE would pass over a CTE of its name without a word."""
    choices: list[dict[str, Any]] = [{"of": Package}, {}]
    for _ in range(2):
        for options in choices:
            locking = search(select(Package.id), Package.embedding, shop.queries[0], k=3).with_for_update(**options)
            with Session(shop.engine) as session, Session(shop.engine) as other:
                numbers = session.scalars(locking).all()
                free = select(Package.id).where(Package.id.in_(numbers)).with_for_update(skip_locked=True)
                assert len(numbers) == 3
                assert other.scalars(free).all() == []


@pytest.mark.parametrize("names", [("id", "Na me", "distance"), ("id", "na:me", "x"), ("key_1", "na%me", "Distance")])
@pytest.mark.parametrize("name", ["docs", 'Do"c%s', "do:cs"])
def test_names_of_every_kind(connection: Connection, names: tuple[str, str, str], name: str) -> None:
    """Columns that are called like the statement's own, and what has to be quoted; plain and filtered."""

    def table(*, distributed: bool) -> Table:
        key, text, number = names
        columns: list[Column[Any]] = [Column(key, Integer, primary_key=True), Column(text, Text), Column(number, Float)]
        return Table(name, MetaData(), *columns, Column("e", Matryoshka(8, Short(4), distributed=distributed)))

    own, ordinary = table(distributed=True), table(distributed=False)
    ordinary.create(connection)
    rows = [{names[0]: n, names[1]: f"row {n}", names[2]: n / 2, "e": row} for n, row in enumerate(vectors()[:50])]
    connection.execute(ordinary.insert(), rows)
    for condition in (lambda _: true(), lambda t: t.c[names[2]] < 9, lambda t: t.c[names[1]].like("row 1%")):
        results = [
            connection.execute(
                search(select(*(t.c[column] for column in names)).where(condition(t)), t.c.e, vectors()[3], label="d")
            ).all()
            for t in (ordinary, own)
        ]
        assert plain(results[1]) == plain(results[0])
        assert results[0]


# -- the statement ------------------------------------------------------------------------------------------------


def text_of(statement: Any) -> str:
    """Its SQL, on one line."""
    return " ".join(compile_sql(statement)[0].split())


def test_one_round_without_a_filter(shop: Shop) -> None:
    """The table is read once, each shard is asked once, and the columns come along."""
    sql = text_of(search(select(Package), Package.embedding, shop.queries[0]))
    assert sql.startswith("WITH packages AS (SELECT packages.id AS key_1, ")
    assert sql.count(" FROM packages") == 2  # the second is the CTE
    assert "MATERIALIZED" not in sql
    assert "full_vector" not in sql
    assert "subvector" not in sql  # the client shortens


def test_nothing_but_constants_limits_what_goes_to_the_shards(shop: Shop) -> None:
    """Citus sends a LIMIT to the shards only where it is a constant, and would have them send every row."""
    for name, shape in SHAPES.items():
        if "one shard" not in name:
            assert "LIMIT (" not in text_of(shape(Package, shop.queries[0], Maker)), name


def test_settings_stand_where_the_shards_evaluate_them(shop: Shop) -> None:
    """A subquery without FROM goes to the shards only where its SELECT is immutable."""
    for shape in SHAPES.values():
        assert "(SELECT pg_catalog.set_config" not in text_of(shape(Package, shop.queries[0], Maker))


def test_a_scan_without_a_filter_goes_on_past_deleted_rows(shop: Shop) -> None:
    """Where nothing stands behind it; under a filter the exact fallback does."""
    limit = "hnsw.max_scan_tuples"
    assert limit in text_of(search(select(Package), Package.embedding, shop.queries[0]))
    assert limit not in text_of(search(select(Package).where(Package.part == 1), Package.embedding, shop.queries[0]))


def test_an_exact_search_never_takes_an_index_on_the_full_vector(connection: Connection) -> None:
    """Whose order would be approximate."""
    table = table_of(connection)
    connection.exec_driver_sql("CREATE INDEX ON docs USING hnsw (e halfvec_cosine_ops)")
    connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    text, params = compile_sql(search(select(table.c.place, table.c.number), table.c.e, vectors()[0], exact=True))
    plan: Any = connection.exec_driver_sql(f"EXPLAIN {text}", params).scalars().all()
    assert "Index Scan using docs_e_idx" not in "\n".join(plan)


@pytest.mark.parametrize("name", SHAPES)
def test_explain_has_literals(shop: Shop, name: str) -> None:
    """Citus sends it to the shards without parameters; the plan is the one of the statement that is executed."""
    sent: list[Any] = []
    with Session(shop.engine) as session:
        connection = session.connection()
        event.listen(connection, "before_cursor_execute", lambda _c, _k, sql, values, *_: sent.append((sql, values)))
        assert explained(connection, SHAPES[name](Package, shop.queries[0], Maker))["Plan"]
    assert "EXPLAIN" in sent[-1][0]
    assert not sent[-1][1]


def test_explain_with_a_parameter_of_the_callers(shop: Shop) -> None:
    """Its value is put in."""
    statement = search(select(Package.id), Package.embedding, bindparam("mine"))
    with shop.engine.connect() as connection:
        assert explained(connection, statement, "", {"mine": shop.queries[0]})["Plan"]


def test_the_plan_of_one_server(connection: Connection) -> None:
    """It has no rounds to explain; whether the index serves can be asserted all the same."""
    docs = table_of(connection)
    statement = search(select(docs.c.number), docs.c.e, vectors()[0])
    with pytest.raises(SearchError, match="expected a table that Citus distributes, as it is declared"):
        explain(connection, statement)
    assert "Limit" in plan_text(connection, statement)
    assert_index_used(connection, statement, ignore_cost=True)
    rare = search(select(docs.c.number).where(docs.c.number == 5), docs.c.e, vectors()[0])
    with pytest.raises(AssertionError, match="the distances are sorted"):
        assert_index_used(connection, rare)


def test_measuring_on_one_server(shop: Shop) -> None:
    """Recall and judgements are of the form for shards, through the index, and what it loses is what is compared."""
    with shop.engine.connect() as connection:
        measured = measure_recall(connection, Package.embedding, queries=20, shortlist=20)
        ordinary = measure_recall(connection, shop.package.embedding, queries=20, shortlist=20)
        assert (measured.index, measured.truncation) == (ordinary.index, ordinary.truncation)
        assert 0 < measured.recall.mean < 1
        filtered = measure_recall(connection, Package.embedding, select(Package.id).where(Package.part < 5), queries=9)
        assert filtered.filter == "packages.part < 5"
        judged = Judged([Query("1", None, shop.queries[0])], {"1": {"17": 1}})
        systems = {system.name for system in evaluate(connection, Package.embedding, judged).systems}
    assert "two stages" in systems


def test_tuning_is_for_one_server(shop: Shop) -> None:
    """Its passes tell rows by their places, which are those of a shard."""
    repeatable = shop.engine.execution_options(isolation_level="REPEATABLE READ")
    with repeatable.connect() as connection, pytest.raises(MeasureError, match="got a distributed one"):
        tune(connection, Package.embedding)


def test_the_doctor_and_check_schema_without_citus(connection: Connection) -> None:
    """On one server, as for development, the declaration changes the statement alone."""
    docs = table_of(connection)
    assert check_schema(connection, docs.c.e) is not None
    checks = {finding.check for finding in doctor(connection, docs.c.e)}
    assert not checks & {"plan", "shards-differ", "nodes-differ", "distribution-declared"}


# -- tenants ------------------------------------------------------------------------------------------------------


def table_of(connection: Connection, distributed: Any = "place", **options: Any) -> Table:
    """Sixty rows whose key begins with a tenant."""
    table = Table(
        "docs",
        MetaData(),
        Column("place", Integer, primary_key=True),
        Column("number", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4), distributed=distributed, **options)),
    )
    table.create(connection)
    own = [{"place": n % 3, "number": n, "e": vector} for n, vector in enumerate(vectors()[:60])]
    connection.execute(table.insert(), own)
    return table


def test_a_tenants_search_stays_in_its_shard(connection: Connection) -> None:
    """Each part that reads the table has the condition on the distribution column; also under another filter."""
    docs = table_of(connection)
    statement = select(docs.c.number).where(docs.c.place == 2, docs.c.number > 5)
    result = search(statement, docs.c.e, vectors()[3], k=7)
    sql = text_of(result)
    parts = sql.count("FROM docs")
    assert parts >= 3
    assert sql.count("docs.place = %(") >= parts
    expected = search(statement, docs.c.e, vectors()[3], k=7, exact=True)
    assert plain(connection.execute(result)) == plain(connection.execute(expected))
    many = search_many(statement, docs.c.e, vectors()[:2], k=7)
    assert len(connection.execute(many).all()) == 14


def test_many_queries_over_shards(connection: Connection) -> None:
    """Nothing is lateral; a condition that only looks like one on the distribution column asks all shards."""
    docs = table_of(connection)
    for condition in (docs.c.number > 2, docs.c.place > 1, docs.c.place != docs.c.number):
        statement = select(docs.c.number).where(condition)
        many = search_many(statement, docs.c.e, vectors()[:2], k=4)
        assert "LATERAL" not in text_of(many)
        single = [
            [(number, query, distance) for number, distance in connection.execute(search(statement, docs.c.e, v, k=4))]
            for query, v in enumerate(vectors()[:2])
        ]
        assert plain(connection.execute(many)) == plain(row for rows in single for row in rows)
    one_shard = search_many(select(docs.c.number).where(docs.c.place == 2), docs.c.e, vectors()[:2])
    assert "LATERAL" in text_of(one_shard)


def test_an_exact_search_over_all_shards_has_a_bound(connection: Connection) -> None:
    """Each shard sends as many rows; one shard has no bound."""
    docs = table_of(connection)
    with pytest.raises(SearchError, match=r"exact search for 100,001 rows over all shards"):
        search(select(docs.c.number), docs.c.e, vectors()[0], k=100_001, exact=True)
    own = select(docs.c.number).where(docs.c.place == 1)
    assert len(connection.execute(search(own, docs.c.e, vectors()[0], k=100_001, exact=True)).all()) == 20


# -- the declaration ----------------------------------------------------------------------------------------------


def test_the_distribution_column_is_in_the_key(connection: Connection) -> None:
    """Citus has no unique key without it; and of a key of two columns one has to be named."""
    docs = table_of(connection, distributed="e")
    with pytest.raises(DefinitionError, match=r"expected the distribution column 'e' in the primary key"):
        search(select(docs.c.number), docs.c.e, vectors()[0])
    connection.exec_driver_sql("DROP TABLE docs")
    docs = table_of(connection, distributed=True)
    with pytest.raises(DefinitionError, match=r"expected distributed='…', the name of the distribution column"):
        search(select(docs.c.number), docs.c.e, vectors()[0])


@pytest.mark.parametrize("value", [3, "", ["place"]])
def test_what_is_no_distribution_column(value: Any) -> None:
    """It is refused where it is declared."""
    with pytest.raises(DefinitionError, match=r"expected the name of the distribution column"):
        Matryoshka(8, Short(4), distributed=value)


def test_texts_are_not_queued_by_triggers() -> None:
    """Citus has none on distributed tables."""
    with pytest.raises(DefinitionError, match=r"leave embed or distributed out"):
        Matryoshka(8, Short(4), embed=Embed("{title}", by="static"), distributed=True)


def test_copies_and_the_repr_keep_it() -> None:
    """As of a column of a mixin."""
    type_ = Matryoshka(8, Short(4), distributed="place")
    assert "distributed='place'" in repr(type_)
    assert repr(type_.copy()) == repr(type_)
    assert "distributed" not in repr(Matryoshka(8, Short(4)))


def test_axes_that_only_the_server_has(small_rotation: Rotation) -> None:
    """The shards would not set the scan's parameters beside a function that reads a table."""
    table = Table(
        "docs",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("e", Matryoshka(8, Short(4, by=Rotation(small_rotation.id)), distributed=True)),
    )
    with pytest.raises(SearchError, match=r"by=Rotation\.load\(path\)"):
        search(select(table.c.id), table.c.e, vectors()[0]).compile()
    search(select(table.c.id), table.c.e, vectors()[0], exact=True)


def test_a_column_that_exists() -> None:
    """`add_short` says it too."""
    table = Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("e", VECTOR(8)))
    add_short(table.c.e, Short(4), distributed="id")
    assert text_of(search(select(table.c.id), table.c.e, vectors()[0])).startswith("WITH docs AS (SELECT docs.id AS ")
