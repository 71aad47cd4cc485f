"""Learning a rotation from a table: what is read, what is promised, and that the promise is kept."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import HALFVEC, VECTOR
from sqlalchemy import Column, Engine, Integer, MetaData, Table, func, select, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from pgmrl import database
from pgmrl.database.reflection import reflect
from pgmrl.errors import NotMigrated, RotationError
from pgmrl.ingestion.ingest import ingest
from pgmrl.measure import recall_at_k
from pgmrl.measure.fit_rotation import Fit, fit_rotation
from pgmrl.model.columns import Matryoshka, add_short, add_side_table, matryoshka
from pgmrl.model.shortening import Definition, Rotation, Short
from pgmrl.model.vectors import VectorArray
from pgmrl.searching.search import search

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection

    from tests.corpus import Corpus

ROWS = 5_000
EVERY = 51  # one row of so many is not loaded and serves as a query


def split(documents: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """5,000 rows to load, and 100 of the same kind to ask for."""
    some = documents[: ROWS + ROWS // (EVERY - 1)]
    asked = np.arange(len(some)) % EVERY == 0
    return some[~asked], some[asked]


def packages(short: Short | None = None, **options: Any) -> Table:
    """A table of packages whose rotation has not been learned, unless one is given."""
    kind = Matryoshka(256, short or Short(64, by=Rotation()), **options)
    return Table("packages", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", kind))


def numbered(vectors: Iterable[Any], column: str = "embedding") -> Iterator[dict[str, Any]]:
    """Rows with these vectors."""
    return ({"id": n, column: vector} for n, vector in enumerate(vectors))


def spread(rows: int, dims: int, decay: float = 0.9) -> NDArray[np.float32]:
    """Vectors whose spectrum falls in a basis that is not the dimensions'."""
    rng = np.random.default_rng(0)
    few = min(dims, 64)
    basis = np.linalg.qr(rng.normal(size=(dims, few)))[0]
    return np.asarray((rng.normal(size=(rows, few)) * decay ** np.arange(few)) @ basis.T, np.float32)


@pytest.fixture(scope="module")
def loaded(module_engine: Engine, corpus: Corpus) -> Table:
    """5,000 real vectors, then 30 rows without one and 20 with a zero one."""
    table = packages()
    with module_engine.begin() as connection:
        table.create(connection)
        ingest(connection, table.c.embedding, numbered(split(corpus.documents)[0]))
        useless = ({"id": ROWS + n, "embedding": None if n < 30 else np.zeros(256)} for n in range(50))
        ingest(connection, table.c.embedding, useless)
    with module_engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE packages")
    return table


@pytest.fixture(scope="module")
def learned(module_engine: Engine, loaded: Table) -> Fit:
    """A rotation learned from them."""
    with module_engine.connect() as connection:
        return fit_rotation(connection, loaded.c.embedding)


def test_every_usable_row_is_learned_from(learned: Fit) -> None:
    """The sample is larger than the table: all of it; zero vectors are counted, NULLs are no vectors."""
    assert (learned.rows, learned.skipped) == (ROWS, 20)
    assert learned.rotation.required_axes().shape == (256, 256)


def test_more_dimensions_keep_more(learned: Fit) -> None:
    """And principal axes keep more than as many leading dimensions, though the model was trained for those."""
    sizes = list(learned.recall_by_dims)
    kept = list(learned.recall_by_dims.values())
    assert sizes == sorted(sizes) == list(learned.recall_by_dims_prefix)
    assert {64, 128, 256} < set(sizes)
    assert sizes[-1] == 256
    assert all(larger >= smaller - 0.002 for smaller, larger in pairwise(kept))
    assert kept[0] < 0.99 < kept[-1] <= 1
    for size in sizes:
        assert learned.recall_by_dims[size] >= learned.recall_by_dims_prefix[size] - 0.002
    assert learned.recall_by_dims[32] > learned.recall_by_dims_prefix[32] + 0.05


