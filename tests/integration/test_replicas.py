"""A streaming standby: every search and every tool that reads answers as on the primary; what writes is refused."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import (
    Column,
    Computed,
    Engine,
    Integer,
    MetaData,
    Table,
    Text,
    create_engine,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import TSVECTOR
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from typer.main import get_command

from examples.replicas import NEVER, ReplicaSession
from examples.replicas import main as example
from pgmrl import (
    Nearest,
    SqlFunctions,
    Words,
    check_schema,
    database,
    evaluate,
    install_functions,
    more_like_this,
    search,
    search_diverse,
    search_funnel,
    search_groups,
    search_hybrid,
    search_many,
)
from pgmrl.cli import app
from pgmrl.evaluation.judged import Judged, Query
from pgmrl.explanation import assert_index_used
from pgmrl.functions.named_queries import add_query, queries
from pgmrl.measure.queries import vector_queries
from pgmrl.measure.recall import measure_recall
from pgmrl.model.columns import Matryoshka
from pgmrl.model.shortening import Short
from tests.cli import failure, ok, run
from tests.corpus import facts
from tests.databases import vacuum
from tests.standbys import catch_up

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.corpus import Corpus
    from tests.integration.conftest import Replicas

ROWS = 1_500
PASSAGES = Table(
    "passages",
    MetaData(),
    Column("id", Integer, primary_key=True),
    Column("name", Text),
    Column("package", Text),
    Column("words", TSVECTOR, Computed("to_tsvector('english'::regconfig, COALESCE(name, ''))", persisted=True)),
    Column("embedding", Matryoshka(96, Short(32))),
)
EMBEDDING = PASSAGES.c.embedding
WHERE = select(func.pg_is_in_recovery())


@pytest.fixture(scope="module")
def passages(replicas: Replicas, corpus: Corpus) -> Iterator[Replicas]:
    """`passages`, with its functions and a named query, replayed by the standby."""
    with replicas.primary.begin() as connection:
        PASSAGES.create(connection)
        rows = [
            facts(passage, "name", "package") | {"id": n, "embedding": corpus.documents[n, :96]}
            for n, passage in enumerate(corpus.passages[:ROWS])
        ]
        connection.execute(PASSAGES.insert(), rows)
        declared = SqlFunctions(filters=("package",), related=3, group_by="package", words="words")
        install_functions(connection, EMBEDDING, declared)
        add_query(connection, EMBEDDING, "asyncio", corpus.queries[0, :96])
    vacuum(replicas.primary, "passages")
    catch_up(*replicas)
    yield replicas
    with replicas.primary.begin() as connection:
        connection.exec_driver_sql("DROP TABLE passages CASCADE")
    catch_up(*replicas)


def answers(engine: Engine, statement: Any) -> list[tuple[Any, ...]]:
    """What a statement gives."""
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(statement)]


# -- searches --------------------------------------------------------------------------------------------------------


def test_every_shape(passages: Replicas, corpus: Corpus) -> None:
    """The index is in the log, so that both servers search the same graph, and give the same rows."""
    query, other = corpus.queries[0, :96], corpus.queries[1, :96]
    rows, named = select(PASSAGES.c.id, PASSAGES.c.name), select(PASSAGES.c.id)
    near = Nearest(EMBEDDING, query)
    shapes = {
        "search": search(rows, EMBEDDING, query),
        "filtered": search(rows.where(PASSAGES.c.id % 50 == 0), EMBEDDING, query, counts=True),
        "page": search(rows, EMBEDDING, query, offset=10, max_distance=0.9, similarity="likeness"),
        "exact": search(rows, EMBEDDING, query, exact=True),
        "examples": search(rows, EMBEDDING, more_like_this(EMBEDDING, [3, 4], unlike=[5])),
        "groups": search_groups(rows, EMBEDDING, query, by=PASSAGES.c.package),
        "diverse": search_diverse(rows, EMBEDDING, query),
        "funnel": search_funnel(rows, EMBEDDING, query, stages=[(64, 50)]),
        "hybrid": search_hybrid(rows, [near, Words(PASSAGES.c.words, "read a file", config="english")]),
        "many": search_many(named, EMBEDDING, [query, other]),
    }
    for shape, statement in shapes.items():
        expected = answers(passages.primary, statement)
        assert len(expected) >= 5, shape
        assert answers(passages.standby, statement) == expected, shape
    with passages.standby.connect() as connection:
        assert_index_used(connection, shapes["search"])


def test_functions_and_named_queries(passages: Replicas, corpus: Corpus) -> None:
    """Installed on the primary, called on the standby."""
    vector = "[" + ",".join(map(str, corpus.queries[0, :96].tolist())) + "]"
    calls = (
        f"passages_search('{vector}')",
        f"passages_search('{vector}', 5, package => 'asyncio')",
        "passages_search_named('asyncio')",
        "passages_similar(7)",
        f"passages_search_groups('{vector}')",
        f"passages_search_diverse('{vector}')",
        f"passages_hybrid('{vector}', 'event loop')",
    )
    for call in calls:
        statement = text(f"SELECT * FROM {call} ORDER BY rank, id".replace(":", "\\:"))
        expected = answers(passages.primary, statement)
        assert expected, call
        assert answers(passages.standby, statement) == expected, call
    with passages.standby.connect() as connection:
        assert [named.name for named in queries(connection)] == ["asyncio"]


def test_what_is_measured_is_the_same(passages: Replicas, corpus: Corpus) -> None:
    """Recall, quality and the state of the schema, by the same queries."""
    measured, judged, states = [], [], []
    judgements = Judged(
        [Query("a", None, corpus.queries[0, :96]), Query("b", None, corpus.queries[1, :96])],
        {"a": {"1": 1, "2": 1}, "b": {"3": 1}},
    )
    for engine in passages:
        with engine.connect() as connection:
            measured.append(
                measure_recall(connection, EMBEDDING, queries=vector_queries(EMBEDDING, corpus.queries[:20, :96]))
            )
        with engine.connect() as connection:
            judged.append({system.name: system.means for system in evaluate(connection, EMBEDDING, judgements).systems})
            states.append((check_schema(connection, EMBEDDING), database.columns(connection)))
    assert measured[0].index is not None
    assert [loss.recall for loss in measured[0].losses] == [loss.recall for loss in measured[1].losses]
    assert judged[0] == judged[1]
    assert states[0] == states[1]


# -- commands --------------------------------------------------------------------------------------------------------


@pytest.fixture
def on_standby(passages: Replicas, corpus: Corpus, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """DATABASE_URL is the standby's; an empty folder."""
    monkeypatch.setenv("DATABASE_URL", passages.standby.url.render_as_string(hide_password=False))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "query.json").write_text(json.dumps(corpus.queries[0, :96].tolist()))
    (tmp_path / "rows.jsonl").write_text('{"id": 1, "name": "x"}\n')
    return tmp_path


