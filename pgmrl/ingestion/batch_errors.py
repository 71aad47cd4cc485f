"""What an error of a batch says: which row it was, what is wrong with it, and what has been written."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pgmrl.errors import IngestError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

    from pgmrl.ingestion.target_table import TargetTable

__all__ = ["BatchErrors"]


@dataclass(frozen=True, slots=True)
class BatchErrors:
    """Errors of one batch.

    Attributes:
        table: that is loaded.
        written: rows of the batches before.
    """

    table: TargetTable
    written: int

    def of_row(self, number: int, row: Mapping[str, Any], problem: str) -> IngestError:
        """An error that one row causes.

        Args:
            number: the row's place in the batch, from 0.
            row: the row.
            problem: what is wrong with it.
        """
        return self.of_batch(f"{self._named(number, row)}: {problem}")

    def of_value(self, number: int, row: Mapping[str, Any], name: str, value: Any) -> IngestError:
        """An error that one value of a row causes."""
        return self.of_row(number, row, self.refused(name, value))

    def of_batch(self, problem: str) -> IngestError:
        """An error of the batch."""
        return IngestError(f"{problem}. Nothing of its batch was written, {self.written:,} rows before it were.")

    def of_server(
        self, error: psycopg.Error, numbers: list[int] | None = None, rows: list[Mapping[str, Any]] | None = None
    ) -> IngestError:
        """An error that the server raised.

        Args:
            error: the server's.
            numbers: places in the batch of the rows that were being sent; None where it is of no row in particular.
            rows: these rows.
        """
        diag = error.diag
        # "COPY packages, line 17" in the server's language
        line = re.search(rf"COPY {re.escape(self.table.table.name)}, \S+ (\d+)", diag.context or "")
        place = int(line.group(1)) - 1 if line else -1
        messages = [diag.message_primary or str(error).strip()]
        if diag.message_detail and "Failing row contains" not in diag.message_detail:  # which is a page of numbers
            messages.append(diag.message_detail.rstrip("."))
        problem = ": ".join(messages)
        if numbers is not None and rows is not None and 0 <= place < len(rows):
            return self.of_row(numbers[place], rows[place], problem)
        return self.of_batch(problem)

    def refused(self, name: str, value: Any) -> str:
        """What is wrong with a value."""
        type_ = self.table.types[name]
        expected = f"column {safe_repr(name)}: expected a value of type {type_.name}, got {safe_repr(value)}"
        return expected if type_.known else f"{expected}: psycopg has no binary form of that; register the type"

    def _named(self, number: int, row: Mapping[str, Any]) -> str:
        key = ", ".join(f"{key}={safe_repr(row.get(key))}" for key in self.table.keys) or "no key"
        return f"row {self.written + number + 1:,} ({key})"
