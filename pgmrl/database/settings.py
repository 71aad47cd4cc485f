"""What tuning chose for a short column, as the default of its searches: stored in the database, loaded into models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import MetaData, text

from pgmrl.database.connection import sqlalchemy_connection
from pgmrl.database.schema import installed_revision, require_schema
from pgmrl.database.search_path import catalogue_result, pinned, relation_name
from pgmrl.errors import DefinitionError, NotMigrated
from pgmrl.limits import EF_SEARCH_LIMIT, SHORTLIST_LIMIT
from pgmrl.model.columns import INFO_KEY, attachment_of, base_column, vectors_table
from pgmrl.model.server_names import server_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Column, Connection
    from sqlalchemy.orm import Session

__all__ = [
    "Setting",
    "forget_setting",
    "load_settings",
    "setting_of",
    "store_setting",
    "stored_numbers_sql",
    "stored_setting",
]

SETTING_KEY: Final = "pgmrl_setting"


@dataclass(frozen=True, slots=True)
class Setting:
    """The numbers of a search that bring the recall which was asked for.

    Attributes:
        k: the results they are for.
        shortlist: rows that are ranked exactly.
        ef_search: candidates HNSW keeps, 1 to 1,000.
        target: the recall@k that was asked for.
        recall: the recall@k that was predicted.
        latency_ms: the time of a search that was predicted, in milliseconds.
        row_count: rows of the table at that time.

    Raises:
        DefinitionError: numbers that cannot be.

    """

    k: int
    shortlist: int
    ef_search: int
    target: float | None = None
    recall: float | None = None
    latency_ms: float | None = None
    row_count: int | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.shortlist <= SHORTLIST_LIMIT:
            raise DefinitionError(
                f"k={self.k} and shortlist={self.shortlist}: expected 1 <= k <= shortlist <= {SHORTLIST_LIMIT:,}"
            )
        if not 1 <= self.ef_search <= EF_SEARCH_LIMIT:
            raise DefinitionError(f"ef_search={self.ef_search}: expected 1 to {EF_SEARCH_LIMIT:,}, what pgvector takes")
        if self.target is not None and not 0 < self.target <= 1:
            raise DefinitionError(f"target={self.target}: expected a recall above 0 and at most 1")

    def numbers(self, k: int) -> tuple[int, int]:
        """Shortlist and ef_search for k results: in proportion for more than they are for, as they are for fewer."""
        most = max(k, self.k)  # in whole numbers, rounded up, as `stored_numbers_sql` does
        shortlist, ef_search = -(-self.shortlist * most // self.k), -(-self.ef_search * most // self.k)
        return min(SHORTLIST_LIMIT, shortlist), min(EF_SEARCH_LIMIT, ef_search)


def stored_numbers_sql(relation: str, full: str, short: str, k: str) -> str:
    """A SELECT of what is stored for a column, as `Setting.numbers` has it: one row of two numbers, or none.

    Args:
        relation: name of the table that holds the short vectors, as SQL text of a string.
        full: the full vector's column, likewise.
        short: the short vector's column, likewise.
        k: results, as SQL text of a `numeric`: no product overflows.
    """
    limits = {"shortlist": SHORTLIST_LIMIT, "ef_search": EF_SEARCH_LIMIT}
    scaled = [f"least({limit}, ceil(s.{name} * greatest(s.k, {k}) / s.k))" for name, limit in limits.items()]
    return (
        f"SELECT {', '.join(scaled)} FROM pgmrl.settings AS s WHERE s.relation = pg_catalog.to_regclass({relation}) "  # noqa: S608
        f"AND s.full_column = {full} AND s.short_column = {short}"
    )


def setting_of(column: Any) -> Setting | None:
    """The setting that searches through a column take now; None where pgmrl's own defaults hold."""
    setting = base_column(column).info.get(SETTING_KEY)
    return setting if isinstance(setting, Setting) else None


