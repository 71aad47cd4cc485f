"""Names that are too long, and names that need quotes."""

from __future__ import annotations

import pytest

from pgmrl.model.ddl import sync_trigger_name
from pgmrl.model.hnsw import Hnsw
from pgmrl.names import identifier, literal, qualified, quoted


@pytest.mark.parametrize("name", ["a", "packages_embedding_short_128", "x" * 63, "ü" * 31])
def test_a_name_that_fits_is_kept(name: str) -> None:
    """63 bytes are PostgreSQL's limit, and bytes are counted, not characters."""
    assert identifier(name) == name


@pytest.mark.parametrize("name", ["x" * 64, "ü" * 32, "表" * 22, "x" * 5000])
def test_a_name_that_is_too_long_is_cut_to_valid_text_of_63_bytes(name: str) -> None:
    """A cut in the middle of a character would not be UTF-8."""
    cut = identifier(name)
    assert 55 <= len(cut.encode()) <= 63
    assert cut.startswith(name[:10])


def test_two_long_names_with_one_beginning_stay_two() -> None:
    """The server would cut both to the same."""
    assert identifier("x" * 80 + "a") != identifier("x" * 80 + "b")


def test_a_cut_name_is_the_same_on_every_machine() -> None:
    """A migration written on one finds what it made on another: no hash seed, no counter."""
    assert identifier("x" * 64) == "x" * 54 + "_7ce10097"


def test_the_second_triggers_name_fits_too() -> None:
    """A sync trigger's name leaves room for `_u`, so that the server cuts neither."""
    name = sync_trigger_name("t" * 63, "c" * 63)
    assert len(f"{name}_u".encode()) <= 63
    assert name.startswith("zz_pgmrl_")


def test_an_index_name_fits() -> None:
    """Made of table and column, each of which may have 63 bytes alone."""
    assert len(Hnsw().index_name("t" * 63, "c" * 63).encode()) <= 63


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("plain", "plain"),
        ("Mixed", '"Mixed"'),
        ("order", '"order"'),
        ('a"b', '"a""b"'),
        ("a.b", '"a.b"'),
        ("100%", '"100%"'),
        ("100%%", '"100%%"'),
        ("a b", '"a b"'),
        ("$x", '"$x"'),
        (":x", '":x"'),
        ("größe", '"größe"'),
    ],
)
def test_a_name_is_quoted_where_it_needs_it(name: str, expected: str) -> None:
    """As plain SQL text: a percent sign stays one."""
    assert quoted(name) == expected


def test_a_qualified_name_quotes_each_part() -> None:
    """A dot inside a part is no separator."""
    assert qualified("my.schema", "t") == '"my.schema".t'
    assert qualified(None, "T") == '"T"'


@pytest.mark.parametrize(
    ("value", "expected"), [("a", "'a'"), ("it's", "'it''s'"), ("a\\b", "E'a\\\\b'"), ("\\'", "E'\\\\'''")]
)
def test_a_literal_is_safe_with_quotes_and_backslashes(value: str, expected: str) -> None:
    """Under either setting of standard_conforming_strings."""
    assert literal(value) == expected
