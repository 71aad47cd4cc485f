"""Arguments of the last stage, and what is said where its library is missing."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from pgmrl.errors import EmbedderError, SearchError
from pgmrl.searching.rerank import rerank


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(EmbedderError, match=r"pip install 'pgmrl\[sentence-transformers\]'"):
        rerank([("a",)], "question", "cross-encoder/any", text=lambda row: row[0])


@pytest.mark.parametrize("k", [0, -1, True, 2.5, "3"])
def test_a_number_of_rows_that_makes_no_sense(k: Any) -> None:
    """Named, before a model is loaded."""
    with pytest.raises(SearchError, match="k="):
        rerank([("a",)], "question", "no/model", text=lambda row: row[0], k=k)


def test_what_is_no_text() -> None:
    """The question, or what a row gives."""
    with pytest.raises(SearchError, match="the question: expected str, got None"):
        rerank([("a",)], None, "no/model", text=lambda row: row[0])  # type: ignore[arg-type]
    with pytest.raises(SearchError, match="the text of row 1: expected text= to give a str, got None"):
        rerank([("a",), (None,)], "question", "no/model", text=lambda row: row[0])  # type: ignore[arg-type,return-value]


def test_what_is_no_model() -> None:
    """Anything without `predict`."""
    with pytest.raises(EmbedderError, match="expected a CrossEncoder or the name of one, got 3"):
        rerank([("a",)], "question", 3, text=lambda row: row[0])
