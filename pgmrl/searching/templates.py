"""Searches of a shape that was built before: the same Select, column and options with other values.

Building a search takes several times as long as SQLAlchemy needs to execute it, and SQLAlchemy works out the key of its
own cache of compiled statements once more from all of its parts. Both depend on the shape alone. So the key of a shape
is kept, and a search of a known shape is a `PendingSearch`: it has the key with its own values, which is all that an
execution reads, and builds its parts only when something else is asked of it.

Nothing of a search outlives it but its key: whatever composes a pending search gets the parts built from its own Select
and its own values.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple, TypeVar

from pgmrl.model.sqlalchemy_internals import (
    all_columns_of,
    cache_key,
    columns_of,
    hashed_once,
    memoize_cache_key,
    structure_names,
    unbuilt,
)
from pgmrl.searching.scan import custom_plan
from pgmrl.searching.search_result import SearchResult, Ts

if TYPE_CHECKING:
    from sqlalchemy import BindParameter, Select

    from pgmrl.searching.subject import AnySelect

__all__ = ["TEMPLATES", "PendingSearch", "Shaped", "become_built", "search_of_shape"]

T = TypeVar("T")

CAPACITY: Final = 512


class _Template(NamedTuple):
    """What is kept of a shape.

    Attributes:
        key: the cache key of the first search.
        values: for each of its parameters the place in the caller's Select, or behind these in the search's own; None
            for one that all searches share.
        added: the columns that the search adds to the caller's.
        subjects: what the shape's name identifies by `id`, so that it stays alive.

    """

    key: Any
    values: tuple[int | None, ...]
    added: tuple[Any, ...]
    subjects: tuple[Any, ...]


class _Templates:
    """The shapes last used, by their names; safe between threads."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._templates: OrderedDict[Hashable, _Template] = OrderedDict()
        self._lock = Lock()

    def get(self, shape: Hashable) -> _Template | None:
        with self._lock:
            template = self._templates.get(shape)
            if template is not None:
                self._templates.move_to_end(shape)
            return template

    def keep(self, shape: Hashable, template: _Template) -> None:
        with self._lock:
            self._templates[shape] = template
            if len(self._templates) > self.capacity:
                self._templates.popitem(last=False)

    def __len__(self) -> int:
        return len(self._templates)


TEMPLATES: Final = _Templates(CAPACITY)


class Shaped(NamedTuple, Generic[T]):
    """Something that has not been built.

    Attributes:
        build: makes it.
        options: what it depends on, compared by value; None where that is not known without building it.
        subjects: objects that it depends on, compared by identity.
        own: its parameters, besides those of the caller's Select.

    """

    build: Callable[[], T]
    options: tuple[Hashable, ...] | None
    subjects: tuple[Any, ...] = ()
    own: Sequence[BindParameter[Any]] = ()


def search_of_shape(statement: AnySelect, search: Shaped[Select[*Ts]]) -> Select[*Ts]:
    """The search that is built, or one that will be it where its shape is known.

    Args:
        statement: the caller's Select.
        search: of its rows.

    """
    build = search.build
    callers = None if search.options is None else cache_key(statement)
    if callers is None:
        built = build()
        _keep_key(built)
        return built
    shape = (callers.key, tuple(map(id, search.subjects)), search.options)
    parameters = [*callers.bindparams, *search.own]
    template = TEMPLATES.get(shape)
    if template is not None:
        shared = template.key.bindparams
        bound = [shared[n] if place is None else parameters[place] for n, place in enumerate(template.values)]
        return PendingSearch.of(statement, template.added, template.key._replace(bindparams=bound), build)
    built = build()
    key = _keep_key(built)
    if key is not None:
        added = columns_of(built)[len(columns_of(statement)) :]
        template = _template(key, added, parameters, search.subjects)
    if template is not None:
        TEMPLATES.keep(shape, template)
    return built


def _keep_key(built: AnySelect) -> Any:
    """The cache key of a search that may be executed any number of times, so that its hash is worked out once."""
    key = cache_key(built)
    if key is None:
        return None
    key = hashed_once(key)
    memoize_cache_key(built, key)
    return key


def _template(
    key: Any, added: Sequence[Any], given: Sequence[BindParameter[Any]], subjects: tuple[Any, ...]
) -> _Template | None:
    """What is kept of a search by its cache key; None where it has parameters that are nobody's."""
    places: dict[int, int | None] = {id(parameter): place for place, parameter in enumerate(given)}
    shared = cache_key(custom_plan())
    places |= {id(parameter): None for parameter in (shared.bindparams if shared is not None else ())}
    if not all(id(parameter) in places for parameter in key.bindparams):
        return None
    values = tuple(places[id(parameter)] for parameter in key.bindparams)
    # the values of the first search are not kept
    kept = [parameter if place is None else None for parameter, place in zip(key.bindparams, values, strict=True)]
    return _Template(key._replace(bindparams=kept), values, tuple(added), subjects)


class PendingSearch(SearchResult[*Ts]):
    """A search whose parts have not been built; it becomes a `SearchResult` when they are asked for."""

    inherit_cache = True

    @classmethod
    def of(
        cls, statement: AnySelect, added: Sequence[Any], key: Any, build: Callable[[], Select[*Ts]]
    ) -> PendingSearch[*Ts]:
        """A search with its cache key, and what is left of it.

        Args:
            statement: the caller's Select, whose options and execution options the search has.
            added: the columns that the search adds to its columns.
            key: its cache key.
            build: makes it.

        """
        pending = unbuilt(cls, statement, added)
        memoize_cache_key(pending, key)
        pending.__dict__.update(pgmrl_build=build, pgmrl_columns=lambda: [*all_columns_of(statement), *added])
        return pending

    @property
    def _all_selected_columns(self) -> list[Any]:  # what it becomes memoizes it
        """What the rows of a result have."""
        columns = self.__dict__.get("pgmrl_columns")
        if columns is None:  # another thread has built it
            return all_columns_of(self)
        rows: list[Any] = columns()
        return rows


def become_built(search: PendingSearch[*tuple[Any, ...]]) -> None:
    """Build the parts of a search. Several threads may do so: each builds the same from the same."""
    build = search.__dict__.get("pgmrl_build")
    if build is None:
        return
    search.__dict__.update(build().__dict__)  # hidden by the properties below until the class is another one
    search.__class__ = SearchResult  # type: ignore[assignment]
    for name in ("pgmrl_build", "pgmrl_columns"):
        search.__dict__.pop(name, None)


def _property(name: str) -> property:
    def value(search: PendingSearch[*tuple[Any, ...]]) -> Any:
        become_built(search)
        return getattr(search, name)

    return property(value)


def _method(name: str) -> Callable[..., Any]:
    def call(search: PendingSearch[*tuple[Any, ...]], *arguments: Any, **options: Any) -> Any:
        become_built(search)
        return getattr(search, name)(*arguments, **options)

    return call


_PARTS, _METHODS = structure_names()
for _name in _PARTS:
    setattr(PendingSearch, _name, _property(_name))
for _name in (*_METHODS, "subquery", "cte", "lateral", "with_for_update"):
    setattr(PendingSearch, _name, _method(_name))
