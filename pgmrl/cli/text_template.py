"""`--text`: what of a row is embedded."""

from __future__ import annotations

from dataclasses import dataclass
from string import Formatter
from typing import TYPE_CHECKING, Any, Final

from pgmrl.errors import IngestError
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

__all__ = ["TextTemplate", "unescaped"]

BLANK: Final = " \t\n\r\f\v"  # as `Embed` has it


@dataclass(frozen=True, slots=True)
class TextTemplate:
    """A column, or a pattern of columns such as `{name}: {body}`.

    Attributes:
        option: as it was given.
        pattern: with the columns in braces.
        names: the columns.
    """

    option: str
    pattern: str
    names: tuple[str, ...]

    @classmethod
    def of(cls, option: str) -> TextTemplate:
        """A template of the option's text.

        Raises:
            IngestError: braces that do not match.
        """
        try:
            names = tuple(name for _, name, _, _ in Formatter().parse(option) if name is not None)
        except ValueError as error:
            raise IngestError(f"--text {safe_repr(option)}: {error}; write a column, or columns in braces") from error
        return cls(option, option, names) if names else cls(option, f"{{{option}}}", (option,))

    def check_columns(self, columns: Collection[str], place: str) -> None:
        """Refuse rows that lack a column.

        Args:
            columns: that the rows have.
            place: of the row, for the message.

        Raises:
            IngestError: one of the template's is missing.
        """
        for name in self.names:
            if name not in columns:
                raise IngestError(f"{place}: --text names {safe_repr(name)}; the rows have {', '.join(columns)}")

    def fill(self, row: Mapping[str, Any]) -> str | None:
        """The text of a row; None where all of its columns are NULL or blank.

        Raises:
            IngestError: a pattern that cannot be filled.
        """
        if all(row[name] is None or not str(row[name]).strip(BLANK) for name in self.names):
            return None
        try:
            return self.pattern.format(**{name: "" if row[name] is None else row[name] for name in self.names})
        except (ValueError, LookupError, AttributeError) as error:
            raise IngestError(
                f"--text {safe_repr(self.option)}: {error}; write a column, or columns in braces"
            ) from error


def unescaped(option: str) -> str:
    r"""A text of the command line with its line breaks: a shell leaves `\n` and `\t` in quotes as they are."""
    return option.replace("\\n", "\n").replace("\\t", "\t")
