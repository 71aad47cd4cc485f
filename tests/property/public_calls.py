"""For each public name of pgmrl a call that works, whose arguments are then exchanged one by one."""

from __future__ import annotations

import inspect
import operator
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np
from sqlalchemy import ClauseElement, Column, Integer, MetaData, Select, Table, Text, select
from sqlalchemy.orm import QueryableAttribute

import pgmrl
from pgmrl import (
    Chunks,
    Embed,
    FilterIndex,
    Matryoshka,
    Nearest,
    Prefix,
    Rotation,
    Rrf,
    SearchOptions,
    Short,
    SqlFunctions,
    Words,
    compile_sql,
    search,
    search_hybrid,
)
from pgmrl.errors import MeasureError
from pgmrl.evaluation import Judged, Query
from pgmrl.model.metrics import metric_named
from pgmrl.searching.more_like_this import MoreLikeThis
from tests.property.small_shop import DIMS, QUERY, ROWS, Item

if TYPE_CHECKING:
    from collections.abc import Callable

    from sqlalchemy import Connection

    from tests.property.small_shop import Shop

__all__ = ["CALLS", "NOT_CALLED", "Call", "Place", "public", "replaceable"]

NOT_CALLED = {
    "Explanation": "a result, which pgmrl makes",
    "PgmrlError": "what is raised",
    "SearchOptions": "a dict's type: its keys are options of each search",
    "VectorArray": "a type",
}

BY_ID = [FilterIndex("id")]
AXES = np.eye(4, DIMS)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a call is made.

    Attributes:
        shop: the rows.
        connection: in a transaction that is rolled back.

    """

    shop: Shop
    connection: Connection


Arguments = dict[str, Any]
Check = "Callable[[Place, Arguments, Any], None]"


def _nothing(_place: Place, _arguments: Arguments, _result: Any) -> None:
    """There is nothing to compare with."""


@dataclass(frozen=True, slots=True)
class Call:
    """A call that works.

    Attributes:
        arguments: by name; those of `*arguments` as a tuple under that name.
        check: compares the result with what the arguments ask for.
        fixed: arguments that stay as they are.
        raises: what the function raises besides errors of pgmrl's, as its docstring says.

    """

    arguments: Callable[[Place], Arguments]
    check: Callable[[Place, Arguments, Any], None] = _nothing
    fixed: frozenset[str] = field(default_factory=frozenset)
    raises: tuple[type[Exception], ...] = ()


def public(name: str) -> Any:
    """A public name of pgmrl, or of a module of it, as `measure.measure_recall`."""
    module, _, own = name.rpartition(".")
    return getattr(import_module(f"pgmrl.{module}") if module else pgmrl, own)


def replaceable(name: str) -> list[str]:
    """The arguments of a public function that can be exchanged, with the options of a search."""
    call, names = CALLS[name], []
    for parameter in inspect.signature(public(name)).parameters.values():
        if parameter.kind is not parameter.VAR_KEYWORD:
            names.append(parameter.name)
        elif parameter.name == "options":
            names.extend(SearchOptions.__annotations__)
    return [own for own in names if own not in call.fixed]


# -- what a search returns -----------------------------------------------------------------------------------------


def _ranked(place: Place, arguments: Arguments) -> list[tuple[float, int]]:
    """All rows that may come, nearest first."""
    query, distances = arguments["query"], place.shop.distances
    examples: set[int] = set()
    if isinstance(query, MoreLikeThis):
        examples = {key[0] for key in (*query.keys, *query.unlike)}
        unit = place.shop.vectors / np.linalg.norm(place.shop.vectors, axis=1)[:, None]
        query = unit[[key[0] for key in query.keys]].mean(axis=0)
    ranked = sorted((float(distance), n) for n, distance in enumerate(distances(query)) if n not in examples)
    after, most = arguments.get("after"), arguments.get("max_distance")
    if after is not None:
        ranked = [row for row in ranked if row > (float(after[0]), operator.index(after[1]))]
    if most is not None:
        ranked = [row for row in ranked if row[0] <= float(most)]
    return ranked[operator.index(arguments.get("offset") or 0) :]


def _is_sql(value: Any) -> bool:
    return isinstance(value, ClauseElement | QueryableAttribute)


def right_rows(place: Place, arguments: Arguments, result: Any) -> None:
    """The rows of an exact search where the shortlist holds every row, else rows with right distances in order."""
    assert isinstance(result, Select)
    if _is_sql(arguments["query"]) or any(_is_sql(part) for part in arguments.get("after") or ()):
        return  # the caller's own SQL
    k = operator.index(arguments.get("k", 10))
    rows = [(row[1], row[0]) for row in place.connection.execute(result)]
    ranked = _ranked(place, arguments)
    assert len(rows) <= k
    assert [distance for distance, _ in rows] == sorted(distance for distance, _ in rows)
    truth = {n: distance for distance, n in ranked}
    assert all(abs(distance - truth[n]) < 1e-3 for distance, n in rows)
    size = arguments.get("shortlist")
    size = k * (arguments.get("oversample") or 10) if size is None else size
    if arguments.get("exact") or max(size, 40 if arguments.get("shortlist") is None else 0) > ROWS + 2:
        assert {n for _, n in rows} == {n for _, n in ranked[:k]} or _near_ties(rows, ranked[:k])


def _near_ties(rows: list[tuple[float, int]], ranked: list[tuple[float, int]]) -> bool:
    """Whether rows differ only in the order of distances that are equal to what half precision resolves."""
    distances = np.array([row[0] for row in rows]), np.array([row[0] for row in ranked])
    return len(rows) == len(ranked) and bool(np.allclose(*distances, atol=1e-3))


def some_rows(place: Place, arguments: Arguments, result: Any) -> None:
    """It can be executed, and no more rows come than were asked for."""
    assert isinstance(result, Select)
    if any(_is_sql(value) for name, value in arguments.items() if name in {"query", "queries"}):
        return
    count = operator.index(arguments.get("k", 10)) * operator.index(arguments.get("per_group", 1))
    queries = len(arguments["queries"]) if "queries" in arguments else 1
    assert len(place.connection.execute(result).all()) <= count * queries


def usable_retriever(place: Place, _arguments: Arguments, result: Any) -> None:
    """It serves a hybrid search, or that says why not."""
    values = [getattr(result, name, None) for name in ("query", "text")]
    if getattr(result, "extension_schema", None) is not None:  # which is not there
        compile_sql(search_hybrid(select(Item.id), [result], k=3))
    elif not any(_is_sql(value) for value in values):
        place.connection.execute(search_hybrid(select(Item.id), [result], k=3)).all()


def usable_fusion(place: Place, _arguments: Arguments, result: Any) -> None:
    """It serves a hybrid search."""
    statement = search_hybrid(select(Item.id), [Words(Item.words, "item")], k=3, fuse=result)
    assert len(place.connection.execute(statement).all()) == 3


def usable_examples(place: Place, arguments: Arguments, result: Any) -> None:
    """The examples' average, searched with."""
    if arguments["column"] is Item.embedding and not any(_is_sql(part) for key in result.keys for part in key):
        known = all(0 <= key[0] < ROWS for key in (*result.keys, *result.unlike))
        if known and not result.unlike:
            right_rows(place, {"query": result, "k": 5}, search(select(Item.id), Item.embedding, result, k=5))


