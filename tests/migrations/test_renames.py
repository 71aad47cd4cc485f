"""Renamed columns, keys, tables, schemas and side tables: writes stay right, or it is said with its remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pgvector.sqlalchemy import VECTOR
from sqlalchemy import Column, Connection, Integer, MetaData, Table, Text

from pgmrl import Hnsw, Matryoshka, Prefix, Rotation, Short, add_side_table, check_schema, database
from pgmrl.database.connection import execute_plain as run
from pgmrl.database.table_state import table_state
from pgmrl.doctor import doctor
from pgmrl.errors import NotMigrated
from pgmrl.model import ddl
from pgmrl.model.shortening import Definition
from pgmrl.online import steps
from pgmrl.online.contract import contract, pending_contraction
from pgmrl.online.expand import expand
from pgmrl.online.index_builds import Build, build
from pgmrl.online.reshape import reshape
from pgmrl.online.target import Target
from pgmrl.online.validation import validate
from tests.cli import ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

DIMS = 16
VECTOR_SQL = f"(SELECT array_agg(random() - 0.5)::vector FROM generate_series(1, {DIMS}) WHERE n = n)"
ROTATION = Rotation.of(np.linalg.qr(np.random.default_rng(2).normal(size=(DIMS, DIMS)))[0][:8])


@pytest.fixture
def auto(engine: Engine) -> Iterator[Connection]:
    """A connection in autocommit."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def definition(by: Prefix | Rotation, type_: Any = "halfvec") -> Definition:
    """Of the table's vectors."""
    return Definition.of(DIMS, Short(DIMS if type_ == "bit" else 4, by, type_), full="vector")


def made(connection: Connection, target: Target, partitions: str = "") -> None:
    """A table whose short column triggers keep, with an index and rows; in front a column that is gone."""
    if isinstance(target.definition.short.by, Rotation):
        with connection.engine.begin() as transaction:
            database.install_rotation(transaction, target.definition.short.by)
    columns = f"gone int, id int PRIMARY KEY, title text, {target.full} vector({DIMS})"
    run(connection, f"CREATE TABLE {target.owner} ({columns}) {partitions}")
    if partitions:  # with numbers of its own
        part = f"{target.table}_0"
        run(connection, f"CREATE TABLE {part} (id int PRIMARY KEY, title text, {target.full} vector({DIMS}), gone int)")
        run(connection, f"ALTER TABLE {target.owner} ATTACH PARTITION {part} FOR VALUES FROM (0) TO (100000)")
    run(connection, f"ALTER TABLE {target.owner} DROP COLUMN gone")
    for statement in steps.add_online(target):
        run(connection, statement)
    written(connection, target.owner, target.full, 0)
    build(connection, target, Hnsw(6, 24))


def written(connection: Connection, owner: str, full: str, start: int) -> None:
    """Inserts and updates by the names of now, each row with another vector."""
    run(
        connection,
        f"INSERT INTO {owner} (id, title, {full}) SELECT {start} + n, 'x', {VECTOR_SQL} "
        "FROM generate_series(1, 20) AS n",
    )
    run(
        connection,
        f"UPDATE {owner} SET {full} = (SELECT {VECTOR_SQL} FROM generate_series(1, 1) AS n) WHERE id % 5 = 0",
    )
    run(connection, f"UPDATE {owner} SET title = 'y' WHERE id % 7 = 0")


RENAMES: dict[str, tuple[str, ...]] = {
    "the full column": ("ALTER TABLE documents RENAME embedding TO vec",),
    "the short column": ("ALTER TABLE documents RENAME {short} TO brief",),
    "both": ('ALTER TABLE documents RENAME embedding TO "Vec ""x"', "ALTER TABLE documents RENAME {short} TO brief"),
    "the table": ("ALTER TABLE documents RENAME TO papers",),
    "its schema": ("CREATE SCHEMA shop", "ALTER TABLE documents SET SCHEMA shop", "ALTER SCHEMA shop RENAME TO store"),
    "the key": ("ALTER TABLE documents RENAME title TO name", "ALTER TABLE documents RENAME name TO title"),
}