WRITES = [
    "upgrade",
    "demo",
    "load rows.jsonl --table fresh --text name",
    "embed passages.embedding --install --text {name} --by static",
    "embed passages.embedding",
    "embed passages.embedding --retry",
    "chunk passages",
    "distribute passages --by id",
    "backfill passages.embedding",
    "backfill passages.embedding --repair",
    "reshape start passages.embedding --short-dims 16",
    "reshape contract passages.embedding",
    "reshape undo passages.embedding",
    "reshape drop passages.embedding",
    "fit-rotation passages.embedding --install",
    "functions install passages.embedding",
    "functions drop passages.embedding",
    "model install static",
    "model remove static",
    "model keep passages.embedding --text {name}",
    "query add passages.embedding words",
    "query remove passages.embedding asyncio",
    "query serve passages.embedding --embedder static",
    "tune passages.embedding --recall 0.9 --apply",
]


@pytest.mark.parametrize("command", WRITES)
def test_commands_that_write(on_standby: Path, command: str) -> None:
    """Each is refused before it does anything, by an error that names the server and its primary."""
    error = failure(*command.split())
    assert "expected a primary, which takes writes, got a standby of " in str(error)
    assert "Give the URL of its primary" in str(error)
    assert "postgresql://" in str(error)
    assert {path.name for path in on_standby.iterdir()} == {"query.json", "rows.jsonl"}


