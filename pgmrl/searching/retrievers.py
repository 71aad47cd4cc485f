"""The retrievers of a hybrid search: each turns the caller's Select into a list of rows, best first.

A list is a CTE of the columns `key_1`, …, `value`: the larger the value, the better. Filters and joins of the caller's
Select hold inside each list, before its limit.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Unpack, cast, get_args

from sqlalchemy import BindParameter, Boolean, Double, Float, String, Text, TypeDecorator, bindparam, func, select, text
from sqlalchemy import cast as sql_cast
from sqlalchemy import literal_column as literal_sql
from sqlalchemy.sql.operators import custom_op

from pgmrl.errors import DefinitionError, SearchError
from pgmrl.limits import TEXT_LIMIT
from pgmrl.model.argument_types import choice, optional_name, plain_text, real_number
from pgmrl.model.columns import Attachment, attachment_of, base_column, is_distributed
from pgmrl.model.fulltext import Match, check_config, finds_rows_sql, text_source, tsquery_sql
from pgmrl.names import literal, quoted
from pgmrl.reprs import safe_repr
from pgmrl.searching.arguments import flag, positive_integer
from pgmrl.searching.fallback import Ranking
from pgmrl.searching.options import SearchOptions, SearchParameters, check_options, shortlist_size, with_shortlist
from pgmrl.searching.pages import Page
from pgmrl.searching.query import check_parameter_name
from pgmrl.searching.selected_rows import SelectedRows, selected_rows
from pgmrl.searching.statement import shaped
from pgmrl.searching.templates import Shaped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Dialect

    from pgmrl.searching.query import BoundQuery
    from pgmrl.searching.subject import AnySelect

__all__ = ["Nearest", "RankedList", "Retriever", "Trigrams", "Words"]

Rank = Literal["ts_rank", "ts_rank_cd"]


class RankedList(NamedTuple):
    """One retriever's list.

    Attributes:
        keys: the key's columns in the caller's Select.
        rows: the list; its columns are `key_1`, …, `value`, the larger the better.

    """

    keys: Sequence[ColumnElement[Any]]
    rows: AnySelect


class Retriever(ABC):
    """One list of a hybrid search: `Nearest`, `Words` or `Trigrams`.

    Attributes:
        weight: what the list counts in the fusion.
        label: name of its rank in the result; default `rank_` and its number.

    """

    __slots__ = ()
    weight: float
    label: str | None

    @abstractmethod
    def ranked_list(self, statement: AnySelect, k: int, stacklevel: int) -> Shaped[RankedList]:
        """Its list of the rows that a Select leaves, not built.

        Args:
            statement: the caller's.
            k: rows of the result, by which its limit is chosen where none was given.
            stacklevel: of the caller's line, for warnings.

        """


@dataclass(frozen=True, slots=True, eq=False, init=False)
class Nearest(Retriever):
    """The rows nearest to a vector: shortlist by the short index, ranked exactly, as `search` does it.

    Args:
        column: the Matryoshka attribute or column, also of an alias.
        query: as for `search`: the query's full vector, shape (dims,); a `bindparam("name")`; examples; or an
            expression of SQL.
        weight: what this list counts in the fusion.
        limit: rows it contributes; default the shortlist.
        label: name of its rank in the result; default `rank_` and its number.
        **options: see `SearchOptions`. The shortlist's default is 10 times k, at least 40, whatever tuning stored.

    Raises:
        TypeError: an unknown option.

    """

    column: Any
    query: Any
    weight: float
    limit: int | None
    label: str | None
    options: SearchOptions

    def __init__(
        self,
        column: Any,
        query: Any,
        *,
        weight: float = 1.0,
        limit: int | None = None,
        label: str | None = None,
        **options: Unpack[SearchOptions],
    ) -> None:
        check_options(options)
        values = {
            "column": column,
            "query": query,
            "weight": weight,
            "limit": limit,
            "label": label,
            "options": options,
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def ranked_list(self, statement: AnySelect, k: int, stacklevel: int) -> Shaped[RankedList]:
        """Its list; raises and warns as `search`."""
        # what is tuned brings the nearest rows; here the shortlist is what there is to fuse
        options = with_shortlist(self.options, k)
        parameters = SearchParameters.of(statement, self.column, k, options, stacklevel=stacklevel + 2)
        size = parameters.scan.shortlist
        limit = size if self.limit is None else positive_integer("limit", self.limit)
        if limit > size:
            raise SearchError(f"limit={limit} is larger than shortlist={size}: the list comes out of the shortlist")

        def build(rows: SelectedRows, bound: BoundQuery) -> RankedList:
            ranking = Ranking(parameters.definition, rows, bound, Page(limit))
            if parameters.exact:
                results, ctes = ranking.exact()
            else:
                shortlist = rows.shortlist(parameters.definition, bound, parameters.scan)
                results, ctes = ranking.of_shortlist(shortlist, fallback=parameters.complete)
            *keys, distance = results.c
            defined = distance != literal_sql("'NaN'")  # nor NULL: without a vector there is no distance
            listed = select(*keys, (-distance).label("value")).where(defined)
            # its parts nest in it, so that there can be several
            return RankedList(rows.keys, listed.add_cte(*ctes, nest_here=True))

        return shaped(parameters, statement, self.query, build, "nearest", limit)


@dataclass(frozen=True, slots=True, eq=False)
class Words(Retriever):
    """The rows whose words match a text, by PostgreSQL's full-text search through a GIN index.

    Words that the configuration drops (stop words) do not count; a text of nothing else, or one that only excludes
    words, finds nothing.

    Attributes:
        column: a `tsvector` attribute or column: declared with `full_text`, or any other.
        text: what somebody typed; or a `bindparam("name")`.
        weight: what this list counts in the fusion.
        match: `all` of the words, `any` of them, or `web`: all, and as in search engines "quotes", `or` and `-`.
        rank: `ts_rank` (how often the words stand) or `ts_rank_cd` (cover density: how close they stand, at about twice
            the time).
        limit: rows it contributes; default as many as a vector's shortlist, ten times k.
        config: the text search configuration, where the column was not declared with `full_text`.
        label: name of its rank in the result; default `rank_` and its number.

    """

    column: Any
    text: Any
    _: KW_ONLY
    weight: float = 1.0
    match: Match = "all"
    rank: Rank = "ts_rank"
    limit: int | None = None
    config: str | None = None
    label: str | None = None

    def ranked_list(self, statement: AnySelect, k: int, stacklevel: int) -> Shaped[RankedList]:  # noqa: ARG002
        """Its list.

        Raises:
            SearchError: the text is none, or the configuration is not the column's.
            DefinitionError: the column is no `tsvector`, or says no configuration.

        """
        _check_choice("match", self.match, Match)
        _check_choice("rank", self.rank, Rank)
        limit = shortlist_size(k) if self.limit is None else positive_integer("limit", self.limit)
        name, parameter = _bind_text(self.text, f"the text for {base_column(self.column)}")
        config = self._config()
        query = _tsquery(config, self.match, name)

        def build() -> RankedList:
            rows = _rows_of_text(statement, self.column)
            # evaluated once, whatever plan the server takes; in WHERE as it is, where the planner can count its words
            once = text(f"(SELECT {query})").bindparams(parameter)
            value: ColumnElement[Any] = sql_cast(getattr(func, self.rank)(rows.full, once), Double())
            matching = _operator("@@")(rows.full, text(query).bindparams(parameter))
            listed = _listed(rows, value, limit).where(matching)
            if self.match == "web":  # words that are only excluded are no reason to return a row, and no index finds it
                listed = listed.where(text(finds_rows_sql(query)).bindparams(parameter))
            return RankedList(rows.keys, listed)

        options = ("words", query, self.rank, limit)
        return Shaped(build, options, (self.column,), [parameter])

    def _config(self) -> str:
        source = text_source(self.column)
        if source is None:
            if self.config is None:
                raise DefinitionError(
                    f"{base_column(self.column)} was not declared with full_text(...): say config='english', or "
                    "whatever its expression says; a query in another configuration finds nothing"
                )
            return check_config(self.config)
        if self.config is not None and check_config(self.config) != source.config:
            raise SearchError(
                f"config={safe_repr(self.config)}, but {base_column(self.column)} is made with "
                f"{safe_repr(source.config)}: leave it out"
            )
        return source.config


@dataclass(frozen=True, slots=True, eq=False)
class Trigrams(Retriever):
    """The rows whose text looks like another, misspelt or not, by pg_trgm through a trigram index.

    In a transaction the threshold lasts until its end, as with the scan's parameters of `search`.

    Attributes:
        column: a text attribute or column, with `trigram_index`.
        text: what somebody typed; or a `bindparam("name")`.
        weight: what this list counts in the fusion.
        by: `word` finds the text within a longer one (`word_similarity`), `whole` compares all of both (`similarity`).
        threshold: least similarity, above 0 and at most 1; default as pg_trgm's own, 0.6 by word, 0.3 by the whole.
        limit: rows it contributes; default as many as a vector's shortlist, ten times k.
        extension_schema: the schema pg_trgm lives in, where that is not on the search_path.
        label: name of its rank in the result; default `rank_` and its number.

    """

    column: Any
    text: Any
    _: KW_ONLY
    weight: float = 1.0
    by: Literal["word", "whole"] = "word"
    threshold: float | None = None
    limit: int | None = None
    extension_schema: str | None = None
    label: str | None = None

    def ranked_list(self, statement: AnySelect, k: int, stacklevel: int) -> Shaped[RankedList]:  # noqa: ARG002
        """Its list.

        Raises:
            SearchError: the text is none, or a number is out of range.
            DefinitionError: the column is no text.

        """
        optional_name("extension_schema", self.extension_schema, SearchError)
        _check_choice("by", self.by, Literal["word", "whole"])
        limit = shortlist_size(k) if self.limit is None else positive_integer("limit", self.limit)
        base = base_column(self.column)
        if not isinstance(base.type, String):
            raise DefinitionError(
                f"{base}: expected a text column, got {safe_repr(base.type)}: trigrams are made of text"
            )
        _, parameter = _bind_text(self.text, f"the text for {base}")
        gate = self._gate(shards=is_distributed(base.table))

        def build() -> RankedList:
            rows = _rows_of_text(statement, self.column)
            like, distance = self._comparison(parameter, rows.full)
            listed = _listed(rows, -sql_cast(distance, Double()), limit).where(text(gate), like)
            return RankedList(rows.keys, listed)

        options = ("trigrams", parameter.key if isinstance(self.text, BindParameter) else None, self.by, limit)
        return Shaped(build, (*options, self.extension_schema, gate), (self.column,), [parameter])

    def _comparison(self, parameter: Any, column: Any) -> tuple[Any, Any]:
        """Whether the text is like the column's, and their distance."""
        # by word the text comes first: how much of it is in the column. By operators: SQLAlchemy does not quote the
        # schema of a function
        if self.by == "word":
            return self._operator("<%")(parameter, column), self._operator("<<->")(parameter, column)
        return self._operator("%")(column, parameter), self._operator("<->")(column, parameter)

    def _operator(self, name: str) -> custom_op[Any]:
        return _operator(f"OPERATOR({quoted(self.extension_schema)}.{name})" if self.extension_schema else name)

    def _gate(self, *, shards: bool) -> str:
        name = "word_similarity_threshold" if self.by == "word" else "similarity_threshold"
        threshold = (0.6 if self.by == "word" else 0.3) if self.threshold is None else self.threshold
        if not 0 < real_number("threshold", threshold, SearchError) <= 1:
            raise SearchError(f"threshold={safe_repr(threshold)}: expected a similarity, more than 0 and at most 1")
        call = f"pg_catalog.set_config('pg_trgm.{name}', '{float(threshold):.20f}', true)"
        if shards:  # the SELECT of a subquery without FROM would be the coordinator's
            return f"(SELECT true WHERE {call} IS NOT NULL)"
        return f"(SELECT {call}) IS NOT NULL"