@pytest.mark.usefixtures("place")
@pytest.mark.parametrize(
    ("renames", "shortened", "partitions"),
    [
        *((name, definition(Prefix()), "") for name in RENAMES),
        ("both", definition(ROTATION), "PARTITION BY RANGE (id)"),
        ("both", definition(ROTATION, "vector"), ""),
        ("both", definition(Prefix(), "bit"), ""),
    ],
)
def test_writes_go_on(auto: Connection, renames: str, shortened: Definition, partitions: str) -> None:
    """Under whatever name; the catalogue, the doctor and the repair know the columns by their names of now."""
    before = Target("documents", "embedding", shortened)
    made(auto, before, partitions)
    for statement in RENAMES[renames]:
        run(auto, statement.format(short=before.short))
    [info] = database.columns(auto)
    after = Target(
        info.table_name,
        info.full_column,
        Definition.of(
            DIMS,
            Short(shortened.short.dims, shortened.short.by, shortened.short.type, info.short_column),
            full="vector",
        ),
        info.table_schema,
    )
    written(auto, after.owner, '"{}"'.format(info.full_column.replace('"', '""')), 1000)
    validate(auto, after)
    said = {finding.check: finding.severity for finding in doctor(auto) if finding.check in {"renamed", "sync-trigger"}}
    renamed = (before.full, before.short) != (after.full, after.short)
    assert said == ({"renamed": "warning"} if renamed else {})
    if '"' not in after.full:
        ok("backfill", f"{after.schema}.{after.table}.{after.full}", "--repair")
        assert not {finding.check for finding in doctor(auto)} & {"renamed", "sync-trigger", "sync-function-orphan"}
        written(auto, after.owner, after.full, 2000)
        validate(auto, after)
    for statement in steps.drop_short(after.schema, after.table, after.short):
        run(auto, statement)
    left = r"SELECT count(*) FROM pg_proc WHERE proname LIKE 'zz\_pgmrl\_%'"
    assert run(auto, left).scalar_one() == 0


@pytest.mark.usefixtures("place")
def test_exchanged_columns(auto: Connection) -> None:
    """Another column has the name now: said as critical, by check_schema too, and the remedy mends every row."""
    shortened = definition(ROTATION)
    target = Target("documents", "embedding", shortened)
    made(auto, target)
    run(auto, f"ALTER TABLE documents ADD other vector({DIMS})")
    run(auto, f"UPDATE documents SET other = {VECTOR_SQL.replace('WHERE n = n', 'WHERE id = id')}")
    run(auto, "ALTER TABLE documents RENAME embedding TO was")
    run(auto, "ALTER TABLE documents RENAME other TO embedding")
    written(auto, "documents", "was", 1000)
    model = Table(
        "documents",
        MetaData(),
        Column("id", Integer, primary_key=True),
        Column("was", Matryoshka(DIMS, Short(4, ROTATION, name=target.short), full="vector")),
    )
    with pytest.raises(
        NotMigrated, match=r"columns of documents were renamed.*`pgmrl backfill public\.documents\.was --repair`"
    ):
        check_schema(auto, model.c.was)
    [finding] = [finding for finding in doctor(auto) if finding.check == "renamed"]
    assert (finding.severity, finding.subject) == ("critical", "public.documents.was")
    ok("backfill", "public.documents.was", "--repair")
    check_schema(auto, model.c.was)
    assert not [finding for finding in doctor(auto) if finding.check in {"renamed", "short-differs"}]
    mended = Target("documents", "was", Definition.of(DIMS, Short(4, ROTATION, name=target.short), full="vector"))
    written(auto, "documents", "was", 2000)
    validate(auto, mended)


