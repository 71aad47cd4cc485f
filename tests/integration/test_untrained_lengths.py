"""A short vector of a length that the model was not trained for is named where it is installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Column, Engine, Integer, MetaData, Table, Text

from pgmrl import Embed, Matryoshka, Short
from pgmrl.embedding_queue import embedding_status, untrained_truncations
from pgmrl.errors import UntrainedTruncationWarning
from tests.cli import run

if TYPE_CHECKING:
    from pathlib import Path

NOMIC = "sentence-transformers:nomic-ai/nomic-embed-text-v1.5"


def make(engine: Engine, dims: int, embed: Embed | None = None) -> None:
    """A table with short vectors of this length."""
    full = Matryoshka(768, Short(dims), embed=embed)
    Table(
        f"docs_{dims}", MetaData(), Column("id", Integer, primary_key=True), Column("body", Text), Column("e", full)
    ).create(engine)


def test_it_is_found(engine: Engine) -> None:
    """A trained length is none."""
    with pytest.warns(UntrainedTruncationWarning, match="not to 100"):
        make(engine, 100, Embed("body", NOMIC))
    make(engine, 128, Embed("body", NOMIC))
    with engine.connect() as connection:
        assert [(short.table_name, short.dims) for short in untrained_truncations(connection)] == [("docs_100", 100)]


@pytest.mark.usefixtures("place")
def test_installing_says_so(place: Path, engine: Engine) -> None:
    """On standard error, beside what was done."""
    assert place.is_dir()
    make(engine, 96)
    result = run("embed", "docs_96.e", "--install", "--text", "body", "--by", NOMIC)
    assert result.exit_code == 0
    assert "0 rows marked" in result.stdout
    assert "was trained for truncation to 64, 128, 256, 512, 768 dimensions, not to 96" in result.stderr


def test_the_command_of_its_workers(engine: Engine) -> None:
    """Of a column, and of chunks."""
    make(engine, 128, Embed("body", NOMIC))
    with engine.connect() as connection:
        (status,) = embedding_status(connection)
    assert status.worker == "pgmrl embed public.docs_128.e"