READS = [
    "columns",
    "search passages.embedding --vector query.json",
    "explain passages.embedding --vector query.json",
    "functions list",
    "functions install passages.embedding --name other --sql",
    "query list",
    "model list",
    "embed --status",
    "progress",
    "reshape status passages.embedding",
    "reshape start passages.embedding --short-dims 16 --dry-run",
    "fit-rotation passages.embedding --sample 1000",
]


OTHERS = {"check-migration", "compare", "doctor", "evaluate", "recall"}
"""Read as well; what they say on a standby is tested where they are."""


def command_names(command: Any, *above: str) -> Iterator[str]:
    """Of the commands of a group."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from command_names(inner, *above, name)
    if not hasattr(command, "commands"):
        yield " ".join(above)


def test_every_command_is_known_here() -> None:
    """A new one is put on purpose among those that write, which are refused, or those that read."""
    tried = [command.split() for command in (*WRITES, *READS)]
    known = OTHERS | {words[0] for words in tried} | {" ".join(words[:2]) for words in tried}
    assert not [name for name in command_names(get_command(app)) if name not in known and not name.startswith("local ")]


def test_the_page_names_every_command() -> None:
    """In its table of which goes where."""
    page = (Path(__file__).parents[2] / "docs" / "replicas.md").read_text()
    table = page[page.index("| on a standby |") : page.index("```console")]
    known = set(" ".join(re.findall("`([^`]+)`", table)).split())
    names = [name for name in command_names(get_command(app)) if not name.startswith("local ")]
    assert [name for name in names if not known.issuperset(name.split())] == []


@pytest.mark.parametrize("command", READS)
@pytest.mark.usefixtures("on_standby")
def test_commands_that_read(command: str) -> None:
    """Nothing of them needs the primary."""
    assert ok(*command.split())


@pytest.mark.usefixtures("on_standby")
def test_a_recall_that_cannot_be_kept() -> None:
    """The number comes all the same, and what was not done is said by the exit code."""
    result = run("recall", "passages.embedding", "--sample", "20", "--record", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["recall"]["mean"] > 0.5
    assert "a standby keeps no history: measure on its primary" in result.stderr
    assert "recall@10" in ok("recall", "passages.embedding", "--sample", "20")


def test_a_primary_whose_transactions_are_read_only(
    passages: Replicas, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Told apart from a standby."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", passages.primary.url.render_as_string(hide_password=False))
    monkeypatch.setenv("PGOPTIONS", "-c default_transaction_read_only=on")
    assert "got one whose transactions are read-only" in str(failure("upgrade"))


# -- the session -----------------------------------------------------------------------------------------------------


def routed(replicas: Replicas, **options: Any) -> ReplicaSession:
    """A session that may wait for as long as it takes."""
    return ReplicaSession(replicas.primary, [replicas.standby], **{"wait_seconds": 60, **options})


def test_reads_go_to_the_standby_until_a_write(passages: Replicas, corpus: Corpus) -> None:
    """A transaction stays where it is; behind a write it sees what it wrote, and what is locked is the primary's."""
    with routed(passages) as session:
        assert session.scalar(WHERE) is True
        assert len(session.execute(search(select(PASSAGES.c.id), EMBEDDING, corpus.queries[0, :96])).all()) == 10
        session.execute(insert(PASSAGES), {"id": 90_000, "name": "new", "embedding": corpus.queries[0, :96]})
        assert session.scalar(WHERE) is False
        nearest = session.execute(search(select(PASSAGES.c.id), EMBEDDING, corpus.queries[0, :96])).first()
        assert nearest is not None
        assert nearest[0] == 90_000
        session.rollback()
        assert session.position is None
        assert session.scalar(WHERE) is True
        session.rollback()
        session.execute(select(PASSAGES.c.id).where(PASSAGES.c.id == 1).with_for_update())
        assert session.scalar(WHERE) is False


