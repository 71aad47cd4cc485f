"""`check`: the model against the database."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, text

from pgmrl import database
from pgmrl.database.check_schema import check_schema
from pgmrl.errors import DefinitionError, NotMigrated, PgvectorMissing, PgvectorVersionWarning
from pgmrl.model.columns import Matryoshka
from pgmrl.model.rotation import Rotation
from pgmrl.model.shortening import Prefix, Short

if TYPE_CHECKING:
    from sqlalchemy import Engine

AXES = np.linalg.qr(np.random.default_rng(1).normal(size=(32, 16)))[0].T

OTHER_CLASS = """
DROP INDEX documents_embedding_short_8_hnsw;
CREATE INDEX other ON documents USING hnsw (embedding_short_8 halfvec_l2_ops)
"""


def _table(by: Prefix | Rotation | None = None, dims: int = 32) -> Table:
    short = Short(8, by=by or Prefix())
    return Table(
        "documents", MetaData(), Column("id", Integer, primary_key=True), Column("embedding", Matryoshka(dims, short))
    )


@pytest.mark.parametrize("by", [Prefix(), Rotation.of(AXES)], ids=["prefix", "rotation"])
def test_a_migrated_column_passes(engine: Engine, by: Prefix | Rotation) -> None:
    """What create_all made is what the model says."""
    table = _table(by)
    with engine.begin() as connection:
        if isinstance(by, Rotation):
            database.install_rotation(connection, by)
        table.create(connection)
        info = check_schema(connection, table.c.embedding)
    assert info is not None
    assert info.index_valid
    assert info.short_dims == 8


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("DROP TABLE documents", "no table documents"),
        ("ALTER TABLE documents RENAME embedding TO other", "no column embedding"),
        ("ALTER TABLE documents DROP COLUMN embedding_short_8", "no column embedding_short_8"),
        ("DROP INDEX documents_embedding_short_8_hnsw", "no HNSW index"),
        ("UPDATE pg_index SET indisvalid = false WHERE indexrelid::regclass::text LIKE '%hnsw'", "invalid"),
        (OTHER_CLASS, "halfvec_l2_ops"),
        ("ALTER TABLE documents ALTER embedding_short_8 DROP EXPRESSION", "nothing keeps"),
    ],
)
def test_a_difference_is_named(engine: Engine, change: str, named: str) -> None:
    """Each thing that can be missing is one NotMigrated that names it."""
    table = _table()
    with engine.begin() as connection:
        table.create(connection)
        connection.execute(text(change))
        with pytest.raises(NotMigrated, match=named):
            check_schema(connection, table.c.embedding)


def test_other_dimensions_and_another_rotation_are_named(engine: Engine) -> None:
    """A model that went ahead of its migrations is told what the database has."""
    rotation = Rotation.of(AXES)
    with engine.begin() as connection:
        database.install_rotation(connection, rotation)
        _table(rotation).create(connection)
        with pytest.raises(NotMigrated, match=r"expected halfvec\(64\) \(the model\), got halfvec\(32\)"):
            check_schema(connection, _table(dims=64).c.embedding)
        other = _table(Rotation.of(AXES[:12]))
        with pytest.raises(NotMigrated, match="no column"):
            check_schema(connection, other.c.embedding)


def test_what_is_not_ours_is_refused(engine: Engine) -> None:
    """A column that is not a Matryoshka column, and a database without pgvector."""
    table = _table()
    with engine.begin() as connection:
        with pytest.raises(DefinitionError, match="not a Matryoshka column"):
            check_schema(connection, table.c.id)
        connection.execute(text("DROP SCHEMA pgmrl CASCADE"))
        connection.execute(text("DROP EXTENSION vector"))
        with pytest.raises(PgvectorMissing, match="CREATE EXTENSION vector"):
            check_schema(connection, table.c.embedding)


@pytest.mark.parametrize("version", ["0.7.4", "0.5.0"])
def test_pgvector_without_iterative_scans_is_refused(engine: Engine, version: str) -> None:
    """The version is the catalogue's, set back here: an older library is not at hand."""
    with engine.begin() as connection:
        connection.execute(text("UPDATE pg_extension SET extversion = :v WHERE extname = 'vector'"), {"v": version})
        with pytest.raises(PgvectorMissing, match=rf"expected 0\.8\.0 or later, got {version}: .*ALTER EXTENSION"):
            database.check_pgvector(connection)


@pytest.mark.parametrize(("version", "warns"), [("0.8.0", True), ("0.8.3", True), ("0.8.4", False), ("0.10.0", False)])
def test_pgvector_with_vacuum_defects_is_warned_of(engine: Engine, version: str, warns: bool) -> None:
    """Versions are compared as numbers: 0.10 comes after 0.8."""
    with engine.begin() as connection, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        connection.execute(text("UPDATE pg_extension SET extversion = :v WHERE extname = 'vector'"), {"v": version})
        assert database.check_pgvector(connection) == "public"
    assert [warning.category for warning in caught] == ([PgvectorVersionWarning] if warns else [])
