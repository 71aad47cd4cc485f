"""A last stage in Python: a cross-encoder reads question and text together and scores the few rows that are left.

Nogueira and Cho, "Passage re-ranking with BERT" (2019). It sees what no distance between two vectors can, and costs
milliseconds a row: search for some tens of rows, rerank those.
"""

from __future__ import annotations

import importlib
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

import numpy as np
from sqlalchemy.exc import DBAPIError

from pgmrl.errors import EmbedderError, SearchError
from pgmrl.model.argument_types import plain_text
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import positive_integer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["Scored", "rerank"]

_INSTALL: Final = "pip install 'pgmrl[sentence-transformers]'"

T = TypeVar("T")


class Scored(NamedTuple):
    """A row and how well its text answers the question.

    Attributes:
        row: as it was given.
        score: the model's; larger is better, on a scale of the model's own.

    """

    row: Any
    score: float


def rerank(
    rows: Iterable[T],
    question: str,
    model: Any,
    *,
    text: Callable[[T], str],
    k: int | None = None,
    batch_size: int = 32,
) -> list[Scored]:
    """Order rows by a cross-encoder, best first; rows of the same score stay in the order they came in.

        rows = session.execute(search(select(Package), Package.embedding, vector, k=50)).all()
        rerank(rows, "a game with trains", "cross-encoder/ms-marco-MiniLM-L6-v2", text=lambda row: row[0].text, k=10)

    Args:
        rows: what a search returned.
        question: the text that was searched for.
        model: a `sentence_transformers.CrossEncoder` with one score a pair, or the name or folder of one. A name loads
            the model anew in each call: in an application give the loaded model.
        text: the text of a row.
        k: rows to return; all by default.
        batch_size: pairs the model sees at once.

    Raises:
        EmbedderError: sentence-transformers is not installed, the model cannot be loaded, or it does not give one
            finite score a pair.
        SearchError: `k` below 1, a question or a row's text that is no str.

    """
    k = None if k is None else positive_integer("k", k)
    batch_size = positive_integer("batch_size", batch_size)
    if not callable(text):
        raise SearchError(f"text={safe_repr(text)}: expected a function that gives the text of a row")
    if plain_text(question) is None:
        raise SearchError(f"the question: expected str, got {safe_repr(question)}")
    try:
        listed = list(rows)
    except DBAPIError:
        raise
    except Exception as error:  # whatever the value's own __iter__ raises
        raise SearchError(f"rows={safe_repr(rows)}: expected rows, such as session.execute(...) returns") from error
    pairs = [(question, _text(text, row, number)) for number, row in enumerate(listed)]
    scorer = _load(model) if isinstance(model, str | Path) else model
    if not _predicts(scorer):
        raise EmbedderError(f"expected a CrossEncoder or the name of one, got {safe_repr(model)}")
    if not pairs:
        return []
    scores = _scores(scorer, pairs, batch_size)
    order = np.argsort(-scores, kind="stable")[:k]
    return [Scored(listed[number], float(scores[number])) for number in order]


def _predicts(scorer: Any) -> bool:
    try:
        return callable(getattr(scorer, "predict", None))
    except Exception:  # whatever the value's own __getattr__ raises
        return False


def _text(text: Callable[[T], str], row: T, number: int) -> str:
    value: Any = text(row)
    if not isinstance(value, str):
        raise SearchError(f"the text of row {number}: expected text= to give a str, got {safe_repr(value)}")
    return value


def _scores(scorer: Any, pairs: list[tuple[str, str]], batch_size: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    scores = np.asarray(scorer.predict(pairs, batch_size=batch_size, show_progress_bar=False), np.float64)
    if scores.ndim == 2 and scores.shape[1] == 1:
        scores = scores[:, 0]
    if scores.shape != (len(pairs),):
        raise EmbedderError(
            f"the model gives scores of shape {scores.shape} for {len(pairs)} pairs, expected ({len(pairs)},): take a "
            "model with one score a pair (num_labels=1)"
        )
    if not all(map(math.isfinite, scores)):
        raise EmbedderError("the model gives scores that are NaN or infinite: check its files")
    return scores


def _load(model: str | Path) -> Any:
    try:
        library = importlib.import_module("sentence_transformers")
    except ImportError as error:
        raise EmbedderError(
            f"a cross-encoder needs {error.name or 'the library'}: install it with: {_INSTALL}"
        ) from error
    try:
        return library.CrossEncoder(str(model))
    except Exception as error:  # whatever transformers, the hub's client and PyTorch raise
        reason = str(error).strip() or type(error).__name__
        raise EmbedderError(
            f"cannot load the model {safe_repr(str(model))}: {reason}\nCheck its name and the network, or give "
            "the folder of a model that has been downloaded."
        ) from error