def test_a_session_reads_what_it_wrote(passages: Replicas, corpus: Corpus) -> None:
    """From the standby that has replayed it; from the primary, while the standby is behind for longer than it waits."""
    query = search(select(PASSAGES.c.id), EMBEDDING, corpus.queries[0, :96], k=1)
    with routed(passages) as session:
        session.execute(insert(PASSAGES), {"id": 90_001, "name": "new", "embedding": corpus.queries[0, :96]})
        session.commit()
        position = session.position
        assert position is not None
        assert session.scalar(WHERE) is True
        assert session.scalars(query).all() == [90_001]
    with passages.standby.connect() as connection:
        connection.execute(text("SELECT pg_wal_replay_pause()"))
    try:
        with routed(passages, wait_seconds=0.05, position=position) as session:
            session.execute(PASSAGES.delete().where(PASSAGES.c.id == 90_001))
            session.commit()
            assert session.scalar(WHERE) is False
            assert session.scalars(query).all() != [90_001]
            after = session.position
        # another user, whose session begins behind what he has seen, and one who asks for nothing
        with routed(passages, wait_seconds=0.05, position=after) as session:
            assert session.scalar(WHERE) is False
        with routed(passages, wait_seconds=0.05) as session:
            assert session.scalar(WHERE) is True
            assert session.scalars(query).all() == [90_001]
    finally:
        with passages.standby.connect() as connection:
            connection.execute(text("SELECT pg_wal_replay_resume()"))
    with routed(passages, position=after) as session:
        assert session.scalar(WHERE) is True
        assert session.scalars(query).all() != [90_001]


def test_standbys_that_are_none(passages: Replicas) -> None:
    """One that does not answer and one that was promoted are passed over; where none is left, the primary answers."""
    nowhere = create_engine("postgresql+psycopg://postgres@127.0.0.1:1/shop")
    promoted = passages.primary.execution_options()  # what was promoted is not in recovery, as a primary is not
    with ReplicaSession(passages.primary, [nowhere, promoted, passages.standby], wait_seconds=60) as session:
        for _ in range(6):
            assert session.scalar(WHERE) is True
            session.rollback()
    with ReplicaSession(passages.primary, [nowhere, promoted]) as session:
        assert session.scalar(WHERE) is False
    # a commit is one although nobody can say where it is
    with ReplicaSession(passages.primary, [passages.standby], wait_seconds=0.05) as session:
        session.execute(text("CREATE TEMPORARY TABLE kept AS SELECT 1 AS id"))
        session.primary = nowhere
        session.commit()
        assert session.position == NEVER
        session.primary = passages.primary
        assert session.scalar(WHERE) is False


async def test_an_asynchronous_session(passages: Replicas, corpus: Corpus) -> None:
    """The same class behind an AsyncSession; while it waits, the event loop goes on."""
    engines = [create_async_engine(engine.url.render_as_string(hide_password=False)) for engine in passages]
    primary, standby = (engine.sync_engine for engine in engines)
    options: Any = {"sync_session_class": ReplicaSession, "primary": primary, "standbys": [standby]}
    query = search(select(PASSAGES.c.id), EMBEDDING, corpus.queries[0, :96], k=1)
    try:
        async with AsyncSession(**options, wait_seconds=60) as session:
            assert await session.scalar(WHERE) is True
            session.add_all([])
            await session.execute(insert(PASSAGES), {"id": 90_002, "embedding": corpus.queries[0, :96]})
            await session.commit()
            assert await session.scalar(WHERE) is True
            assert (await session.scalars(query)).all() == [90_002]
            await session.execute(PASSAGES.delete().where(PASSAGES.c.id == 90_002))
            await session.commit()
        async with AsyncSession(**options, wait_seconds=0.1, position=NEVER) as session:
            turns = 0

            async def count() -> None:
                nonlocal turns
                while True:
                    turns += 1
                    await asyncio.sleep(0)

            counting = asyncio.create_task(count())
            assert await session.scalar(WHERE) is False
            counting.cancel()
            assert turns > 1
    finally:
        for engine in engines:
            await engine.dispose()


def test_the_example(passages: Replicas, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What it prints."""
    for name, engine in zip(("PRIMARY_URL", "STANDBY_URLS"), passages, strict=True):
        monkeypatch.setenv(name, engine.url.render_as_string(hide_password=False))
    example()
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a read goes to a standby", "after a write, to the primary"]
    assert lines[2].startswith("after its commit, to")