def check_parameters(retrievers: Sequence[Retriever]) -> None:
    """Check that no parameter of the caller's stands for what is sent in different forms.

    Raises:
        SearchError: one does.
        DefinitionError: a vector's column is not a Matryoshka column.

    """
    forms: dict[str, Any] = {}
    for retriever in retrievers:
        value = getattr(retriever, "query" if isinstance(retriever, Nearest) else "text", None)
        if isinstance(value, BindParameter):
            form = _form(retriever)
            if forms.setdefault(value.key, form) != form:
                raise SearchError(
                    f"the parameter {safe_repr(value.key)} stands for a text and a vector, or for vectors that "
                    "are sent in different forms: give each retriever a parameter of its own"
                )


def _form(retriever: Retriever) -> Any:
    """The form in which the caller's parameter is sent."""
    if not isinstance(retriever, Nearest):
        return "text"
    definition = attachment_of(retriever.column).definition
    return definition, flag("exact", retriever.options.get("exact")) or not definition.learned


def check_weight(number: int, weight: Any) -> float:
    """A retriever's weight.

    Raises:
        SearchError: it is no number above 0.

    """
    try:
        checked = real_number("weight", weight, SearchError)
    except SearchError:
        checked = 0.0
    if checked <= 0:
        raise SearchError(f"weight={safe_repr(weight)} of retriever {number}: expected a number above 0")
    return checked


