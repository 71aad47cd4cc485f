"""More than two stages: the short index finds, more leading dimensions cut, the full vectors rank.

    pgmrl_shortlist  through the short index, 500 rows
    pgmrl_stage_1    of those, the 100 nearest by 256 dimensions
    pgmrl_results    of those, the 10 nearest by the full vectors

Kusupati et al., "Matryoshka Representation Learning" (2022), call it a funnel. In PostgreSQL it is not expected to pay
where the middle dimensions are computed: the stage reads the full vector for it, and then the full distance costs
little more. With a middle vector in a column of its own the full vectors of most of the shortlist are never read, which
is something where they lie in TOAST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVarTuple, Unpack, cast

from sqlalchemy import ColumnElement
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.orm.attributes import QueryableAttribute

from pgmrl.errors import SearchError
from pgmrl.model.argument_types import argument_list
from pgmrl.model.columns import attachment_of
from pgmrl.model.compat import Select
from pgmrl.model.ranking_sql import distances_sql, key_names
from pgmrl.model.shortening import Rotation
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import check_labels, positive_integer
from pgmrl.searching.fallback import RERANKED, Ranking, falls_short_sql
from pgmrl.searching.options import SearchOptions, SearchParameters, with_shortlist
from pgmrl.searching.pages import Page
from pgmrl.searching.search_result import search_result
from pgmrl.searching.statement import SHORTLIST, join_results, labelled, materialized, shaped
from pgmrl.searching.subject import AnySelect
from pgmrl.searching.templates import search_of_shape

if TYPE_CHECKING:
    from sqlalchemy import CTE

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.selected_rows import SelectedRows
    from pgmrl.searching.statement import Results

__all__ = ["search_funnel"]

DEFAULT_SHORTLIST = 500

Ts = TypeVarTuple("Ts")


@dataclass(frozen=True, slots=True)
class _Stage:
    """A cut in the middle.

    Attributes:
        dims: leading dimensions it compares.
        rows: how many it leaves.
        type: of the stored column as SQL; None where the dimensions are computed from the full vector.
        column: the stored column.

    """

    dims: int
    rows: int
    type: str | None = None
    column: Any = None


def search_funnel(
    statement: Select[*Ts],
    column: InstrumentedAttribute[Any] | ColumnElement[Any],
    query: Any,
    stages: Sequence[tuple[Any, int]] = ((256, 100),),
    *,
    k: int = 10,
    label: str = "distance",
    **options: Unpack[SearchOptions],
) -> Select[*Ts, float]:
    """Search in more than two stages: shortlist, cuts by more and more leading dimensions, full distance.

    Measure before you use it: where the middle dimensions are computed from the full vector, `search` with the same
    shortlist is about as fast and finds the same or more.

    `statement`, `column`, `query`, `k` and `label` are those of `search`, and so are the errors. The column must be
    shortened by a prefix.

    Args:
        stages: for each cut its dimensions and the rows it leaves, such as `(256, 100)`. Dimensions rise, rows fall.
            Instead of dimensions, a column of the searched table that holds that many leading dimensions:
            `(Package.embedding_256, 100)`.
        **options: see `SearchOptions`. The shortlist's default is 500, whatever tuning stored.

    Returns:
        The Select with the distance as one more column.

    Raises:
        SearchError: stages whose dimensions do not rise or whose rows do not fall; a column that is shortened by a
            rotation.

    """
    definition = attachment_of(column).definition
    if isinstance(definition.short.by, Rotation):
        raise SearchError(
            "a funnel compares leading dimensions, and this column is shortened by a rotation, which costs 0.2 ms a "
            "row to compute: use search() with a larger shortlist"
        )
    check_labels(label)
    parameters = SearchParameters.of(statement, column, k, with_shortlist(options, k, DEFAULT_SHORTLIST))
    cuts = _checked(definition, stages, parameters.scan.shortlist, parameters.k)
    select_ = cast("AnySelect", statement)
    stored = {f"stage_{number}": stage.column for number, stage in enumerate(cuts, 1) if stage.column is not None}

    def build(rows: SelectedRows, bound: BoundQuery) -> Select[Any]:
        ranking = Ranking(definition, rows, bound, Page(parameters.k))
        results, ctes = ranking.exact() if parameters.exact else of_stages(ranking)
        searched = join_results(select_, rows.keys, results).add_cte(*ctes, nest_here=True)
        return search_result(searched.add_columns(labelled(results.c.distance, label)))

    def of_stages(ranking: Ranking) -> Results:
        rows, bound = ranking.rows, ranking.query
        shortlist = rows.shortlist(definition, bound, parameters.scan)
        keys = ", ".join(key_names(len(rows.keys)))
        names = ", ".join([keys, "full_vector", *stored])
        stage_ctes = [_cte(definition, bound, names, number, stage) for number, stage in enumerate(cuts, 1)]
        last = f"pgmrl_stage_{len(cuts)}" if cuts else SHORTLIST
        reranked = bound.text(distances_sql(definition, bound.full, keys, last)).columns().cte(RERANKED)
        return ranking.of_reranked(
            [*shortlist.ctes, materialized(shortlist.rows, SHORTLIST), *stage_ctes, reranked],
            falls_short_sql(shortlist.size, SHORTLIST),
            fallback=parameters.complete,
        )

    sizes = tuple((stage.dims, stage.rows, stage.type) for stage in cuts)
    return search_of_shape(select_, shaped(parameters, select_, query, build, "funnel", sizes, label, extra=stored))


def _cte(definition: Definition, bound: BoundQuery, names: str, number: int, stage: _Stage) -> CTE:
    """One cut. The operator scales under cosine by itself, so leading dimensions are compared as they are."""
    part = definition.qualified("subvector")
    cast_ = "" if stage.type is None else f"::{stage.type}"
    query = f"(SELECT {part}({bound.full}, 1, {stage.dims}){cast_})"
    vector = f"{part}(full_vector, 1, {stage.dims})" if stage.type is None else f"stage_{number}"
    source = SHORTLIST if number == 1 else f"pgmrl_stage_{number - 1}"
    keys = ", ".join(name for name in names.split(", ") if name.startswith("key_"))
    body = (
        f"SELECT {names} FROM {source} ORDER BY {vector} {definition.full_operator} {query}, {keys} LIMIT {stage.rows}"  # noqa: S608
    )
    cte = bound.text(body).columns().cte(f"pgmrl_stage_{number}")
    return cte.prefix_with("MATERIALIZED", dialect="postgresql")


def _checked(definition: Definition, stages: Any, shortlist: int, k: int) -> list[_Stage]:
    listed = argument_list("stages", stages, SearchError, "a list such as [(256, 100)]")
    checked = [_stage(definition, stage) for stage in listed]
    dims, rows = 0 if definition.short.type == "bit" else definition.short.dims, shortlist
    for stage in checked:
        if not dims < stage.dims < definition.dims:
            raise SearchError(
                f"a stage of {stage.dims} dimensions: expected dimensions that rise from the short vector's "
                f"{definition.short.dims} to less than the full one's {definition.dims}, as stages=[(dimensions, rows)]"
            )
        if not k <= stage.rows < rows:
            raise SearchError(f"a stage leaves {stage.rows} rows of {rows}: expected fewer, and at least k={k}")
        dims, rows = stage.dims, stage.rows
    return checked


def _stage(definition: Definition, stage: Any) -> _Stage:
    if not isinstance(stage, tuple | list) or len(stage) != 2:
        raise SearchError(f"the stage {safe_repr(stage)}: expected (dimensions, rows), or (column, rows)")
    size_or_column, rows = stage[0], positive_integer("the rows of a stage", stage[1])
    if not isinstance(size_or_column, QueryableAttribute | ColumnElement):
        return _Stage(positive_integer("the dimensions of a stage", size_or_column), rows)
    type_: Any = getattr(size_or_column, "type", None)
    dims = getattr(type_, "dims", None) or getattr(type_, "dim", None)
    kind = getattr(type_, "kind", None) or type(type_).__name__.lower()
    if not isinstance(dims, int) or kind not in {"halfvec", "vector"}:
        raise SearchError(f"{size_or_column}: expected a column of halfvec(n) or vector(n), got {safe_repr(type_)}")
    return _Stage(dims, rows, f"{definition.qualified(kind)}({dims})", size_or_column)
