"""Commands for `test_kills.py` to kill: what each works on, and what must be so when it has been run again."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sqlalchemy import create_engine
from typer.testing import CliRunner

from pgmrl import cli
from pgmrl.database.connection import execute_plain as run
from pgmrl.database.table_state import table_state
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Short
from pgmrl.online import steps
from pgmrl.online.index_builds import build
from pgmrl.online.target import Target
from pgmrl.online.validation import validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection as Pipe
    from pathlib import Path

    from sqlalchemy import Connection

ROWS, DIMS = 3_000, 32
TARGET = Target("documents", "embedding", Definition.of(DIMS, Short(8), full="vector"))
HALVES = Target("documents", "embedding_halfvec", replace(TARGET.definition, full="halfvec"))


@dataclass(frozen=True)
class Killed:
    """Commands that one process runs, one after another, until it is killed.

    Attributes:
        commands: their arguments; `{file}` is a file of rows.
        longest: seconds from the first command's beginning to a kill, at most.
        check: raises where something is wrong after they have been run again.
        at_once: how many processes run them; the first is killed.
        ddl: statements of somebody else's meanwhile.
        unfilled: whether the short column is still to be filled.
    """

    commands: Sequence[Sequence[str]]
    longest: float
    check: Callable[[Connection], None]
    at_once: int = 1
    ddl: Sequence[str] = ()
    unfilled: bool = False


def made(connection: Connection, *, unfilled: bool) -> None:
    """A table in use: a short column that triggers keep, and its index."""
    run(connection, f"CREATE TABLE documents (id int PRIMARY KEY, title text, embedding vector({DIMS}))")
    rows = (
        "INSERT INTO documents SELECT n, 'x', (SELECT array_agg(sin(n * d) + random() / 9)::vector "
        f"FROM generate_series(1, {DIMS}) AS d WHERE n = n) FROM generate_series(1, {ROWS}) AS n"
    )
    if unfilled:
        run(connection, rows)
    for statement in steps.add_online(TARGET):
        run(connection, statement)
    if not unfilled:
        run(connection, rows)
        build(connection, TARGET, Hnsw(4, 16))
    run(connection, "ANALYZE documents")


def write_rows(file: Path) -> None:
    """More rows, to be loaded into a table of their own."""
    rows = ({"id": n, "v": [float((n * d) % 17) - 8 for d in range(1, 17)]} for n in range(1, 8_001))
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def run_commands(url: str, commands: Sequence[Sequence[str]], begun: Pipe | None = None) -> None:
    """In a process of its own: the commands, to the end."""
    if begun is not None:
        begun.send("begun")
    for arguments in commands:
        result = CliRunner().invoke(cli.app, [*arguments, "--database-url", url])
        if result.exception is not None:
            raise result.exception


def again(url: str, killed: Killed, commands: Sequence[Sequence[str]]) -> None:
    """Run what was killed to its end; a reshape that had come to its end says that nothing is under way."""
    for arguments in commands:
        if arguments[0] == "reshape" and contracted(url):
            continue
        run_commands(url, [arguments])
    engine = create_engine(url)
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        killed.check(connection)
        invalid = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid OR NOT indisready"
        assert run(connection, invalid).all() == []
        assert run(connection, "SELECT count(*) FROM pgmrl.backfill_ranges").scalar_one() == 0
        temporary = "SELECT relname FROM pg_class WHERE relname LIKE 'pgmrl%' AND relkind = 'r'"
        assert run(connection, temporary).all() == []
    engine.dispose()


def contracted(url: str) -> bool:
    """Whether the old full column is gone."""
    engine = create_engine(url)
    with engine.connect() as connection:
        state = table_state(connection, None, "documents")
    engine.dispose()
    return state is not None and "embedding" not in state.columns


# -- what must be so -----------------------------------------------------------------------------------------------


def loaded(connection: Connection) -> None:
    """Each row once, and an index."""
    rows = run(connection, "SELECT count(*), count(DISTINCT id), count(embedding_short_8) FROM things").one()
    assert tuple(rows) == (8_000, 8_000, 8_000)
    assert run(connection, "SELECT to_regclass('things_embedding_short_8_hnsw') IS NOT NULL").scalar_one()


def tuned(connection: Connection) -> None:
    """One setting, and nothing of what was tried."""
    assert run(connection, "SELECT count(*) FROM pgmrl.settings").scalar_one() == 1
    tables = run(
        connection, "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    assert tables.scalars().all() == ["documents"]
    validate(connection, TARGET)


def installed(connection: Connection) -> None:
    """All of the functions, and they answer."""
    assert len(run(connection, "SELECT rank FROM documents_similar(1, 5)").all()) == 5


def reshaped(connection: Connection) -> None:
    """The new columns alone, with every vector."""
    state = table_state(connection, None, "documents")
    assert state is not None
    assert (list(state.shorts), state.mirrors) == ([HALVES.short], ())
    validate(connection, HALVES)
    assert run(connection, "SELECT count(embedding_halfvec) FROM documents").scalar_one() == ROWS


def expanded(connection: Connection) -> None:
    """Both, in step."""
    state = table_state(connection, None, "documents")
    assert state is not None
    assert state.mirrors == (("embedding", "embedding_halfvec"),)
    validate(connection, TARGET)
    validate(connection, HALVES)
    same = "SELECT count(*) FROM documents WHERE embedding::halfvec = embedding_halfvec"
    assert run(connection, same).scalar_one() == ROWS


def filled(connection: Connection) -> None:
    """Every row, once."""
    validate(connection, TARGET)
    [job] = run(connection, "SELECT rows_seen, rows_written FROM pgmrl.backfills").all()
    assert tuple(job) == (ROWS, ROWS)


START = ("reshape", "start", "documents.embedding", "--full", "halfvec", "--max-rows-per-second", "8000")
CONTRACT = ("reshape", "contract", "documents.embedding", "--force")
LOAD = ("load", "{file}", "--table", "things", "--vector-column", "v", "--short-dims", "8", "--resume")
TUNE = ("tune", "documents.embedding", "--apply", "--recall", "0.5", "--sample", "40", "--finalists", "1")
TRIED = ("--types", "halfvec", "--dims", "8", "--by", "prefix")
KILLED: dict[str, Killed] = {
    "load": Killed([LOAD], 1.5, loaded),
    "tune --apply": Killed([(*TUNE, *TRIED)], 1.5, tuned),
    "functions install": Killed([("functions", "install", "documents.embedding")], 0.3, installed),
    "reshape start": Killed([START], 1.0, expanded),
    "reshape start and contract": Killed([START, CONTRACT], 2.0, reshaped),
    "two reshapes at once": Killed([START, CONTRACT], 2.0, reshaped, at_once=2),
    "DDL during a backfill": Killed(
        [("backfill", "documents.embedding", "--max-rows-per-second", "3000")],
        0.8,
        filled,
        ddl=("ALTER TABLE documents ADD other int", "ALTER TABLE documents RENAME title TO name"),
        unfilled=True,
    ),
}


def arguments_of(killed: Killed, file: Path) -> list[list[str]]:
    """Its commands, with the file."""
    return [[part.format(file=file) for part in arguments] for arguments in killed.commands]


def database_of(connection: Connection, name: str, file: Path) -> None:
    """What a scenario needs."""
    if name == "load":
        write_rows(file)
    else:
        made(connection, unfilled=KILLED[name].unfilled)
