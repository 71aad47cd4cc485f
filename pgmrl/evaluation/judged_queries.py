"""The queries of an evaluation: judged, with vectors, and of documents that the table has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from pgmrl.embedders import check_vectors
from pgmrl.errors import MeasureError, VectorError
from pgmrl.evaluation.judged import some
from pgmrl.limits import TEXT_LIMIT
from pgmrl.measure.queries import searchable
from pgmrl.model.columns import attachment_of, base_column
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from pgmrl.embedders import Embedder
    from pgmrl.evaluation.judged import Judged, Query

__all__ = ["JudgedQueries"]

EMBED: Final = 256  # texts embedded at a time


@dataclass(slots=True)
class JudgedQueries:
    """Queries that can be scored.

    Attributes:
        queries: each judged and with a vector.
        vectors: shape (queries, dims).
        relevance: of these queries.
        notes: for the reader.

    """

    queries: list[Query]
    vectors: NDArray[np.float32]
    relevance: dict[str, Mapping[str, int]]
    notes: list[str]

    @classmethod
    def of(
        cls,
        judged: Judged,
        column: Any,
        embedder: Embedder | None,
        words: bool,
        limit: int | None,
        seconds: float | None,
        seed: int,
        report: Callable[[str, int, int], None],
    ) -> JudgedQueries:
        """Of judged queries.

        Args:
            judged: queries and judgements.
            column: the Matryoshka column.
            embedder: for texts without a vector.
            words: whether texts will be searched as words.
            limit: queries to take at random.
            seconds: where there is a limit of time, the order is random.
            seed: of the order.
            report: called with what is being done, how much of it is done and how much there is.

        Raises:
            MeasureError: a query has neither a vector nor a model, or no text for words; none can be searched with.
            VectorError: vectors of other dimensions.

        """
        notes: list[str] = []
        queries = _judged_queries(judged, notes)
        if limit is not None or seconds is not None:  # any part of them is then a random one
            order = np.random.default_rng(seed).permutation(len(queries))[:limit]
            queries = [queries[place] for place in order]
        if words:
            _check_texts(queries, notes)
        vectors = list(searchable(column, _vectors(column, queries, embedder, report), "the judged queries"))
        kept = [(query, vector) for query, vector in zip(queries, vectors, strict=True) if vector is not None]
        if not kept:
            raise MeasureError(
                f"of {len(queries):,} judged queries none can be searched with (NULL, zero or not finite)"
            )
        if len(kept) < len(queries):
            gone = [query.id for query, vector in zip(queries, vectors, strict=True) if vector is None]
            notes.append(f"{_counted(gone, 'query', 'queries')} cannot be searched with (NULL, zero or not finite).")
        relevance = {query.id: judged.relevance[query.id] for query, _ in kept}
        lost = [query for query, grades in relevance.items() if max(grades.values()) < 1]
        if lost:
            notes.append(f"{_counted(lost, 'query', 'queries')} without a relevant document: 0 for every system.")
        return cls([query for query, _ in kept], np.stack([vector for _, vector in kept]), relevance, notes)

    @property
    def judged_documents(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys(name for grades in self.relevance.values() for name in grades))

    def check_documents(self, known: Mapping[str, bool]) -> None:
        """Compare the judged documents with the table's.

        Args:
            known: those that the table has, each with whether it has a vector.

        Raises:
            MeasureError: more than half are not there.

        """
        names = self.judged_documents
        unknown = [name for name in names if name not in known]
        if 2 * len(unknown) > len(names):
            raise MeasureError(
                f"of {len(names):,} judged documents the table has {len(known):,}, not {some(unknown)}: name "
                "another column with a unique index (`--document-id`, document_id=), or judge documents that this role "
                "can see"
            )
        if unknown:
            self.notes.append(
                f"{_counted(unknown, 'judged document', 'judged documents')} not in the table: they count as not "
                "found, as in trec_eval."
            )
        empty = [name for name in names if known.get(name) is False]
        if empty:
            self.notes.append(
                f"{_counted(empty, 'judged document', 'judged documents')} without a vector: never found."
            )


def _judged_queries(judged: Judged, notes: list[str]) -> list[Query]:
    queries = [query for query in judged.queries if judged.relevance.get(query.id)]
    without = [query.id for query in judged.queries if not judged.relevance.get(query.id)]
    ids = {query.id for query in judged.queries}
    unknown = [query for query in judged.relevance if query not in ids]
    if without:
        notes.append(f"{_counted(without, 'query', 'queries')} without judgements: not scored.")
    if unknown:
        notes.append(f"{_counted(unknown, 'judged query', 'judged queries')} not among the queries: not scored.")
    if not queries:
        raise MeasureError(f"{judged.source}: no query is judged")
    return queries


def _check_texts(queries: Sequence[Query], notes: list[str]) -> None:
    for query in queries:
        if not (query.text or "").strip():
            raise MeasureError(f"query {safe_repr(query.id)} has no text: words cannot be searched with a vector")
    long = [query.id for query in queries if len(str(query.text)) > TEXT_LIMIT]
    if long:
        notes.append(
            f"{_counted(long, 'text', 'texts')} longer than {TEXT_LIMIT:,} characters: words are searched by the first "
            f"{TEXT_LIMIT:,}."
        )


def _vectors(
    column: Any, queries: Sequence[Query], embedder: Embedder | None, report: Callable[[str, int, int], None]
) -> list[Any]:
    """The vectors of queries, given or embedded."""
    vectors = [query.vector for query in queries]
    texts = [place for place, query in enumerate(queries) if query.vector is None and query.text is not None]
    if texts and embedder is None:
        raise MeasureError(
            f"query {safe_repr(queries[texts[0]].id)} has no vector: give its vector, or a model to embed its text"
        )
    if texts and embedder is not None:
        dims = attachment_of(column).definition.dims
        if embedder.dims != dims:
            raise VectorError(
                f"{embedder.name} gives {embedder.dims} dimensions, {base_column(column)} has {dims}: use the model "
                "that the table was embedded with"
            )
        for start in range(0, len(texts), EMBED):
            part = texts[start : start + EMBED]
            made = embedder.embed_queries([str(queries[place].text) for place in part])
            for place, vector in zip(part, check_vectors(embedder, made, len(part)), strict=True):
                vectors[place] = vector
            report("embedding", start + len(part), len(texts))
    return vectors


def _counted(names: Sequence[str], singular: str, plural: str) -> str:
    return f"{len(names):,} {singular if len(names) == 1 else plural} ({some(names)})"
