"""examples/spark_load.py on Spark's local mode, where Spark and Java are installed (`nox -s spark`)."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import Engine, text

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="module")
def spark() -> Iterator[Any]:
    """Spark in this process, with two workers."""
    if importlib.util.find_spec("pyspark") is None:
        pytest.skip("pyspark is not installed")
    if shutil.which("java") is None:
        pytest.skip("Java is not installed")
    from pyspark.sql import SparkSession  # noqa: PLC0415

    patch = pytest.MonkeyPatch()
    patch.setenv("PYSPARK_PYTHON", sys.executable)
    patch.setenv("PYTHONPATH", str(ROOT))
    patch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
    builder: Any = SparkSession.builder
    session = builder.master("local[2]").config("spark.ui.enabled", "false").appName("tests").getOrCreate()
    yield session
    session.stop()
    patch.undo()


@pytest.fixture
def example() -> Iterator[Any]:
    """The example as a module that executors can import."""
    sys.path.insert(0, str(ROOT / "examples"))
    import spark_load  # noqa: PLC0415

    yield spark_load
    sys.path.remove(str(ROOT / "examples"))


@pytest.mark.filterwarnings("default")  # Spark's own
def test_every_row_once_however_often(spark: Any, example: Any, engine: Engine) -> None:
    """A second run writes nothing; a changed text is embedded again; what a failed run left is gone on with."""
    spark.sparkContext.addPyFile(str(ROOT / "examples" / "spark_load.py"))
    url = engine.url.render_as_string(hide_password=False)
    texts = [(number, f"text number {number}") for number in range(400)]
    frame = spark.createDataFrame([*texts, (400, " ")], "id long, text string").repartition(2)
    assert example.load(frame, url, "docs") == (401, 0)
    assert example.load(frame, url, "docs") == (0, 401)
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM docs WHERE id % 3 = 0"))  # what a failed run had not come to
        left = connection.execute(text("SELECT count(*) FROM docs")).scalar_one()
    changed = spark.createDataFrame(
        [(1, "another text"), *((n, f"text number {n}") for n in range(2, 401))], "id long, text string"
    )
    assert example.load(changed, url, "docs") == (400 - (left - 2), left - 2)
    model = example.load_embedder("static")
    with engine.connect() as connection:
        rows = connection.execute(
            text("SELECT id, text, CAST(embedding AS vector)::float4[] AS v FROM docs ORDER BY id")
        ).all()
        assert [row.id for row in rows] == list(range(1, 401))
        expected = model.embed_documents([row.text for row in rows])
        for row, vector in zip(rows, expected, strict=True):
            assert row.v == pytest.approx(vector.tolist(), abs=1e-3)
        valid = connection.execute(text("SELECT indisvalid FROM pg_index WHERE indrelid = 'docs'::regclass")).scalars()
        assert list(valid) == [True, True]