def _finite(_place: Place, _arguments: Arguments, result: Any) -> None:
    assert result.dtype == np.float32
    assert np.isfinite(result).all()


def _sent(place: Place, _arguments: Arguments, result: Any) -> None:
    if "%(given)s" not in result.text:
        place.connection.exec_driver_sql(result.text, result.params)


# -- the calls -----------------------------------------------------------------------------------------------------


def _search(**more: Any) -> Callable[[Place], Arguments]:
    return lambda _: {"statement": select(Item.id), "column": Item.embedding, "query": QUERY, **more}


def _table(*columns: Column[Any]) -> Table:
    return Table("docs", MetaData(), Column("id", Integer, primary_key=True), Column("name", Text), *columns)


def _judged() -> Judged:
    return Judged([Query("q1", "one", QUERY), Query("q2", "two", -QUERY)], {"q1": {"1": 1, "2": 0}, "q2": {"3": 2}})


def _statement() -> Any:
    return search(select(Item.id), Item.embedding, QUERY, k=3)


CALLS: dict[str, Call] = {
    "evaluation.Judged": Call(lambda _: {"queries": _judged().queries, "relevance": _judged().relevance}),
    "evaluation.beir_judgements": Call(lambda _: {"folder": "nowhere"}, raises=(MeasureError,)),
    "evaluation.file_judgements": Call(lambda _: {"queries": "no", "qrels": "no"}, raises=(MeasureError,)),
    "evaluation.selected_judgements": Call(
        lambda place: {"connection": place.connection, "statement": "SELECT 'q', '1', 1"}
    ),
    "measure.file_queries": Call(lambda _: {"column": Item.embedding, "path": "no"}, raises=(MeasureError,)),
    "measure.measure_recall": Call(
        lambda place: {"connection": place.connection, "column": Item.embedding, "queries": 2, "seconds": 20.0}
    ),
    "measure.sampled_queries": Call(
        lambda place: {"connection": place.connection, "column": Item.embedding, "count": 2}
    ),
    "measure.selected_queries": Call(
        lambda place: {
            "connection": place.connection,
            "column": Item.embedding,
            "statement": "SELECT embedding FROM items",
            "limit": 2,
        }
    ),
    "measure.vector_queries": Call(lambda _: {"column": Item.embedding, "vectors": [QUERY]}),
    "Definition": Call(lambda _: {"dims": DIMS, "short": Short(4), "metric": metric_named("cosine")}),
    "FilterIndex": Call(lambda _: {"columns": ("kind",), "include": ["stars"], "name": "by kind"}),
    "FullText": Call(lambda _: {"columns": ("name",), "config": "english"}),
    "Hnsw": Call(lambda _: {"where": "deleted_at IS NULL"}),
    "Chunks": Call(lambda _: {"template": "{name}", "by": "static", "size": 128, "overlap": 16}),
    "Embed": Call(lambda _: {"template": "{name}", "by": "static"}),
    "Matryoshka": Call(lambda _: {"dims": DIMS, "short": Short(4)}),
    "Nearest": Call(lambda _: {"column": Item.embedding, "query": QUERY}, usable_retriever),
    "Prefix": Call(lambda _: {}),
    "Rotation": Call(lambda _: {"id": Rotation.of(AXES).id, "axes": Rotation.of(AXES).axes}),
    "Rrf": Call(lambda _: {}, usable_fusion),
    "Short": Call(lambda _: {"dims": 4, "by": Prefix()}),
    "SqlFunctions": Call(lambda _: {"filters": ("kind",), "related": 5, "stored": True}),
    "Trigrams": Call(lambda _: {"column": Item.name, "text": "item"}, usable_retriever),
    "Weighted": Call(lambda _: {}, usable_fusion),
    "Words": Call(lambda _: {"column": Item.words, "text": "item"}, usable_retriever),
    "add_chunks": Call(
        lambda _: {
            "table": _table(*(Column(name, Integer) for name in ("ordinal", "start", "stop")), Column("text", Text)),
            "chunks": Chunks("{name}", "static"),
        }
    ),
    "add_functions": Call(lambda _: {"column": _table(Column("e", Matryoshka(DIMS, Short(4)))).c.e}),
    "add_short": Call(
        lambda _: {"column": _table(Column("e", pgmrl_vector())).c.e, "short": Short(4), "filters": BY_ID}
    ),
    "add_side_table": Call(lambda _: {"column": _table(Column("e", pgmrl_vector())).c.e, "short": Short(4)}),
    "assert_index_used": Call(
        lambda place: {"connection": place.connection, "statement": _statement(), "ignore_cost": True},
        raises=(AssertionError,),
    ),
    "average_vectors": Call(
        lambda _: {"positive": np.stack([QUERY, QUERY + 1]), "negative": [-QUERY], "weights": [1.0, 2.0]}, _finite
    ),
    "check_schema": Call(lambda place: {"connection": place.connection, "column": Item.embedding}),
    "compile_sql": Call(lambda _: {"statement": _statement()}, _sent),
    "evaluate": Call(
        lambda place: {
            "connection": place.connection,
            "column": Item.embedding,
            "judged": _judged(),
            "measures": ["nDCG@3"],
            "dims": [4],
        }
    ),
    "explain": Call(lambda place: {"connection": place.connection, "statement": _statement()}),
    "fit_rotation": Call(lambda place: {"connection": place.connection, "column": Item.embedding, "axes": 4}),
    "full_text": Call(lambda _: {"columns": ({"name": "A"},), "config": "english"}),
    "ingest": Call(
        lambda place: {
            "connection": place.connection,
            "column": Item.embedding,
            "rows": [{"id": 100, "kind": "a", "name": "new"}],
            "vectors": [QUERY],
        }
    ),
    "install_functions": Call(
        lambda place: {
            "connection": place.connection,
            "column": Item.embedding,
            "functions": SqlFunctions(filters=("kind", "stars >=", "kind in"), group_by="kind", words="words"),
        }
    ),
    "load_settings": Call(lambda place: {"connection": place.connection, "columns": (Item.embedding,)}),
    "matryoshka": Call(lambda _: {"dims": DIMS, "short": Short(4), "filters": BY_ID}),
    "more_like_this": Call(lambda _: {"column": Item.embedding, "keys": [1, 2]}, usable_examples),
    "query_vector": Call(
        lambda _: {
            "column": _table(Column("e", Matryoshka(256, Short(4), embed=Embed("{name}", "static")))).c.e,
            "text": "item",
        },
        _finite,
    ),
    "reflect": Call(lambda place: {"connection": place.connection, "name": "items.embedding"}),
    "rerank": Call(
        lambda _: {"rows": ["one", "two"], "question": "which", "model": Model(), "text": lambda _: "text", "k": 1},
        fixed=frozenset({"text"}),
    ),
    "search": Call(_search(), right_rows),
    "search_diverse": Call(_search(k=5), some_rows),
    "search_funnel": Call(_search(stages=[(6, 31)], k=5, shortlist=40), right_rows),
    "search_groups": Call(_search(by=Item.kind, k=2, per_group=2), some_rows),
    "search_hybrid": Call(
        lambda _: {"statement": select(Item.id), "retrievers": [Nearest(Item.embedding, QUERY)], "fuse": Rrf()},
        some_rows,
    ),
    "search_many": Call(
        lambda _: {"statement": select(Item.id), "column": Item.embedding, "queries": [QUERY, -QUERY]}, some_rows
    ),
    "trigram_index": Call(lambda _: {"column": _table().c.name}),
}


class Model:
    """Scores pairs of texts by their length."""

    def predict(self, pairs: list[tuple[str, str]], **_: Any) -> Any:
        """One score a pair."""
        return np.array([float(len(text)) for _, text in pairs])


def pgmrl_vector() -> Any:
    """A column type of pgvector's own."""
    from pgvector.sqlalchemy import VECTOR  # noqa: PLC0415 - of this alone

    return VECTOR(DIMS)
