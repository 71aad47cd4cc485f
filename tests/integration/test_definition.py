"""One definition of the short vector: what the database computes is what NumPy computes.

The tolerance is said in units in the last place (ulp) of the stored type:

- prefix: 0 without normalising, at most 1 with it, since a sum of squares in double precision depends on its order;
- rotation: pgvector sums an inner product in single precision, in an order that depends on the processor, so the
  error is a few float32 ulps of the vector's norm, whatever the size of the component.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from psycopg.types.numeric import Int4
from sqlalchemy import text
from sqlalchemy.exc import DataError

from pgmrl import database
from pgmrl.model.binary import encode
from pgmrl.model.metrics import METRICS
from pgmrl.model.parameters import binary_value
from pgmrl.model.shortening import Definition, Prefix, Rotation, Short

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from sqlalchemy import Connection, Engine

    from pgmrl.model.metrics import FullType
    from tests.corpus import Corpus

ROTATION_ULPS = 8  # float32 ulps of the vector's norm; below 3 on x86-64, more where the sum runs in one chain
SHORT = 96


@pytest.fixture(scope="module")
def loaded(module_engine: Engine, rotation: Rotation, corpus: Corpus) -> Iterator[tuple[Connection, Any]]:
    """Tables `v_vector` and `v_halfvec` with real vectors, and ones at the edge of what a type holds."""
    real = corpus.documents[:600]
    scaled = {
        "halfvec": [real * 3e2, real * 1e-3, real * 1e-6, real * 0],  # 1e-6 of a component is subnormal in half
        "vector": [real * 1e30, real * 1e-20, real * 1e-39, real * 0],  # 1e-39 is subnormal in single precision
    }
    with module_engine.connect() as connection:
        database.install_rotation(connection, rotation)
        vectors = {}
        full: FullType
        for full in ("halfvec", "vector"):
            rows = np.concatenate([real, *(extreme[:20] for extreme in scaled[full])]).astype(np.float32)
            vectors[full] = rows
            connection.execute(text(f"CREATE TABLE v_{full} (n int PRIMARY KEY, e {full}(256))"))
            cursor: Any = connection.connection.cursor()
            with cursor.copy(f"COPY v_{full} FROM STDIN (FORMAT BINARY)") as into:
                for n, row in enumerate(rows):
                    into.write_row((Int4(n), binary_value(encode(row, full), full)))
        yield connection, vectors


def by_the_server(connection: Connection, definition: Definition, where: str = "true") -> NDArray[Any]:
    """The short vectors of a table's rows."""
    query = text(f"SELECT ({definition.sql('e')})::text FROM v_{definition.full} WHERE {where} ORDER BY n")
    texts = connection.execute(query).scalars().all()
    if definition.short.type == "bit":
        return np.array([[bit == "1" for bit in row] for row in texts])
    kind = np.float16 if definition.short.type == "halfvec" else np.float32
    return np.array([np.fromstring(row[1:-1], np.float64, sep=",") for row in texts]).astype(kind)


