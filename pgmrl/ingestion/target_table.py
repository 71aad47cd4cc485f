"""The table that rows are loaded into, as the model and the catalogue have it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from sqlalchemy import Table

from pgmrl.errors import IngestError, NotMigrated
from pgmrl.ingestion.driver import catalogue_rows
from pgmrl.ingestion.server_types import ServerType, column_types
from pgmrl.ingestion.values import ModelValues
from pgmrl.model.columns import Attachment, attachment_of, base_column
from pgmrl.model.rotation import Rotation
from pgmrl.names import qualified

if TYPE_CHECKING:
    from pgmrl.ingestion.driver import Driver
    from pgmrl.model.metrics import FullType
    from pgmrl.model.shortening import Definition

__all__ = ["TargetTable"]

VECTOR_TYPES: Final = frozenset({"vector", "halfvec"})


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
        types: how values get into each column.
        keys: the primary key's columns.
        changes_rows: whether a trigger of somebody else's may change a row before it is stored.
    """

    table: Table
    schema: str | None
    full_column: str
    vector_type: FullType
    attachment: Attachment
    model_values: ModelValues
    types: dict[str, ServerType]
    keys: tuple[str, ...]
    changes_rows: bool

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
        types = _column_types(driver, table, schema, base.name)
        target = cls(
            table,
            schema,
            base.name,
            cast("FullType", types[base.name].name),
            attachment,
            ModelValues.of(table, except_for={base.name, attachment.short}),
            types,
            tuple(key.name for key in table.primary_key.columns),
            _changes_rows(driver, qualified(schema, table.name)),
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
        return None if bound is None else self.types[name].convert(bound)

    def compared(self, name: str, value: Any) -> Any:
        """A value of a column as a parameter to compare with; errors as `sent`."""
        return self.sent(name, value) if self.types[name].known else self.model_values.bound(name, value)

    def _check_sync_trigger(self, driver: Driver) -> None:
        """A rotated short column without its trigger would stay empty, and nobody would know."""
        short, rule = self.attachment.short, self.definition.short.by
        if short is None or not isinstance(rule, Rotation) or self.attachment.side is not None:
            return
        if short not in self.types:
            if rule.axes is None:
                return  # the migration that adds it fills it
            raise NotMigrated(f"table {self.table.fullname} has no column {short}: run the migration that adds it")
        query = (
            "SELECT 1 FROM pg_trigger WHERE tgrelid = %s AND tgenabled IN ('O', 'A') "
            "AND position(convert_to(%s, 'UTF8') IN tgargs) > 0"
        )
        if not catalogue_rows(driver, query, self.name, str(rule.id)):
            raise NotMigrated(
                f"nothing keeps {self.table.fullname}.{short} in step with {self.full_column}: run the migration that "
                "adds it"
            )


# Ours are known by their function, which may have been made for a table of another name.
_CHANGING = """
SELECT EXISTS (
    SELECT FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
    WHERE (g.tgrelid = place.oid OR g.tgrelid IN (SELECT t.relid FROM pg_partition_tree(place.oid) AS t))
      AND g.tgtype & 7 = 7  -- for each row, before, insert
      AND g.tgenabled <> 'D' AND p.proname NOT LIKE 'z_\\_pgmrl\\_%%'
) FROM (SELECT CAST(%s AS oid) AS oid) AS place
"""


def _changes_rows(driver: Driver, name: str) -> bool:
    """Whether the table or a partition has a trigger before INSERT that is not pgmrl's."""
    return bool(catalogue_rows(driver, _CHANGING, name)[0][0])


def _column_types(driver: Driver, table: Table, schema: str | None, full_column: str) -> dict[str, ServerType]:
    """How values get into each column, of which one is the vector's."""
    types = column_types(driver, qualified(schema, table.name))
    if not types:
        raise NotMigrated(f"there is no table {table.fullname} in this database: run the application's migrations")
    if full_column not in types or types[full_column].name not in VECTOR_TYPES:
        raise NotMigrated(
            f"table {table.fullname} has no vector column {full_column}: run the application's migrations"
        )
    return types