def test_the_same_seed_gives_the_same_rotation(module_engine: Engine, loaded: Table) -> None:
    """Of a sample; another seed reads other rows."""
    with module_engine.connect() as connection:
        one, again = (fit_rotation(connection, loaded.c.embedding, sample=2_000, seed=7) for _ in range(2))
        other = fit_rotation(connection, loaded.c.embedding, sample=2_000, seed=8)
    assert one == again
    assert one.rotation.id != other.rotation.id
    assert one.rows + one.skipped == pytest.approx(2_000, abs=150)


def test_it_only_reads(module_engine: Engine, loaded: Table) -> None:
    """A read-only transaction of a role that may read and nothing else."""
    with module_engine.connect() as connection:
        connection.execute(text("CREATE ROLE fit_reader"))
        connection.execute(text("GRANT SELECT ON packages TO fit_reader"))
        connection.execute(text("SET LOCAL ROLE fit_reader"))
        connection.execute(text("SET TRANSACTION READ ONLY"))
        assert fit_rotation(connection, loaded.c.embedding, sample=1_000, axes=16).rows > 0
        assert connection.in_transaction()
        connection.rollback()


def test_the_catalogue_is_enough(module_engine: Engine, loaded: Table, learned: Fit) -> None:
    """`pgmrl fit-rotation packages.embedding` has no models: it learns the same."""
    assert loaded.name == "packages"
    with module_engine.connect() as connection:
        assert fit_rotation(connection, reflect(connection, "packages.embedding")) == learned


def test_through_a_session_with_progress(module_engine: Engine, loaded: Table) -> None:
    """Progress goes up to the number of rows read."""
    read: list[int] = []
    with Session(module_engine) as session:
        found = fit_rotation(session, loaded.c.embedding, sample=3_000, axes=8, progress=read.append)
    assert read == sorted(read)
    assert len(read) > 1
    assert read[-1] == found.rows + found.skipped


@pytest.mark.parametrize(("sample", "axes", "message"), [(100, None, "too few to learn 256"), (20, 30, "too few")])
def test_too_small_a_sample(module_engine: Engine, loaded: Table, sample: int, axes: int | None, message: str) -> None:
    """Fewer rows than axes."""
    with module_engine.connect() as connection, pytest.raises(RotationError, match=message):
        fit_rotation(connection, loaded.c.embedding, sample=sample, axes=axes)


@pytest.mark.parametrize(("sample", "axes"), [(0, 8), (-1, 8), (1_000, 0), (1_000, -1), (1_000, 257)])
def test_numbers_that_make_no_sense(module_engine: Engine, loaded: Table, sample: int, axes: int) -> None:
    """Named before the server is asked; axes beyond the dimensions are not silently fewer."""
    with module_engine.connect() as connection, pytest.raises(RotationError, match=r"sample|axes"):
        fit_rotation(connection, loaded.c.embedding, sample=sample, axes=axes)


def test_an_empty_table(connection: Connection) -> None:
    """And one that holds no vector."""
    table = packages()
    table.create(connection)
    with pytest.raises(RotationError, match="0 usable rows"):
        fit_rotation(connection, table.c.embedding)
    connection.execute(table.insert().values(id=1))
    with pytest.raises(RotationError, match="0 usable rows"):
        fit_rotation(connection, table.c.embedding)


def test_a_table_that_is_not_there(connection: Connection) -> None:
    """One error that says what to run, and the transaction is still good."""
    with pytest.raises(NotMigrated, match=r"no table packages .*run the application's migrations"):
        fit_rotation(connection, packages().c.embedding)
    assert connection.execute(text("SELECT 1")).scalar_one() == 1


def test_a_column_that_is_not_there(connection: Connection) -> None:
    """The table is, from before the migration that adds the vector."""
    connection.execute(text("CREATE TABLE packages (id integer PRIMARY KEY)"))
    with pytest.raises(NotMigrated, match="embedding"):
        fit_rotation(connection, packages().c.embedding)


def test_a_pgvector_column_that_was_there_before(connection: Connection) -> None:
    """Through an ORM class whose column pgmrl did not declare; full precision is read as such."""

    class Base(DeclarativeBase):
        pass

    class Document(Base):
        __tablename__ = "documents"
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[Any] = mapped_column(VECTOR(96))

    add_short(Document.embedding, Short(8, by=Rotation()), metric="l2")
    Base.metadata.create_all(connection)
    vectors = spread(800, 96) * 1e5  # beyond half precision
    ingest(connection, Document.embedding, numbered(vectors))
    found = fit_rotation(connection, Document.embedding)
    assert found.rows == 800
    assert found.recall_by_dims[16] > found.recall_by_dims_prefix[16]
    assert found.recall_by_dims[64] > 0.99


