"""Another short vector for a table in use: expand, switch, contract, while old and new code run side by side."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, make_url, select, text

from pgmrl import Hnsw, Matryoshka, Prefix, Rotation, Short, database, install_functions, reflect, search
from pgmrl.database.index_states import index_states
from pgmrl.database.table_state import table_state
from pgmrl.errors import MigrationError
from pgmrl.online.contract import contract, pending_contraction, undo
from pgmrl.online.expand import expand, plan_expand
from pgmrl.online.index_statements import Build
from pgmrl.online.reshape import Reshape, reshape
from pgmrl.online.target import Target
from pgmrl.online.validation import validate
from tests.databases import connected, new_database, vacuum
from tests.migrations.processes import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from pgmrl import local

ROWS, DIMS = 3_000, 32


@pytest.fixture(scope="module")
def vectors() -> NDArray[np.float32]:
    """Clustered, with a spread that falls from the first dimension to the last, as of a Matryoshka model."""
    random = np.random.default_rng(5)
    centres = random.normal(size=(40, DIMS))
    drawn = centres[random.integers(40, size=ROWS + 200)] + 0.6 * random.normal(size=(ROWS + 200, DIMS))
    return (drawn * np.linspace(2, 0.3, DIMS)).astype(np.float32)


@pytest.fixture
def rotation() -> Rotation:
    """Orthonormal axes."""
    return Rotation.of(np.linalg.qr(np.random.default_rng(2).normal(size=(DIMS, DIMS)))[0][:16])


def model(short: Short, full: Any = "vector", column: str = "embedding", index: Hnsw | None = None) -> Table:
    """What one version of the application says of its table."""
    return Table(
        "documents",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column(column, Matryoshka(DIMS, short, full=full, index=index or Hnsw(8, 40)), nullable=False, key="embedding"),
    )


OLD = Short(16)


@pytest.fixture(scope="module")
def filled(server: local.LocalServer, vectors: NDArray[np.float32]) -> Iterator[str]:
    """The name of a database with the table as the old version of the application made it, with rows; to be copied."""
    table = model(OLD)
    with new_database(server, "shop") as url:
        with connected(url) as engine:
            with engine.begin() as connection:
                table.create(connection)
                connection.execute(table.insert(), [{"id": n, "embedding": vectors[n]} for n in range(ROWS)])
            vacuum(engine)
        yield str(make_url(url).database)


@pytest.fixture
def engine(server: local.LocalServer, filled: str) -> Iterator[Engine]:
    """A copy of it for one test."""
    with new_database(server, "reshape", filled) as url, connected(url) as engine:
        yield engine


@pytest.fixture
def shop(engine: Engine) -> Engine:
    """The table as the old version of the application made it, with rows."""
    return engine


@pytest.fixture
def without_table(database_url: str) -> Iterator[Engine]:
    """A database in which there is only pgmrl's schema."""
    with connected(database_url) as engine:
        yield engine


@pytest.fixture
def auto(shop: Engine) -> Iterator[Connection]:
    """A connection in autocommit."""
    with shop.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.detach()  # a test disposes of the pool: what goes back to it then is closed by nobody
        yield connection


def change_of(engine: Engine, **changed: Any) -> Reshape:
    """A reshape of the table's column."""
    with engine.connect() as connection:
        return reshape(connection, "documents", "embedding", **changed)


def expanded(engine: Engine, **changed: Any) -> Reshape:
    """A reshape that has been expanded."""
    change = change_of(engine, **changed)
    assert expand(engine, change, Build())
    return change


class Traffic:
    """Searches and writes of one version of the application, until it is told to stop."""

    def __init__(self, engine: Engine, table: Table, vectors: NDArray[np.float32], first: int) -> None:
        self.engine, self.table, self.vectors, self.next = engine, table, vectors, first
        self.failed: list[BaseException] = []
        self.searches = 0
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def under_way(self) -> bool:
        """Whether it has searched, or cannot."""
        return bool(self.failed) or self.searches > 10

    def _run(self) -> None:
        random = np.random.default_rng(self.next)
        while not self.over.is_set():
            try:
                self._once(random)
            except BaseException as error:
                self.failed.append(error)
                return

    def _once(self, random: np.random.Generator) -> None:
        table, number = self.table, int(random.integers(ROWS))
        with self.engine.begin() as connection:
            rows = connection.execute(search(select(table.c.id), table.c.embedding, self.vectors[number], k=10)).all()
            assert len(rows) == 10
            assert rows[0].distance < 0.01  # the row itself, or one that was given its vector
            assert [row.distance for row in rows] == sorted(row.distance for row in rows)
            connection.execute(text("SELECT pg_stat_force_next_flush()"))  # else it is counted up to a second later
        self.searches += 1
        self.next += 1
        with self.engine.begin() as connection:
            connection.execute(table.insert(), {"id": self.next, "embedding": self.vectors[number]})
        with self.engine.begin() as connection:
            connection.execute(table.update().where(table.c.id == self.next), {"embedding": self.vectors[number]})


