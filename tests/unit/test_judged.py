"""Files of queries and judgements: what is read, and what is refused with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgmrl.errors import MeasureError, VectorError
from pgmrl.evaluation import Judged, Query, beir_judgements, file_judgements

QUERIES = "1\ttrains\n2\tdatabase server\n"
QRELS = "1 0 simutrans 2\n1 0 nginx 0\n2 0 postgresql 1\n"


def judged(folder: Path, queries: str = QUERIES, qrels: str = QRELS, vectors: Any = None) -> Judged:
    """What is read of two files with these texts."""
    (folder / "queries").write_text(queries, encoding="utf-8")
    (folder / "qrels").write_text(qrels, encoding="utf-8")
    if vectors is not None:
        np.save(folder / "vectors.npy", vectors)
    return file_judgements(folder / "queries", folder / "qrels", None if vectors is None else folder / "vectors.npy")


def test_trec_files(tmp_path: Path) -> None:
    """Topics between tabs, and qrels of four fields between any blanks, also with negative grades."""
    found = judged(tmp_path, qrels=QRELS + "\n2\t0\tnginx\t-2\n2 Q0 postgresql 1\n")
    assert [tuple(one) for one in found.queries] == [("1", "trains", None), ("2", "database server", None)]
    assert found.relevance == {"1": {"simutrans": 2, "nginx": 0}, "2": {"postgresql": 1, "nginx": -2}}


def test_json_lines_with_texts_and_vectors(tmp_path: Path) -> None:
    """Ids may be numbers; a text or a vector is enough."""
    lines = [{"_id": "a", "text": "x"}, {"id": 2, "vector": [1, 2]}, {"qid": "c", "text": "z", "vector": [3, 4]}]
    found = judged(tmp_path, "\n".join(map(json.dumps, lines)), "a 0 d 1\n2 0 d 1\n")
    assert [tuple(one) for one in found.queries] == [("a", "x", None), ("2", None, [1, 2]), ("c", "z", [3, 4])]


def test_vectors_of_an_array(tmp_path: Path) -> None:
    """Row n belongs to the n-th query."""
    found = judged(tmp_path, vectors=np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert [list(one.vector) for one in found.queries] == [[1, 2], [3, 4]]
    with pytest.raises(MeasureError, match="3 vectors for 2 queries"):
        judged(tmp_path, vectors=np.ones((3, 2)))
    with pytest.raises(VectorError, match="1 dimensions: expected an array of shape"):
        judged(tmp_path, vectors=np.ones(2))


def test_a_beir_folder(tmp_path: Path) -> None:
    """The header is no judgement, names may hold blanks, and queries of other splits are left out."""
    (tmp_path / "qrels").mkdir()
    lines = [{"_id": f"q{n}", "text": f"text {n}", "metadata": {}} for n in range(3)]
    (tmp_path / "queries.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (tmp_path / "qrels" / "test.tsv").write_text(
        "query-id\tcorpus-id\tscore\nq0\tdoc a\t1\nq2\tdoc b\t2\n", encoding="utf-8"
    )
    found = beir_judgements(tmp_path)
    assert [one.id for one in found.queries] == ["q0", "q2"]
    assert found.relevance == {"q0": {"doc a": 1}, "q2": {"doc b": 2}}
    with pytest.raises(MeasureError, match=r"dev\.tsv cannot be read: No such file"):
        beir_judgements(tmp_path, "dev")


@pytest.mark.parametrize(
    ("queries", "qrels", "message"),
    [
        ("", QRELS, "queries is empty: there are no queries"),
        ("\n \n", QRELS, "queries is empty: there are no queries"),
        (QUERIES, "", "qrels is empty: there are no judgements"),
        ("1\ttrains\ntrains\n", QRELS, r"queries, line 2 is neither `id<TAB>text` nor a JSON object: 'trains'"),
        ("1\ttrains\n2\t \n", QRELS, "queries, line 2 is neither"),
        ("1\ttrains\n1\tcars\n", QRELS, "line 2: there was a query '1' before"),
        ('{"_id": "1", "text": "a"}\n{"_id":', QRELS, "line 2 is no JSON"),
        ('{"text": "a"}', QRELS, "line 1 is no object with `_id`"),
        ('{"_id": "1"}', QRELS, "line 1: query '1' has neither a `text` nor a `vector`"),
        ("<top>\n<num> Number: 1\n", QRELS, "line 1: topics in TREC's markup are not read"),
        (QUERIES, "1 0 a 1\n1 0 b\n", "qrels, line 2 is neither TREC's"),
        (QUERIES, "1,0,a,1\n", "qrels, line 1 is neither TREC's"),
        (QUERIES, "1 0 a 1\n1\tb\t1\n", "qrels, line 2 is neither TREC's"),
        (QUERIES, "1\ta\t1\n1 0 b 1\n", "qrels, line 2 is neither TREC's"),
        (QUERIES, "1 0 a 1\n1 0 b 0.5\n", "line 2: relevance '0.5' is no whole number"),
        (QUERIES, "1 0 a yes\n", "line 1: relevance 'yes' is no whole number"),
        (QUERIES, "1 0 a 4294967296\n", "line 1: relevance 4294967296 is no grade"),
        (
            QUERIES,
            "1 0 a 1\n1 0 b 1\n\n1 0 a 0\n",
            "line 4: document 'a' has relevance 0 for query '1', line 1 says 1: keep one",
        ),
        (QUERIES, "7 0 a 1\n", "no query is judged: the queries are '1', '2', the judgements are for '7'"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path: Path, queries: str, qrels: str, message: str) -> None:
    """One error, before anything is searched."""
    with pytest.raises(MeasureError, match=message):
        judged(tmp_path, queries, qrels)


def test_files_that_are_none(tmp_path: Path) -> None:
    """Missing, a folder, no text."""
    judged(tmp_path)
    with pytest.raises(MeasureError, match="nowhere cannot be read: No such file"):
        file_judgements(tmp_path / "nowhere", tmp_path / "qrels")
    with pytest.raises(MeasureError, match="cannot be read: Is a directory"):
        file_judgements(tmp_path / "queries", tmp_path)
    (tmp_path / "latin").write_bytes("1\tbüro\n".encode("latin-1"))
    with pytest.raises(MeasureError, match="latin is not UTF-8"):
        file_judgements(tmp_path / "latin", tmp_path / "qrels")
    with pytest.raises(MeasureError, match=r"gone\.npy cannot be read"):
        file_judgements(tmp_path / "queries", tmp_path / "qrels", tmp_path / "gone.npy")


def test_judgements_made_in_python() -> None:
    """Are held to the same."""
    with pytest.raises(MeasureError, match="two queries have the id 'a'"):
        Judged([Query("a", "x"), Query("a", "y")], {"a": {"d": 1}})
    with pytest.raises(MeasureError, match="there are no queries"):
        Judged([], {"a": {"d": 1}})
    with pytest.raises(MeasureError, match="there are no judgements"):
        Judged([Query("a", "x")], {})
