"""The table that rows are loaded into, as the model and the catalogue have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Table

from pgmrl.errors import IngestError, NotMigrated
from pgmrl.ingestion.driver import plain_cursor, transaction_kept
from pgmrl.ingestion.values import ModelValues, converted
from pgmrl.model.columns import Attachment, attachment_of, base_column
from pgmrl.model.rotation import Rotation
from pgmrl.names import qualified

if TYPE_CHECKING:
    from pgmrl.ingestion.driver import Driver
    from pgmrl.model.metrics import FullType
    from pgmrl.model.shortening import Definition

__all__ = ["TargetTable"]

VECTOR_TYPES: Final = frozenset({"vector", "halfvec"})

# The type of each column, of a domain the one below it, and the type that its values are sent as.
_COLUMN_TYPES: Final = """
    WITH RECURSIVE plain AS (
        SELECT a.attnum, a.attname, a.atttypid AS oid FROM pg_attribute AS a
        WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL  -- a domain may be of a domain
        SELECT p.attnum, p.attname, t.typbasetype FROM plain AS p
        JOIN pg_type AS t ON t.oid = p.oid AND t.typtype = 'd'
    )
    SELECT p.attname, t.typname, CASE
        WHEN t.typname IN ('vector', 'halfvec', 'sparsevec', 'bit') THEN 'bytea'::regtype
        WHEN t.typtype = 'e' OR t.typreceive::text IN ('textrecv', 'varcharrecv', 'bpcharrecv', 'citextrecv')
        THEN 'text'::regtype ELSE t.oid END::oid::integer
    FROM plain AS p JOIN pg_type AS t ON t.oid = p.oid AND t.typtype <> 'd'
    ORDER BY p.attnum
"""


@dataclass(frozen=True, slots=True)
class TargetTable:
    """The table that is loaded.

    Attributes:
        table: the application's Table.
        schema: the table's in this connection, which may translate schemas; None for the search_path's.
        full_column: the vector column's name.
        vector_type: its type there; beside a side table it may differ from the definition's.
        attachment: what pgmrl knows of the column.
        model_values: what the Table says of values that the catalogue does not: defaults and types in Python.
        column_types: the type of each column in the catalogue, of a domain the one below it.
        sent_types: the oid of the type that each column is sent as.
        keys: the primary key's columns.
    """

    table: Table
    schema: str | None
    full_column: str
    vector_type: FullType
    attachment: Attachment
    model_values: ModelValues
    column_types: dict[str, str]
    sent_types: dict[str, int]
    keys: tuple[str, ...]

    @classmethod
    def of(cls, driver: Driver, column: Any, schema: str | None = None) -> TargetTable:
        """The table of a Matryoshka column, read from the catalogue.

        Args:
            driver: a connection of psycopg's.
            column: the Matryoshka attribute or column.
            schema: the table's in this connection; None for the search_path's.

        Raises:
            DefinitionError: it is no Matryoshka column.
            IngestError: it is no column of a Table.
            NotMigrated: the table, one of its vector columns or the trigger that fills one is not in the database.
        """
        attachment, base = attachment_of(column), base_column(column)
        table = base.table
        if not isinstance(table, Table):
            raise IngestError(f"{column} is no column of a Table")
        column_types, sent_types = _column_types(driver, table, schema, base.name)
        target = cls(
            table,
            schema,
            base.name,
            cast("FullType", column_types[base.name]),
            attachment,
            ModelValues.of(table, except_for={base.name, attachment.short}),
            column_types,
            sent_types,
            tuple(key.name for key in table.primary_key.columns),
        )
        target._check_sync_trigger(driver)
        return target

    @property
    def definition(self) -> Definition:
        """Full and short vector."""
        return self.attachment.definition

    @property
    def name(self) -> str:
        """The table as SQL text."""
        return qualified(self.schema, self.table.name)

    @property
    def narrowest_type(self) -> FullType:
        """The type whose range a vector must fit: also that of its copy in a side table."""
        return "halfvec" if "halfvec" in {self.vector_type, self.definition.full} else "vector"

    def sent(self, name: str, value: Any) -> Any:
        """A value of a column as it is sent.

        Raises:
            Exception: whatever a wrong value makes its conversion stumble over.
        """
        bound = self.model_values.bound(name, value)
        return None if bound is None else converted(self.column_types[name], bound)

    def _check_sync_trigger(self, driver: Driver) -> None:
        """A rotated short column without its trigger would stay empty, and nobody would know."""
        short, rule = self.attachment.short, self.definition.short.by
        if short is None or not isinstance(rule, Rotation) or self.attachment.side is not None:
            return
        if short not in self.sent_types:
            if rule.axes is None:
                return  # the migration that adds it fills it
            raise NotMigrated(f"table {self.table.fullname} has no column {short}: run the migration that adds it")
        query = (
            "SELECT 1 FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND tgenabled IN ('O', 'A') "
            "AND position(convert_to(%s, 'UTF8') IN tgargs) > 0"
        )
        with transaction_kept(driver):
            trigger = plain_cursor(driver).execute(query, [self.name, str(rule.id)]).fetchone()
        if trigger is None:
            raise NotMigrated(
                f"nothing keeps {self.table.fullname}.{short} in step with {self.full_column}: run the migration that "
                "adds it"
            )


def _column_types(
    driver: Driver, table: Table, schema: str | None, full_column: str
) -> tuple[dict[str, str], dict[str, int]]:
    """The type of each column, and the oid of the type that its values are sent as."""
    with transaction_kept(driver):
        rows = plain_cursor(driver).execute(_COLUMN_TYPES, [qualified(schema, table.name)]).fetchall()
    if not rows:
        raise NotMigrated(f"there is no table {table.fullname} in this database: run the application's migrations")
    column_types = {name: type_ for name, type_, _ in rows}
    if column_types.get(full_column) not in VECTOR_TYPES:
        raise NotMigrated(
            f"table {table.fullname} has no vector column {full_column}: run the application's migrations"
        )
    return column_types, {name: oid for name, _, oid in rows}