def test_the_original_of_a_side_table(connection: Connection) -> None:
    """Read from the side table, where the searches take place."""
    documents = Table(
        "documents", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", HALFVEC(96))
    )
    add_side_table(documents.c.embedding, Short(8, by=Rotation()))
    documents.metadata.create_all(connection)
    ingest(connection, documents.c.embedding, numbered(spread(800, 96)))
    found = fit_rotation(connection, documents.c.embedding)
    assert found.rows == 800
    assert found.rotation.required_axes().shape == (96, 96)


@pytest.mark.parametrize("hostile", ['a"b', "50% :off", "%s", "naïve 表", "select", "it's", "a.b", "x:y::z", "\\n"])
def test_hostile_names(connection: Connection, hostile: str) -> None:
    """Of schema, table and column."""
    table = Table(
        hostile,
        MetaData(schema=hostile),
        Column("id", Integer, primary_key=True),
        Column(hostile, Matryoshka(16, Short(4, by=Rotation()))),
    )
    connection.exec_driver_sql("CREATE SCHEMA " + '"' + hostile.replace('"', '""').replace("%", "%%") + '"')
    table.create(connection)
    ingest(connection, table.c[hostile], numbered(spread(100, 16), hostile))
    assert fit_rotation(connection, table.c[hostile]).rows == 100


@pytest.mark.parametrize(("dims", "full"), [(3_072, "halfvec"), (3_072, "vector"), (4_096, "halfvec")])
def test_many_dimensions(connection: Connection, dims: int, full: Any) -> None:
    """As many as the largest models have, in TOAST."""
    table = Table(
        "t",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(dims, Short(16, by=Rotation()), full=full)),
    )
    table.create(connection)
    vectors = spread(400, dims)
    ingest(connection, table.c.embedding, numbered(vectors))
    found = fit_rotation(connection, table.c.embedding, axes=32)
    axes = found.rotation.required_axes().astype(np.float32)
    assert axes.shape == (32, dims)
    np.testing.assert_allclose(axes @ axes.T, np.eye(32), atol=5e-3)
    assert ((vectors @ axes.T) ** 2).sum() / (vectors**2).sum() > 0.98
    assert found.recall_by_dims[32] > found.recall_by_dims_prefix[32]


@pytest.mark.parametrize("metric", ["cosine", "l2", "inner_product"])
def test_every_metric(connection: Connection, metric: Any) -> None:
    """What is kept is measured by the column's own."""
    table = Table(
        "t",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(96, Short(16, by=Rotation()), metric, "vector")),
    )
    table.create(connection)
    lengths = np.random.default_rng(1).uniform(0.1, 10, size=(1_500, 1))
    ingest(connection, table.c.embedding, numbered(spread(1_500, 96) * lengths))
    found = fit_rotation(connection, table.c.embedding)
    assert found.recall_by_dims[16] > found.recall_by_dims_prefix[16]
    assert found.recall_by_dims[64] > 0.99


def test_a_rotated_column_keeps_its_promise(module_engine: Engine, loaded: Table, learned: Fit, corpus: Corpus) -> None:
    """From `fit` to a search: install, read back, a column of its own, and the recall that was promised."""
    with module_engine.connect() as connection:
        assert database.install_rotation(connection, learned.rotation)
        back = database.installed_rotation(connection, str(learned.rotation.id))
        assert back == learned.rotation
        np.testing.assert_array_equal(back.required_axes(), learned.rotation.required_axes())
        rotated = Table(
            "rotated",
            MetaData(),
            Column("id", Integer, primary_key=True),
            Column("embedding", Matryoshka(256, Short(64, by=back), index=None)),
        )
        rotated.create(connection)
        documents, held_out = split(corpus.documents)
        ingest(connection, rotated.c.embedding, numbered(documents))
        connection.exec_driver_sql("ANALYZE rotated")
        recalls = [
            recall_at_k(*(_distances(connection, rotated, query, exact=exact) for exact in (False, True)))
            for query in held_out
        ]
        assert loaded.name != rotated.name
        connection.rollback()
    # without an index the shortlist is exact, which is what `recall_by_dims` says
    assert np.mean(recalls) == pytest.approx(learned.recall_by_dims[64], abs=0.02)
    assert np.mean(recalls) > 0.97