# -- the rows ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _PlainColumn:
    """What `selected_rows` needs to know of a column without a short one."""

    short: None = None
    side: None = None
    distributed: bool = False


def _rows_of_text(statement: AnySelect, column: Any) -> SelectedRows:
    return selected_rows(statement, column, cast("Attachment", _PlainColumn()))


def _listed(rows: SelectedRows, value: ColumnElement[Any], limit: int) -> AnySelect:
    """The rows of the largest values, ties by key."""
    keys = [key.label(f"key_{number}") for number, key in enumerate(rows.inner_keys, 1)]
    listed = rows.select.with_only_columns(*keys, value.label("value"), maintain_column_froms=True)
    # a bound LIMIT would change the plan once the server plans generically
    return listed.order_by(literal_sql("value").desc(), *rows.inner_keys).limit(literal_sql(str(limit)))


@lru_cache(maxsize=64)
def _operator(name: str) -> custom_op[Any]:
    """An operator, made once: `column.op(name)` makes it for every search."""
    compares = not name.rstrip(")").endswith("->")  # others are distances
    return custom_op(name, is_comparison=compares, return_type=Boolean() if compares else Float())


# -- the text ------------------------------------------------------------------------------------------------------


class QueryText(TypeDecorator[str]):
    """A query's text, checked when it is sent."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str:  # noqa: ARG002
        """Check for what the server would answer wrongly, or with an error that does not say why."""
        return _checked(value, "the query's text")


def _bind_text(value: Any, what: str) -> tuple[str, BindParameter[str]]:
    """The parameter of a text, and its name in SQL text."""
    if isinstance(value, BindParameter):
        check_parameter_name(value.key)
        return value.key, bindparam(value.key, type_=QueryText())
    return "words", bindparam("words", _checked(value, what), type_=QueryText(), unique=True)


def _checked(typed: Any, what: str) -> str:
    value = plain_text(typed)
    if value is None:
        raise SearchError(f"{what}: expected str, got {type(typed).__name__}")
    if not value.strip():
        raise SearchError(f"{what} is empty: leave the retriever out")
    if "\0" in value:
        raise SearchError(f"{what} has a NUL character at {value.index(chr(0))}, which PostgreSQL cannot hold")
    if len(value) > TEXT_LIMIT:
        raise SearchError(f"{what}: expected at most {TEXT_LIMIT:,} characters, got {len(value):,}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise SearchError(f"{what} is no valid Unicode at {error.start}: decode it with the right encoding") from None
    return value


def _tsquery(config: str, match: Match, name: str) -> str:
    return tsquery_sql(literal(config).replace(":", "\\:"), match, f":{name}")


def _check_choice(name: str, value: Any, choices: Any) -> None:
    choice(name, value, get_args(choices), SearchError)
