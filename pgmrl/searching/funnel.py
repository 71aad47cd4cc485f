"""More than two stages: the short index finds, more leading dimensions cut, the full vectors rank.

    pgmrl_shortlist  through the short index, 500 rows
    pgmrl_stage_1    of those, the 100 nearest by 256 dimensions
    pgmrl_winners    of those, the 10 nearest by the full vectors

Kusupati et al., "Matryoshka Representation Learning" (2022), call it a funnel. In PostgreSQL it is not expected to pay
where the middle dimensions are computed: the stage reads the full vector for it, and then the full distance costs
little more. With a middle vector in a column of its own the full vectors of most of the shortlist are never read, which
is something where they lie in TOAST.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVarTuple, cast

from sqlalchemy.orm.attributes import QueryableAttribute

from pgmrl.errors import SearchError
from pgmrl.model.columns import attachment_of
from pgmrl.model.shortening import Rotation
from pgmrl.searching import statement as parts
from pgmrl.searching.fallback import Ranking, prepare_search
from pgmrl.searching.options import Page, SearchOptions, positive
from pgmrl.searching.statement import SHORTLIST, key_names, materialized
from pgmrl.searching.subject import AnySelect

if TYPE_CHECKING:
    from sqlalchemy import CTE, ColumnElement, Select
    from sqlalchemy.orm import InstrumentedAttribute

    from pgmrl.model.shortening import Definition
    from pgmrl.searching.query import BoundQuery

__all__ = ["search_funnel"]

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
    shortlist: int = 500,
    ef_search: int | None = None,
    exact: bool = False,
    complete: bool | None = None,
    label: str = "distance",
) -> Select[*Ts, float]:
    """Search in more than two stages: shortlist, cuts by more and more leading dimensions, full distance.

    Measure before you use it: where the middle dimensions are computed from the full vector, `search` with the same
    shortlist is about as fast and finds the same or more.

    Args:
        statement: as for `search`.
        column: as for `search`; shortened by a prefix.
        query: as for `search`.
        stages: for each cut its dimensions and the rows it leaves, such as `(256, 100)`. Dimensions rise, rows fall.
            Instead of dimensions, a column of the searched table that holds that many leading dimensions:
            `(Package.embedding_256, 100)`.
        k: rows to return.
        shortlist: rows that the short index gives.
        ef_search: as for `search`.
        exact: rank every row that the filters leave instead.
        complete: as for `search`.
        label: the name of the distance in the result.

    Returns:
        The Select with the distance as one more column.

    Raises:
        SearchError: as `search`; stages that are none; a column that is shortened by a rotation.
        VectorError: as `search`.
        DefinitionError: as `search`.

    """
    definition = attachment_of(column).definition
    if isinstance(definition.short.by, Rotation):
        raise SearchError(
            "a funnel compares leading dimensions, and this column is shortened by a rotation, which costs 0.2 ms a "
            "row to compute: use search() with a larger shortlist"
        )
    asked = SearchOptions.of(statement, column, k, shortlist, None, ef_search, exact)
    cuts = _checked(definition, stages, asked.scan.shortlist, asked.k)
    select_ = cast("AnySelect", statement)
    extra = {f"stage_{n}": one.column for n, one in enumerate(cuts, 1) if one.column is not None}
    rows, sent = prepare_search(asked, select_, query, extra)
    ranking = Ranking(definition, rows, sent, Page(asked.k))
    if asked.exact:
        winners, ctes = ranking.exact()
    else:
        shortlisted = materialized(rows.nearest(definition, sent.short, asked.scan), SHORTLIST)
        names = ", ".join([*key_names(len(rows.keys)), "full_vector", *extra])
        between = [_cte(definition, sent, names, number, one) for number, one in enumerate(cuts, 1)]
        complete = rows.filtered if complete is None else complete
        last = f"pgmrl_stage_{len(cuts)}" if cuts else SHORTLIST
        winners, ctes = ranking.of_shortlist([shortlisted, *between], asked.scan.shortlist, last, complete=complete)
    found = parts.result(select_, rows.keys, winners).add_cte(*ctes, nest_here=True)
    return found.add_columns(winners.c.distance.label(label))


def _cte(definition: Definition, sent: BoundQuery, names: str, number: int, stage: _Stage) -> CTE:
    """One cut. The operator scales under cosine by itself, so leading dimensions are compared as they are."""
    part = definition.qualified("subvector")
    cast_ = "" if stage.type is None else f"::{stage.type}"
    query = f"(SELECT {part}({sent.full}, 1, {stage.dims}){cast_})"
    vector = f"{part}(full_vector, 1, {stage.dims})" if stage.type is None else f"stage_{number}"
    source = SHORTLIST if number == 1 else f"pgmrl_stage_{number - 1}"
    keys = ", ".join(name for name in names.split(", ") if name.startswith("key_"))
    body = (
        f"SELECT {names} FROM {source} ORDER BY {vector} {definition.full_operator} {query}, {keys} LIMIT {stage.rows}"  # noqa: S608
    )
    cte = sent.text(body).columns().cte(f"pgmrl_stage_{number}")
    return cte.prefix_with("MATERIALIZED", dialect="postgresql")


def _checked(definition: Definition, stages: Any, shortlist: int, k: int) -> list[_Stage]:
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise SearchError(f"stages={stages!r}: give a list such as [(256, 100)]")
    found = [_stage(definition, stage) for stage in stages]
    before, rows = 0 if definition.short.type == "bit" else definition.short.dims, shortlist
    for stage in found:
        if not before < stage.dims < definition.dims:
            raise SearchError(
                f"a stage of {stage.dims} dimensions: they rise from the short vector's {definition.short.dims} to "
                f"less than the full one's {definition.dims}; say stages=[(dimensions, rows)]"
            )
        if not k <= stage.rows < rows:
            raise SearchError(f"a stage leaves {stage.rows} rows of {rows}: give fewer, and at least k={k}")
        before, rows = stage.dims, stage.rows
    return found


def _stage(definition: Definition, stage: Any) -> _Stage:
    if not isinstance(stage, tuple | list) or len(stage) != 2:
        raise SearchError(f"the stage {stage!r}: give (dimensions, rows), or (column, rows)")
    what, rows = stage[0], positive("the rows of a stage", stage[1])
    if isinstance(what, int):
        return _Stage(positive("the dimensions of a stage", what), rows)
    type_: Any = getattr(what, "type", None)
    dims = getattr(type_, "dims", None) or getattr(type_, "dim", None)
    kind = getattr(type_, "kind", None) or type(type_).__name__.lower()
    if not isinstance(what, QueryableAttribute) and not hasattr(what, "table"):
        raise SearchError(f"the stage {stage!r}: give dimensions or a column of the searched table")
    if not isinstance(dims, int) or kind not in {"halfvec", "vector"}:
        raise SearchError(f"{what} is no vector of fixed dimensions: give a column of halfvec(n) or vector(n)")
    return _Stage(dims, rows, f"{definition.qualified(kind)}({dims})", what)