def _distances(connection: Connection, table: Table, query: VectorArray, *, exact: bool) -> list[float]:
    shortlist = None if exact else 100
    found = search(select(table.c.id), table.c.embedding, query, k=10, shortlist=shortlist, exact=exact)
    return [row[-1] for row in connection.execute(found)]


def test_life_of_a_rotation(engine: Engine) -> None:
    """Learn, add it to the model, write through the application: the database shortens with the same axes."""

    class Base(DeclarativeBase):
        pass

    class Before(Base):
        __tablename__ = "documents"
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[VectorArray] = matryoshka(32, Short(8, by=Rotation()))

    vectors = spread(300, 32)
    with Session(engine) as session:
        Base.metadata.create_all(session.connection())
        session.add_all(Before(id=n, embedding=vector) for n, vector in enumerate(vectors))
        session.flush()
        learned = fit_rotation(session, Before.embedding)
        session.rollback()

    class NewBase(DeclarativeBase):
        pass

    class After(NewBase):
        __tablename__ = "documents"
        id: Mapped[int] = mapped_column(primary_key=True)
        embedding: Mapped[VectorArray] = matryoshka(32, Short(8, by=learned.rotation))

    with Session(engine) as session:
        database.install_rotation(session, learned.rotation)
        NewBase.metadata.create_all(session.connection())
        session.add_all(After(id=n, embedding=vector) for n, vector in enumerate(vectors))
        session.flush()
        assert fit_rotation(session, After.embedding).rotation.id == learned.rotation.id
        short = text(f"SELECT count(*) FROM documents WHERE embedding_{learned.rotation.id}_8 IS NOT NULL")
        assert session.execute(short).scalar_one() == session.scalar(select(func.count(After.id))) == 300


def two_kinds(old: int, new: int) -> NDArray[np.float32]:
    """Vectors of 32 dimensions: at first in the leading eight of them, then in others."""
    rng = np.random.default_rng(0)
    vectors = np.zeros((old + new, 32), np.float32)
    vectors[:old, :8] = rng.normal(size=(old, 8))
    vectors[old:, 16:24] = rng.normal(size=(new, 8))
    return vectors


def in_small(connection: Connection, vectors: Iterable[Any], **table: Any) -> Table:
    """A table of 32 dimensions with these vectors."""
    packages = Table(
        "packages",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(32, Short(8, by=Rotation()), index=None)),
        **table,
    )
    packages.create(connection)
    ingest(connection, packages.c.embedding, numbered(vectors))
    return packages


def weight(found: Fit, first: int, last: int) -> float:
    """How much of the axes lies in these dimensions."""
    return float((found.rotation.required_axes()[:, first:last].astype(np.float64) ** 2).sum())


def test_rows_that_the_statistics_do_not_know_yet(connection: Connection) -> None:
    """A load just before: the sample is of the whole table, not of its first rows."""
    table = in_small(connection, two_kinds(2_000, 0))
    connection.exec_driver_sql("ANALYZE packages")
    new = ({"id": 2_000 + n, "embedding": vector} for n, vector in enumerate(two_kinds(0, 18_000)))
    ingest(connection, table.c.embedding, new)
    found = fit_rotation(connection, table.c.embedding, sample=1_000, axes=8)
    assert found.rows == 1_000
    assert weight(found, 16, 24) > 7.9


def test_the_tables_last_rows_are_as_likely_as_the_first(connection: Connection) -> None:
    """New rows are at the end of the table, and are what the next searches are about."""
    table = in_small(connection, two_kinds(19_400, 600))
    connection.exec_driver_sql("ANALYZE packages")
    found = fit_rotation(connection, table.c.embedding, sample=5_000, axes=16)
    assert found.rows == 5_000
    assert weight(found, 16, 24) > 7.9