def test_tables_that_change_places(auto: Connection) -> None:
    """The new table of a name does not take over, nor drop, what keeps the old one that was renamed."""
    old = Target("documents", "embedding", definition(Prefix()))
    made(auto, old)
    run(auto, "ALTER TABLE documents RENAME TO documents_old")
    run(auto, "ALTER INDEX documents_pkey RENAME TO documents_old_pkey")
    run(auto, "ALTER INDEX documents_embedding_short_4_hnsw RENAME TO documents_old_hnsw")
    by_rotation = Definition.of(DIMS, Short(4, ROTATION, name=old.short), full="vector")
    new = Target("documents", "embedding", by_rotation)
    made(auto, new)
    kept = Target("documents_old", "embedding", definition(Prefix()))
    for round_ in range(2):
        written(auto, "documents_old", "embedding", 1000 * (round_ + 1))
        validate(auto, kept)
        if round_ == 0:
            written(auto, "documents", "embedding", 1000)
            validate(auto, new)
            for statement in steps.drop_short(None, "documents", new.short):
                run(auto, statement)


def test_a_column_renamed_during_a_reshape(auto: Connection, engine: Engine) -> None:
    """Two full columns stay the same under their new names, and the reshape comes to its end."""
    made(auto, Target("documents", "embedding", definition(Prefix())))
    with engine.connect() as connection:
        change = reshape(connection, "documents", "embedding", full_type="halfvec")
    assert expand(engine, change, Build())
    run(auto, "ALTER TABLE documents RENAME embedding TO was")
    run(auto, "ALTER TABLE documents RENAME embedding_halfvec TO vec")
    written(auto, "documents", "was", 1000)
    written(auto, "documents", "vec", 2000)
    run(auto, "INSERT INTO documents (id, vec) VALUES (5000, NULL)")
    state = table_state(auto, None, "documents")
    assert state is not None
    assert state.mirrors == (("was", "vec"),)
    same = "SELECT count(*) FROM documents WHERE record_image_ne(ROW(was::halfvec), ROW(vec))"
    assert run(auto, same).scalar_one() == 0
    contract(auto, pending_contraction(auto, "documents", "vec"), watch=0)
    state = table_state(auto, None, "documents")
    assert state is not None
    assert (set(state.columns) & {"was", "vec"}, state.mirrors) == ({"vec"}, ())
    written(auto, "documents", "vec", 3000)


SIDE_RENAMES = {
    "the side table": ("ALTER TABLE documents_embedding RENAME TO vectors",),
    "the vector": ("ALTER TABLE documents RENAME embedding TO vec",),
    "the vector in the side table": ("ALTER TABLE documents_embedding RENAME embedding TO vec",),
    "the key": ("ALTER TABLE documents RENAME id TO number",),
    "the key in the side table": ("ALTER TABLE documents_embedding RENAME id TO number",),
    "the schema": (
        "CREATE SCHEMA shop",
        "ALTER TABLE documents SET SCHEMA shop",
        "ALTER TABLE documents_embedding SET SCHEMA shop",
    ),
    "the side table's schema": ("CREATE SCHEMA shop", "ALTER TABLE documents_embedding SET SCHEMA shop"),
    "the table": ("ALTER TABLE documents RENAME TO papers",),
}


@pytest.mark.parametrize("renames", SIDE_RENAMES.values(), ids=list(SIDE_RENAMES))
def test_a_side_table(auto: Connection, renames: tuple[str, ...]) -> None:
    """What fails every write is found, and the remedy that is printed mends it; nothing else is found."""
    metadata = MetaData()
    table = Table(
        "documents",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("title", Text),
        Column("embedding", VECTOR(DIMS)),
    )
    add_side_table(table.c.embedding, Short(4))
    metadata.create_all(auto)
    check_schema(auto, table.c.embedding)
    for statement in renames:
        run(auto, statement)
    owner, full, key = tuple[Any, ...](
        run(
            auto,
            "SELECT c.oid::regclass::text, max(a.attname) FILTER (WHERE t.typname = 'vector'), "
            "max(a.attname) FILTER (WHERE a.attnum = 1) FROM pg_class AS c "
            "JOIN pg_attribute AS a ON a.attrelid = c.oid JOIN pg_type AS t ON t.oid = a.atttypid "
            "WHERE c.relkind = 'r' AND a.attnum > 0 "
            "AND c.oid IN (SELECT tgrelid FROM pg_trigger WHERE tgname LIKE 'zz%') GROUP BY c.oid",
        ).one()
    )
    write = f"INSERT INTO {owner} ({key}, {full}) SELECT %d + n, {VECTOR_SQL} FROM generate_series(1, 5) AS n"
    broken = "ALTER TABLE documents RENAME TO papers" not in renames
    findings = [finding for finding in doctor(auto) if finding.check == "renamed"]
    assert [finding.severity for finding in findings] == ["critical"] * broken
    if broken:
        with pytest.raises(Exception, match=r"does not exist|has no field"):
            run(auto, write % 0)
        for statement in findings[0].remedy.split("; "):
            run(auto, statement.rstrip(";"))
    run(auto, write % 10)
    run(auto, f"UPDATE {owner} SET {full} = (SELECT {VECTOR_SQL} FROM generate_series(1, 1) AS n)")
    assert not [
        finding
        for finding in doctor(auto)
        if finding.check in {"renamed", "side-table", "sync-trigger", "sync-function-orphan"}
    ]


