"""Each metric's operator, operator classes and distances."""

from __future__ import annotations

import numpy as np
import pytest

from pgmrl.errors import DefinitionError
from pgmrl.model.metrics import METRICS, ONE, metric_named


@pytest.mark.parametrize(
    ("name", "operator", "vector_ops", "halfvec_ops", "normalise"),
    [
        ("cosine", "<=>", "vector_cosine_ops", "halfvec_cosine_ops", True),
        ("l2", "<->", "vector_l2_ops", "halfvec_l2_ops", False),
        ("inner_product", "<#>", "vector_ip_ops", "halfvec_ip_ops", False),
    ],
)
def test_each_metric_has_pgvectors_operator_and_classes(
    name: str, operator: str, vector_ops: str, halfvec_ops: str, normalise: bool
) -> None:
    """The names are those pgvector installs; only cosine scales a short vector back to unit length."""
    metric = metric_named(name)
    assert (metric.operator, metric.normalise) == (operator, normalise)
    assert metric.operator_class("vector") == vector_ops
    assert metric.operator_class("halfvec") == halfvec_ops
    assert metric.operator_for("halfvec") == metric.operator_for("vector") == operator


@pytest.mark.parametrize("name", METRICS)
def test_bits_are_ordered_by_hamming_distance_whatever_the_metric(name: str) -> None:
    """Signs have no other distance."""
    metric = metric_named(name)
    assert metric.operator_for("bit") == "<~>"
    assert metric.operator_class("bit") == "bit_hamming_ops"


def test_a_metric_is_its_own_name() -> None:
    """Code that holds a Metric may pass it where a name is taken."""
    assert metric_named(METRICS["l2"]) is METRICS["l2"]


@pytest.mark.parametrize("name", ["euclidean", "", "Cosine", "ip"])
def test_an_unknown_metric_names_the_known_ones(name: str) -> None:
    """The error says what to write instead."""
    with pytest.raises(DefinitionError, match="cosine, l2, inner_product"):
        metric_named(name)


def test_distances_are_the_textbook_ones() -> None:
    """Three vectors whose distances can be worked out by hand."""
    vectors, query = np.array([[3.0, 4.0], [0.0, 2.0], [-1.0, 0.0]]), np.array([1.0, 0.0])
    assert METRICS["l2"].distances(vectors, query) == pytest.approx([np.sqrt(20.0), np.sqrt(5.0), 2.0])
    assert METRICS["inner_product"].distances(vectors, query) == pytest.approx([-3.0, 0.0, 1.0])
    assert METRICS["cosine"].distances(vectors, query) == pytest.approx([0.4, 1.0, 2.0])


@pytest.mark.parametrize(
    ("name", "text", "values"),
    [
        ("cosine", f"({ONE} - d)", [1.0, 0.5, -1.0]),
        ("inner_product", "(- d)", [0.0, -0.5, -2.0]),
        ("l2", f"({ONE} / ({ONE} + d))", [1.0, 2 / 3, 1 / 3]),
    ],
)
def test_similarity_is_in_the_metrics_own_terms(name: str, text: str, values: list[float]) -> None:
    """The cosine, the product, and for L2 what falls from 1 towards 0; as SQL and as NumPy."""
    assert metric_named(name).similarity_sql("d") == text
    distances = np.array([0.0, 0.5, 2.0])
    assert metric_named(name).similarity(distances) == pytest.approx(values)
    assert eval(text.replace(ONE, "1"), {"d": distances}) == pytest.approx(values)  # noqa: S307 - the text means the same in Python


def test_a_zero_vector_has_no_cosine_distance() -> None:
    """NaN, as the server answers, and without a warning."""
    found = METRICS["cosine"].distances(np.array([[0.0, 0.0], [1.0, 0.0]]), np.array([1.0, 0.0]))
    assert np.isnan(found[0])
    assert found[1] == 0


def test_distances_are_computed_in_double_precision() -> None:
    """Squares of 1e30 do not fit single precision."""
    vectors = np.array([[1e30, 0.0]], np.float32)
    assert np.isfinite(METRICS["l2"].distances(vectors, np.zeros(2, np.float32))).all()
    assert METRICS["cosine"].distances(vectors, vectors[0]) == pytest.approx([0.0])