def test_a_column_that_is_mostly_null(connection: Connection) -> None:
    """In the middle of a backfill: as many vectors as were asked for, if they are there."""
    vectors = spread(20_000, 32)
    table = in_small(connection, (vector if n % 20 == 0 else None for n, vector in enumerate(vectors)))
    connection.exec_driver_sql("ANALYZE packages")
    read: list[int] = []
    found = fit_rotation(connection, table.c.embedding, sample=600, axes=16, progress=read.append)
    assert found.rows == 600
    assert read == sorted(read)
    assert read[-1] == 600
    assert fit_rotation(connection, table.c.embedding, axes=16).rows == 1_000


def test_a_partitioned_table(connection: Connection) -> None:
    """With statistics and without."""
    table = in_small(connection, (), postgresql_partition_by="RANGE (id)")
    for n in range(3):
        span = f"FROM ({n * 2_000}) TO ({(n + 1) * 2_000})"
        connection.exec_driver_sql(f"CREATE TABLE part_{n} PARTITION OF packages FOR VALUES {span}")
    ingest(connection, table.c.embedding, numbered(spread(6_000, 32)))
    assert fit_rotation(connection, table.c.embedding, sample=1_000, axes=8).rows == 1_000
    connection.exec_driver_sql("ANALYZE packages")
    assert fit_rotation(connection, table.c.embedding, sample=1_000, axes=8).rows == 1_000


def test_a_view_is_refused(connection: Connection) -> None:
    """The server cannot sample it."""
    table = in_small(connection, spread(100, 32))
    connection.exec_driver_sql("ALTER TABLE packages RENAME TO origin")
    connection.exec_driver_sql("CREATE VIEW packages AS SELECT * FROM origin")
    with pytest.raises(RotationError, match="packages is no table"):
        fit_rotation(connection, table.c.embedding, axes=8)


def test_copies_of_a_row_are_as_good_as_that_row(connection: Connection) -> None:
    """200 copies of each of 30 rows: which of them come back makes no difference, so all dimensions keep all."""
    table = in_small(connection, np.repeat(spread(30, 32), 200, axis=0))
    assert fit_rotation(connection, table.c.embedding, axes=32).recall_by_dims[32] == 1


def test_axes_for_as_many_dimensions_as_are_declared(connection: Connection) -> None:
    """More than the default: what was learned fits the column it was learned for."""
    short = Short(300, by=Rotation())
    table = Table(
        "t",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("embedding", Matryoshka(400, short, index=None)),
    )
    table.create(connection)
    ingest(connection, table.c.embedding, numbered(spread(500, 400)))
    found = fit_rotation(connection, table.c.embedding)
    assert Definition.of(400, Short(300, by=found.rotation)).learned


@pytest.mark.parametrize("level", ["AUTOCOMMIT", "REPEATABLE READ"])
def test_nothing_is_left_behind(engine: Engine, level: Any) -> None:
    """No setting, no cursor, and no transaction where there was none."""
    ask = "SELECT current_setting('synchronize_seqscans'), (SELECT count(*) FROM pg_cursors WHERE name <> '')"
    with engine.begin() as connection:
        table = in_small(connection, spread(3_000, 32))
    with engine.connect().execution_options(isolation_level=level) as connection:
        assert fit_rotation(connection, table.c.embedding, sample=500, axes=8).rows == 500
        assert tuple(connection.exec_driver_sql(ask).one()) == ("on", 0)


def test_bits_keep_what_bits_keep(module_engine: Engine, loaded: Table, learned: Fit) -> None:
    """Signs are judged as signs: fewer than the numbers they are of, and more of them keep more."""
    bits = packages(Short(64, by=Rotation(), type="bit"))
    assert bits.name == loaded.name
    with module_engine.connect() as connection:
        found = fit_rotation(connection, bits.c.embedding)
    assert found.rotation == learned.rotation
    assert all(found.recall_by_dims[size] < learned.recall_by_dims[size] for size in (16, 32, 64))
    assert 0.5 < found.recall_by_dims[64] < found.recall_by_dims[256] < 1