def test_check_schema_of_a_side_table(auto: Connection) -> None:
    """A trigger that is gone, and one that does not find its side table's columns."""
    metadata = MetaData()
    table = Table("documents", metadata, Column("id", Integer, primary_key=True), Column("embedding", VECTOR(DIMS)))
    add_side_table(table.c.embedding, Short(4))
    metadata.create_all(auto)
    run(auto, "ALTER TABLE documents RENAME id TO number")
    with pytest.raises(
        NotMigrated, match=r"copies documents into public\.documents_embedding fails: documents\.id is no column"
    ):
        check_schema(auto, table.c.embedding)
    run(auto, ddl.drop_side_sync_triggers(None, "documents_embedding", "embedding"))
    with pytest.raises(NotMigrated, match=r"nothing copies documents\.embedding into documents_embedding"):
        check_schema(auto, table.c.embedding)


def test_partitions_that_come_and_go(auto: Connection) -> None:
    """A detached one has lost its triggers, which the doctor says; attached again it has them again."""
    target = Target("documents", "embedding", definition(ROTATION))
    made(auto, target, "PARTITION BY RANGE (id)")
    run(auto, "ALTER TABLE documents DETACH PARTITION documents_0")
    [finding] = [finding for finding in doctor(auto) if finding.check == "unkept-column"]
    assert (finding.values["table"], finding.values["column"]) == ("public.documents_0", target.short)
    written(auto, "documents_0", "embedding", 1000)
    run(auto, "ALTER TABLE documents ATTACH PARTITION documents_0 FOR VALUES FROM (0) TO (100000)")
    checks = {finding.check for finding in doctor(auto)}
    assert "unkept-column" not in checks
    assert "short-missing" in checks
    written(auto, "documents", "embedding", 2000)


def test_a_trigger_that_changes_the_vector_while_the_column_is_added(auto: Connection) -> None:
    """Filled in one statement, the short vector is that of the vector which was stored in the end."""
    shortened = definition(ROTATION)
    with auto.engine.begin() as connection:
        database.install_rotation(connection, ROTATION)
    run(auto, f"CREATE TABLE documents (id int PRIMARY KEY, embedding vector({DIMS}))")
    run(auto, f"INSERT INTO documents SELECT n, {VECTOR_SQL} FROM generate_series(1, 30) AS n")
    run(
        auto,
        "CREATE FUNCTION turned() RETURNS trigger LANGUAGE plpgsql AS "
        "'BEGIN IF NEW.id % 3 = 0 THEN NEW.embedding := -1 * NEW.embedding; END IF; RETURN NEW; END'".replace(
            "-1 * NEW.embedding", "(SELECT array_agg(-x) FROM unnest(NEW.embedding::real[]) AS x)::vector"
        ),
    )
    run(auto, "CREATE TRIGGER turned BEFORE UPDATE ON documents FOR EACH ROW EXECUTE FUNCTION turned()")
    target = Target("documents", "embedding", shortened)
    with auto.engine.begin() as connection:
        for statement in steps.add_in_place(target):
            run(connection, statement)
    validate(auto, target)