def fits(definition: Definition, vectors: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Rows whose short vector the short type can hold: without normalising 1e30 is no half-precision number."""
    if definition.short.type != "halfvec" or definition.metric.normalise:
        return np.ones(len(vectors), bool)
    return np.asarray(np.linalg.norm(vectors.astype(np.float64), axis=1) < 60_000)


@pytest.mark.parametrize("rule", ["prefix", "rotation"])
@pytest.mark.parametrize("short_type", ["halfvec", "vector", "bit"])
@pytest.mark.parametrize("full", ["halfvec", "vector"])
@pytest.mark.parametrize("metric", METRICS)
def test_sql_and_numpy_agree(
    loaded: tuple[Connection, Any], rotation: Rotation, metric: Any, full: Any, short_type: Any, rule: str
) -> None:
    """Every combination, on real vectors and on huge, tiny, subnormal and zero ones."""
    connection, tables = loaded
    by = rotation if rule == "rotation" else Prefix()
    definition = Definition.of(256, Short(SHORT, by, short_type), metric, full)
    keep = fits(definition, tables[full])
    numbers = ",".join(map(str, np.flatnonzero(keep)))
    there = by_the_server(connection, definition, f"n IN ({numbers})")
    stored = definition.stored(tables[full][keep])
    here = definition.shorten(stored)
    assert here.shape == there.shape
    assert here.dtype == there.dtype
    if rule == "prefix":
        check_prefix(definition, here, there)
    else:
        check_rotation(definition, stored, here, there)


def check_prefix(definition: Definition, here: NDArray[Any], there: NDArray[Any]) -> None:
    """Equal to the bit, or within one unit in the last place where a norm was divided by."""
    if definition.short.type == "bit" or not definition.metric.normalise:
        assert np.array_equal(here, there)
        return
    apart = np.abs(here.astype(np.float64) - there) / np.spacing(np.maximum(np.abs(here), np.abs(there)))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 0.001


def check_rotation(
    definition: Definition, stored: NDArray[np.float32], here: NDArray[Any], there: NDArray[Any]
) -> None:
    """Within a few float32 ulps of the vector's norm, and one ulp of the short type."""
    norms = np.linalg.norm(stored.astype(np.float64), axis=1, keepdims=True)
    exact = stored.astype(np.float64) @ definition.short.by.required_axes()[:SHORT].astype(np.float64).T  # type: ignore[union-attr]
    slack = ROTATION_ULPS * (np.finfo(np.float32).eps * norms + np.finfo(np.float32).smallest_subnormal * 30)
    if definition.short.type == "bit":
        different = here != there
        assert (np.abs(exact)[different] <= np.broadcast_to(slack, exact.shape)[different]).all()
        assert different[:600].mean() < 0.001
        return
    if definition.metric.normalise:
        lengths = np.linalg.norm(exact, axis=1, keepdims=True)
        slack = np.divide(slack, lengths, out=np.zeros_like(slack), where=lengths > 0)
    last_place = np.spacing(np.maximum(np.abs(here), np.abs(there))).astype(np.float64)
    assert (np.abs(here.astype(np.float64) - there) <= slack + last_place).all()


@pytest.mark.parametrize("metric", ["l2", "inner_product"])
@pytest.mark.parametrize("rule", ["prefix", "rotation"])
def test_what_the_short_type_cannot_hold_is_refused_by_the_server(
    loaded: tuple[Connection, Any], rotation: Rotation, metric: Any, rule: str
) -> None:
    """Never cut to infinity in silence: 1e30 in half precision, not normalised, is error 22003."""
    connection, _ = loaded
    by = rotation if rule == "rotation" else Prefix()
    definition = Definition.of(256, Short(SHORT, by), metric, "vector")
    with connection.begin_nested() as savepoint:
        with pytest.raises(DataError, match="out of range"):
            by_the_server(connection, definition, "n = 605")
        savepoint.rollback()


@pytest.mark.parametrize("full", ["halfvec", "vector"])
@pytest.mark.parametrize("rule", ["prefix", "rotation"])
def test_a_zero_vector_stays_zero(loaded: tuple[Connection, Any], rotation: Rotation, full: Any, rule: str) -> None:
    """It is not in a cosine index, but storing it is no error."""
    connection, tables = loaded
    definition = Definition.of(256, Short(SHORT, rotation if rule == "rotation" else Prefix()), full=full)
    last = len(tables[full]) - 1
    assert not tables[full][last].any()
    assert not by_the_server(connection, definition, f"n = {last}").any()
    assert not definition.shorten(tables[full][last]).any()


@pytest.mark.parametrize("full", ["halfvec", "vector"])
def test_a_vector_of_other_dimensions_is_refused(loaded: tuple[Connection, Any], full: Any) -> None:
    """A function that clamps in silence, subvector, is caught by the short type's dimensions."""
    connection, _ = loaded
    definition = Definition.of(256, Short(SHORT), full=full)
    with connection.begin_nested() as savepoint:
        with pytest.raises(DataError, match="expected 96 dimensions, not 3"):
            connection.execute(text("SELECT " + definition.sql(f"'[1,2,3]'::{full}")))
        savepoint.rollback()


def test_the_hash_of_the_axes_is_the_same_in_sql(loaded: tuple[Connection, Any], rotation: Rotation) -> None:
    """What seals a rotation in the database is what names it in Python."""
    connection, _ = loaded
    assert connection.execute(text("SELECT pgmrl.rotation_id_v1(:id)"), {"id": rotation.id}).scalar_one() == rotation.id
    assert database.installed_rotation(connection, str(rotation.id)) == rotation


@pytest.mark.parametrize("value", [6e-8, -6e-8, 0.0, -0.0, 65504.0, 1 / 3])
def test_axes_survive_the_way_to_the_server(engine: Engine, value: float) -> None:
    """Subnormal and largest half-precision numbers, a negative zero: the hash is of their bits."""
    rotation = Rotation.of(np.array([[value, 1.0, 0.5]]))
    with engine.begin() as connection:
        assert database.install_rotation(connection, rotation)
        assert database.installed_rotation(connection, str(rotation.id)).id == rotation.id
        assert not database.install_rotation(connection, rotation)