def load_settings(connection: Connection | Session, *columns: Any) -> dict[str, Setting]:
    """Have searches take what `pgmrl tune --apply` stored; call it once, when the application starts.

    A column without a stored setting takes pgmrl's own defaults (again), as all do where pgmrl's schema is missing.

    Args:
        connection: of the database; its role needs no rights of its own.
        *columns: Matryoshka attributes or columns, or a MetaData for all columns in it.

    Returns:
        The settings that were found, by the column's name.

    Raises:
        DefinitionError: a column is no Matryoshka column.

    """
    connection = sqlalchemy_connection(connection)
    settings = {}
    for column in _matryoshka_columns(columns):
        setting = stored_setting(connection, column)
        base = base_column(column)
        if setting is None:
            base.info.pop(SETTING_KEY, None)
        else:
            base.info[SETTING_KEY] = setting
            settings[str(base)] = setting
    return settings


def stored_setting(connection: Connection | Session, column: Any) -> Setting | None:
    """What is stored for a column's short vectors; None for nothing, or where pgmrl's schema is missing."""
    connection = sqlalchemy_connection(connection)
    if installed_revision(connection) is None:
        return None
    query = text(
        "SELECT k, shortlist, ef_search, target, recall, latency_ms, row_count FROM pgmrl.settings "
        "WHERE relation = to_regclass(:relation) AND full_column = :full AND short_column = :short"
    )
    row = catalogue_result(connection, query, _key(connection, column)).first()
    return None if row is None else Setting(*row)


def store_setting(connection: Connection | Session, column: Any, setting: Setting, *, short: str | None = None) -> None:
    """Keep a setting for a column's short vectors, in the caller's transaction, in place of an older one.

    SQL functions take it from their next call on, models with `load_settings`.

    Args:
        connection: its role needs INSERT and UPDATE on pgmrl.settings.
        column: the Matryoshka attribute or column.
        setting: what to keep.
        short: the short column's name, where it is not the model's: of one that is to come.

    Raises:
        NotMigrated: as `require_schema`, or the table is not there.
        DefinitionError: the column has no short vectors.

    """
    connection = sqlalchemy_connection(connection)
    require_schema(connection)
    key = _key(connection, column)
    key["short"] = short or key["short"]
    if key["short"] is None:
        raise DefinitionError(f"{base_column(column)} has no short vectors: there is nothing to set")
    if connection.execute(text("SELECT pg_catalog.to_regclass(:relation)"), key).scalar() is None:
        raise NotMigrated(f"there is no table {key['relation']} in this database: run its migrations")
    names = list(Setting.__dataclass_fields__)
    values = {name: getattr(setting, name) for name in names}
    statement = text(
        f"INSERT INTO pgmrl.settings (relation, full_column, short_column, {', '.join(names)}) "  # noqa: S608
        f"VALUES (CAST(:relation AS regclass), :full, :short, {', '.join(f':{name}' for name in names)}) "
        "ON CONFLICT (relation, full_column, short_column) DO UPDATE SET "
        f"{', '.join(f'{name} = EXCLUDED.{name}' for name in names)}, set_at = now(), set_by = current_user"
    )
    with pinned(connection):
        connection.execute(statement, {**key, **values})


def forget_setting(connection: Connection | Session, column: Any) -> bool:
    """Go back to pgmrl's own defaults, in the caller's transaction; False where nothing was stored.

    Raises:
        NotMigrated: as `require_schema`.

    """
    connection = sqlalchemy_connection(connection)
    require_schema(connection)
    statement = text(
        "DELETE FROM pgmrl.settings "
        "WHERE relation = to_regclass(:relation) AND full_column = :full AND short_column = :short"
    )
    key = _key(connection, column)
    with pinned(connection):
        return connection.execute(statement, key).rowcount > 0


def _matryoshka_columns(sources: tuple[Any, ...]) -> Iterator[Column[Any]]:
    """The columns themselves, and those of each MetaData."""
    for source in sources:
        if not isinstance(source, MetaData):
            attachment_of(source)
            yield base_column(source)
            continue
        for table in source.tables.values():
            yield from (c for c in table.columns if INFO_KEY in c.info and c.info[INFO_KEY].full == c.name)


def _key(connection: Connection, column: Any) -> dict[str, str | None]:
    # of the table that holds the short vectors: a side table's column by its own name is the same one
    table, attachment = vectors_table(column), attachment_of(column)
    relation = relation_name(connection, server_name(connection, table))
    return {"relation": relation, "full": attachment.full, "short": attachment.short}