@contextmanager
def running(*versions: Traffic) -> Iterator[None]:
    """Versions of the application side by side."""
    for version in versions:
        version.thread.start()
    try:
        yield
        for version in versions:
            until(version.under_way)
    finally:
        for version in versions:
            version.over.set()
            version.thread.join()
    for version in versions:
        if version.failed:
            raise version.failed[0]
        assert version.searches > 0


def nobody_connected(engine: Engine, *others: Connection) -> None:
    """Wait for the end of every other session: one that ends reports what it has read, which counts no more then."""
    engine.dispose()
    remaining = text(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database() AND pid <> ALL (:pids)"
    )
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        pids = [one.execute(text("SELECT pg_backend_pid()")).scalar_one() for one in (connection, *others)]
        until(lambda: connection.execute(remaining, {"pids": pids}).scalar())


def same_everywhere(connection: Connection, *shorts: tuple[str, Any]) -> None:
    """Every row of the table has its short vectors, and each is what its definition says."""
    for full, definition in shorts:
        target = Target("documents", full, definition)
        validate(connection, target)
        query = f"SELECT count(*) FROM documents WHERE {target.short} IS NULL"
        assert connection.exec_driver_sql(query).scalar_one() == 0


CHANGES: list[tuple[str, Callable[[Rotation], dict[str, Any]]]] = [
    ("fewer dimensions", lambda _: {"dims": 8}),
    ("prefix to rotation", lambda rotation: {"by": rotation, "dims": 8}),
    ("bits", lambda _: {"type_": "bit", "dims": DIMS}),
    ("vector to halfvec", lambda _: {"full_type": "halfvec"}),
    ("vector to halfvec, rotated", lambda rotation: {"full_type": "halfvec", "by": rotation}),
]


@pytest.mark.parametrize(("changed"), [change for _, change in CHANGES], ids=[name for name, _ in CHANGES])
def test_old_and_new_code_side_by_side(
    shop: Engine,
    vectors: NDArray[np.float32],
    rotation: Rotation,
    changed: Callable[[Rotation], dict[str, Any]],
) -> None:
    """Searches and writes of both versions go on through expand, switch and contract; none fails or returns short."""
    change = change_of(shop, **changed(rotation))
    before = model(OLD)
    after = model(change.new.definition.short, change.new.definition.full, change.new.full)
    old = Traffic(shop, before, vectors, 100_000)
    with running(old):
        assert expand(shop, change, Build())
        new = Traffic(shop, after, vectors, 200_000)
        with running(new):
            until(lambda: old.under_way() and new.under_way())
    with shop.connect() as connection:
        same_everywhere(
            connection,
            (change.old.full, change.old.definition),
            (change.new.full, change.new.definition),
        )
        written = connection.execute(select(after.c.id).where(after.c.id > 100_000)).all()
        assert len(written) >= old.searches + new.searches - 2
    nobody_connected(shop)
    late = Traffic(shop, after, vectors, 300_000)
    with running(late), shop.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        contract(connection, pending_contraction(connection, "documents", change.new.full), watch=0.2)
    with shop.connect() as connection:
        state = table_state(connection, None, "documents")
        assert state is not None
        assert set(state.shorts) == {change.new.short}
        assert state.shorts[change.new.short].stage is None
        assert not state.mirrors
        if change.moves_full:
            assert change.old.full not in state.columns
            assert state.columns[change.new.full].not_null
        same_everywhere(connection, (change.new.full, change.new.definition))
        left = connection.exec_driver_sql(r"SELECT count(*) FROM pg_proc WHERE proname LIKE 'z_\_pgmrl\_%%'")
        assert left.scalar_one() == 1  # what keeps the new one


def test_the_index_alone(shop: Engine, auto: Connection) -> None:
    """Other build parameters need no other column, and no deploy."""
    change = expanded(shop, index=Hnsw(12, 60))
    assert change.same_columns
    [state] = index_states(auto, "documents", "embedding_short_16")
    assert (state.name, state.index, state.valid) == ("documents_embedding_short_16_hnsw", Hnsw(12, 60), True)


