"""The definition of the short vector: its SQL text, its names, its limits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pgmrl.errors import DefinitionError, PgmrlError, RotationError
from pgmrl.model.ddl import default_storage
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short

PINNED = Rotation("r0123456789ab")


@pytest.mark.parametrize(
    ("short", "metric", "expected"),
    [
        (Short(64), "cosine", "l2_normalize(subvector(e, 1, 64))::halfvec(64)"),
        (Short(64, type="vector"), "cosine", "l2_normalize(subvector(e, 1, 64))::vector(64)"),
        (Short(64), "l2", "subvector(e, 1, 64)::halfvec(64)"),
        (Short(64), "inner_product", "subvector(e, 1, 64)::halfvec(64)"),
        (Short(64, type="bit"), "cosine", "binary_quantize(subvector(e, 1, 64))::bit(64)"),
        (Short(64, PINNED), "cosine", "l2_normalize(pgmrl.rotate_v1(e, 'r0123456789ab', 64))::halfvec(64)"),
        (Short(64, PINNED), "l2", "pgmrl.rotate_v1(e, 'r0123456789ab', 64)::halfvec(64)"),
        (Short(64, PINNED, "bit"), "l2", "binary_quantize(pgmrl.rotate_v1(e, 'r0123456789ab', 64))::bit(64)"),
    ],
)
def test_the_short_vector_as_sql(short: Short, metric: Any, expected: str) -> None:
    """Normalised only under cosine, before the cast, with literals: a bound parameter would hide the index."""
    assert Definition.of(768, short, metric).sql("e") == expected


def test_pgvectors_schema_qualifies_every_name() -> None:
    """Where pgvector is not on the search_path."""
    definition = Definition.of(768, Short(64), vector_schema="My Ext")
    assert definition.sql("e") == ('"My Ext".l2_normalize("My Ext".subvector(e, 1, 64))::"My Ext".halfvec(64)')
    assert definition.full_operator == 'OPERATOR("My Ext".<=>)'
    assert definition.operator_class == '"My Ext".halfvec_cosine_ops'
    assert definition.full_type == '"My Ext".halfvec(768)'


def test_bit_is_postgresqls_own_type() -> None:
    """It lives in pg_catalog; its operator class does not."""
    definition = Definition.of(768, Short(64, type="bit"), vector_schema="ext")
    assert definition.short_type == "bit(64)"
    assert definition.operator_class == "ext.bit_hamming_ops"
    assert definition.short_operator == "OPERATOR(ext.<~>)"


@pytest.mark.parametrize(
    ("short", "expected"),
    [
        (Short(128), "embedding_short_128"),
        (Short(128, type="vector"), "embedding_short_128_vector"),
        (Short(768, type="bit"), "embedding_short_768_bit"),
        (Short(128, PINNED), "embedding_r0123456789ab_128"),
        (Short(128, name="mine"), "mine"),
    ],
)
def test_a_short_column_is_named_by_what_it_holds(short: Short, expected: str) -> None:
    """Another rule, type or size is another column beside it."""
    assert Definition.of(768, short).short_name("embedding") == expected


def test_two_long_columns_have_two_short_ones() -> None:
    """63 bytes, and no collision."""
    definition = Definition.of(768, Short(128))
    names = {definition.short_name("e" * 62 + end) for end in "ab"}
    assert len(names) == 2
    assert all(len(name.encode()) <= 63 for name in names)


@pytest.mark.parametrize(
    ("dims", "short", "options", "message"),
    [
        (0, Short(1), {}, "0 dimensions"),
        (16_001, Short(64), {}, "1 to 16,000"),
        (64, Short(65), {}, "65 short dimensions: expected 1 to 64"),
        (64, Short(0), {}, "expected 1 to 64"),
        (64, Short(-1), {}, "expected 1 to 64"),
        (8_000, Short(4_001), {}, "expected at most 4,000, what HNSW takes of `halfvec`"),
        (8_000, Short(2_001, type="vector"), {}, "expected at most 2,000, what HNSW takes of `vector`"),
        (64, Short(8), {"metric": "manhattan"}, "metric='manhattan': expected one of"),
        (64, Short(8), {"full": "sparsevec"}, "full='sparsevec': expected one of halfvec, vector"),
    ],
)
def test_what_cannot_work_is_refused(dims: int, short: Short, options: dict[str, Any], message: str) -> None:
    """With the number that was given and the one that would do."""
    with pytest.raises(DefinitionError, match=message):
        Definition.of(dims, short, **options)


def test_no_such_short_vector() -> None:
    """Refused by itself, before there is a definition."""
    with pytest.raises(DefinitionError, match="type='sparsevec': expected one of halfvec, vector, bit"):
        Short(8, type="sparsevec")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dims", "short"),
    [
        (1, Short(1)),
        (64, Short(64)),
        (16_000, Short(4_000)),
        (16_000, Short(2_000, type="vector")),
        (16_000, Short(16_000, type="bit")),
    ],
)
def test_the_limits_themselves_are_allowed(dims: int, short: Short) -> None:
    """Off by one would cost somebody their model."""
    assert Definition.of(dims, short).dims == dims


def test_axes_of_other_dimensions_are_refused() -> None:
    """A rotation belongs to one model."""
    rotation = Rotation.of(np.eye(4, 8))
    with pytest.raises(RotationError, match="for 8 dimensions, expected 16"):
        Definition.of(16, Short(4, rotation))
    with pytest.raises(RotationError, match="has 4 axes, expected at least 5"):
        Definition.of(8, Short(5, rotation))
    assert Definition.of(8, Short(4, rotation)).learned


def test_an_unlearned_rotation_has_no_expression() -> None:
    """A column of it can be declared; a short vector cannot exist."""
    definition = Definition.of(8, Short(4, Rotation()))
    assert not definition.learned
    with pytest.raises(RotationError, match="pgmrl fit-rotation"):
        definition.sql("e")
    with pytest.raises(RotationError):
        definition.shorten(np.ones(8))


def test_a_pinned_rotation_cannot_shorten_here() -> None:
    """Only the server holds its axes."""
    with pytest.raises(RotationError, match=r"Rotation\.load"):
        Definition.of(8, Short(4, PINNED)).shorten(np.ones(8))


@pytest.mark.parametrize("metric", METRICS)
def test_only_cosine_normalises(metric: Any) -> None:
    """Norms carry information under the other two."""
    definition = Definition.of(4, Short(2, type="vector"), metric, "vector")
    expected = [0.6, 0.8] if metric == "cosine" else [3, 4]
    assert definition.shorten(np.array([3.0, 4.0, 5.0, 6.0])) == pytest.approx(expected)


def test_shapes_and_types_of_short_vectors() -> None:
    """One or many, in the type the column stores."""
    many = np.arange(1.0, 13.0).reshape(3, 4)
    assert Definition.of(4, Short(2)).shorten(many).dtype == np.float16
    assert Definition.of(4, Short(2, type="vector")).shorten(many).shape == (3, 2)
    bits = Definition.of(4, Short(3, type="bit")).shorten(np.array([1.0, 0.0, -1.0, 9.0]))
    assert bits.tolist() == [True, False, False]


@pytest.mark.parametrize("options", [{"m": 1}, {"m": 101}, {"m": 16, "ef_construction": 31}, {"ef_construction": 1001}])
def test_build_parameters_pgvector_refuses(options: dict[str, Any]) -> None:
    """Said at the declaration, not by a migration in production."""
    with pytest.raises(PgmrlError, match=r"expected .* pgvector takes"):
        Hnsw(**options)


@pytest.mark.parametrize(
    ("dims", "full", "expected"),
    [
        (768, "halfvec", "main"),
        (3_750, "halfvec", "main"),
        (3_751, "halfvec", "external"),
        (1_875, "vector", "main"),
        (1_876, "vector", "external"),
    ],
)
def test_vectors_are_inline_while_they_fit_a_page(dims: int, full: Any, expected: str) -> None:
    """By bytes, so that half precision has twice the dimensions."""
    assert default_storage(Definition.of(dims, Short(8, Prefix()), full=full)) == expected