def test_what_was_written_in_half_precision_reaches_the_old_column(shop: Engine, auto: Connection) -> None:
    """New code writes the new full column only; old code reads what it wrote, and the other way round."""
    expanded(shop, full_type="halfvec")
    vector = "[" + ",".join(str(n + 0.5) for n in range(DIMS)) + "]"
    auto.execute(text("INSERT INTO documents (id, embedding_halfvec) VALUES (9001, :v)"), {"v": vector})
    auto.execute(text("INSERT INTO documents (id, embedding) VALUES (9002, :v)"), {"v": vector})
    auto.execute(text("UPDATE documents SET embedding = :v WHERE id = 1"), {"v": vector})
    auto.execute(text("UPDATE documents SET embedding_halfvec = :v WHERE id = 2"), {"v": vector})
    rows = auto.exec_driver_sql(
        "SELECT embedding = embedding_halfvec::vector AS same, embedding_short_16 IS NOT NULL AS short, "
        "embedding_halfvec_short_16 IS NOT NULL AS new_short FROM documents WHERE id IN (1, 2, 9001, 9002)"
    ).all()
    assert [tuple(row) for row in rows] == [(True, True, True)] * 4


def test_the_old_full_vectors_are_not_rounded(shop: Engine, auto: Connection) -> None:
    """Copying into half precision leaves the old column as it was, bit for bit."""
    before = auto.exec_driver_sql("SELECT id, embedding::text FROM documents ORDER BY id").all()
    expanded(shop, full_type="halfvec")
    after = auto.exec_driver_sql("SELECT id, embedding::text FROM documents ORDER BY id").all()
    assert after == before
    assert len(after) == ROWS


def test_expanding_twice(shop: Engine, auto: Connection) -> None:
    """What is done already is not done again."""
    expanded(shop, dims=8)
    before = index_states(auto, "documents", "embedding_short_8")
    expanded(shop, dims=8)
    assert index_states(auto, "documents", "embedding_short_8") == before


def test_stopped_and_gone_on(shop: Engine, auto: Connection) -> None:
    """Told to stop it stops before its end; the next run completes it."""
    over = threading.Event()
    over.set()
    change = change_of(shop, dims=8)
    assert not expand(shop, change, Build(), stop_event=over)
    state = table_state(auto, None, "documents")
    assert state is not None
    assert state.shorts["embedding_short_8"].stage == "arriving"
    with pytest.raises(MigrationError, match="no valid index yet"):
        contract(auto, pending_contraction(auto, "documents", "embedding"), watch=0)
    assert expand(shop, change, Build())


def test_undo(shop: Engine, auto: Connection) -> None:
    """Back to where it began, also where the full vectors had moved."""
    before = table_state(auto, None, "documents")
    for changed in ({"dims": 8}, {"full_type": "halfvec"}):
        expanded(shop, **changed)
        undo(auto, pending_contraction(auto, "documents", "embedding"))
        assert table_state(auto, None, "documents") == before


def test_it_can_tell_that_the_old_one_is_read(shop: Engine, auto: Connection, vectors: NDArray[np.float32]) -> None:
    """Nothing is dropped while searches use the old index."""
    expanded(shop, dims=8)
    what = pending_contraction(auto, "documents", "embedding")
    with running(Traffic(shop, model(OLD), vectors, 100_000)):
        with pytest.raises(MigrationError, match=r"embedding_short_16 was searched \d+ times in the last 2 s"):
            contract(auto, what, watch=2)
        assert len(index_states(auto, "documents", "embedding_short_16")) == 1
    nobody_connected(shop, auto)
    contract(auto, what, watch=0.2)


def test_sql_functions_move_before_the_old_one_goes(shop: Engine, auto: Connection) -> None:
    """They name the old short column; installed again, they search by the new one."""
    install_functions(auto, reflect(auto, "documents.embedding"))
    expanded(shop, dims=8)
    what = pending_contraction(auto, "documents", "embedding")
    with pytest.raises(
        MigrationError, match=r"function public.documents_search_diverse_v1\(.*\) reads embedding_short_16"
    ):
        contract(auto, what, watch=0)
    install_functions(auto, reflect(auto, "documents.embedding"))
    contract(auto, what, watch=0)
    rows = auto.exec_driver_sql("SELECT id FROM documents_similar((SELECT min(id) FROM documents), 5)").all()
    assert len(rows) == 5


@pytest.mark.parametrize(
    ("reader", "named"),
    [
        (
            "CREATE VIEW seen AS SELECT id, embedding_short_16 FROM documents",
            "view public.seen reads embedding_short_16",
        ),
        (
            "CREATE FUNCTION near() RETURNS bigint LANGUAGE sql AS 'SELECT count(embedding_short_16) FROM documents'",
            r"function public.near\(\) reads embedding_short_16",
        ),
    ],
)
def test_who_else_reads_it(shop: Engine, auto: Connection, reader: str, named: str) -> None:
    """A view or a function of the database is named, and nothing is dropped."""
    expanded(shop, dims=8)
    auto.exec_driver_sql(reader)
    with pytest.raises(MigrationError, match=named):
        contract(auto, pending_contraction(auto, "documents", "embedding"), watch=0)
    state = table_state(auto, None, "documents")
    assert state is not None
    assert len(state.shorts) == 2


def test_the_plan_says_what_runs(shop: Engine, auto: Connection, statements: list[str]) -> None:
    """Each statement of the plan is one that the reshape runs."""
    change = change_of(shop, dims=8)
    with shop.connect() as connection:
        planned, findings = plan_expand(connection, change, Build())
    assert [step.lock for step in planned] == [
        "ACCESS EXCLUSIVE",
        "ROW EXCLUSIVE",
        "SHARE UPDATE EXCLUSIVE",
        "ACCESS SHARE",
    ]
    assert not any(step.rewrites for step in planned)
    assert all(step.room > 0 for step in planned[1:3])
    assert {finding.level for finding in findings} <= {"note", "warning"}
    del statements[:]
    expand(shop, change, Build())
    run = "\n".join(statements)
    for step in (planned[0], planned[2]):
        for statement in step.sql:
            if not statement.startswith("DO "):  # of a printed script; here Python looks
                assert statement in run
    room = planned[2].room
    [built] = index_states(auto, "documents", "embedding_short_8")
    assert 0.6 * built.bytes < room < 1.6 * built.bytes


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({}, "is so already: say what is to change"),
        ({"dims": 16}, "is so already"),
        ({"index": Hnsw(8, 40)}, "is so already"),
    ],
)
def test_nothing_to_change(shop: Engine, changed: dict[str, Any], message: str) -> None:
    """An error, not a rebuild."""
    with pytest.raises(MigrationError, match=message):
        change_of(shop, **changed)


def test_what_is_not_there(shop: Engine) -> None:
    """Unknown tables and columns are named with what there is."""
    with shop.connect() as connection:
        with pytest.raises(MigrationError, match="there is no table nothing"):
            reshape(connection, "nothing", "embedding", dims=8)
        with pytest.raises(MigrationError, match=r"nothing has no short column to start from \(there: embedding"):
            reshape(connection, "documents", "nothing", dims=8)
        with pytest.raises(MigrationError, match=r"no reshape of documents\.embedding is under way"):
            pending_contraction(connection, "documents", "embedding")


def test_a_name_that_is_taken(shop: Engine, auto: Connection) -> None:
    """A column of another meaning, or of another kind, is not touched."""
    auto.exec_driver_sql("ALTER TABLE documents ADD COLUMN embedding_short_8 text")
    with pytest.raises(MigrationError, match="of type text is in the way"):
        expand(shop, change_of(shop, dims=8), Build())
    auto.exec_driver_sql("ALTER TABLE documents ADD COLUMN embedding_halfvec text")
    with pytest.raises(MigrationError, match="embedding_halfvec is in the way"):
        expand(shop, change_of(shop, full_type="halfvec"), Build())


def test_a_rotation_that_is_not_installed(shop: Engine) -> None:
    """Pinned by its id alone, its axes can come from nowhere."""
    with pytest.raises(Exception, match="rotation r000000000000 is not in this database"):
        expand(shop, change_of(shop, by=Rotation("r000000000000"), dims=8), Build())


def test_a_partitioned_table(without_table: Engine, vectors: NDArray[np.float32]) -> None:
    """Each partition has its index, attached; the old one goes as a whole."""
    with without_table.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TABLE documents (id int, part int, embedding vector(32) NOT NULL, embedding_short_16 halfvec(16) "
            "GENERATED ALWAYS AS (l2_normalize(subvector(embedding, 1, 16))::halfvec(16)) STORED, "
            "PRIMARY KEY (part, id)) PARTITION BY LIST (part)"
        )
        for part in range(3):
            connection.exec_driver_sql(f"CREATE TABLE documents_{part} PARTITION OF documents FOR VALUES IN ({part})")
        connection.exec_driver_sql(
            "CREATE INDEX documents_embedding_short_16_hnsw ON documents USING hnsw (embedding_short_16 "
            "halfvec_cosine_ops) WITH (m = 8, ef_construction = 40)"
        )
        table = Table("documents", MetaData(), autoload_with=connection)
        rows = [{"id": n, "part": n % 3, "embedding": vectors[n]} for n in range(600)]
        connection.execute(table.insert(), rows)
    change = expanded(without_table, dims=8, by=Prefix())
    with without_table.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        same_everywhere(connection, ("embedding", change.new.definition))
        [state] = index_states(connection, "documents", "embedding_short_8")
        assert state.valid
        contract(connection, pending_contraction(connection, "documents", "embedding"), watch=0)
        [info] = database.columns(connection)
        assert (info.short_column, info.index_valid, info.kept_by) == ("embedding_short_8", True, "trigger")
        assert info.index_bytes is not None
        assert info.index_bytes > 0
