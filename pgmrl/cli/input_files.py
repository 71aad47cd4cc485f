"""Two more places that `pgmrl load` reads rows from: a folder of text files, and standard input."""

from __future__ import annotations

import shutil
import sys
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pgmrl.cli.column_types import TYPES, ColumnType
from pgmrl.cli.input_rows import Survey, file_source, text_lines
from pgmrl.errors import IngestError
from pgmrl.model.argument_types import is_unicode
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pgmrl.cli.input_rows import RowSource
    from pgmrl.cli.text_template import TextTemplate

    Row = dict[str, Any]

__all__ = ["folder_source", "standard_input"]


def folder_source(folder: Path, pattern: str) -> RowSource:
    """The text files below a folder, each a row with its `path` (below the folder) and its `text`, by path.

    Args:
        folder: is no part of the path, so that it may be elsewhere the next time.
        pattern: as of `Path.glob`, such as `**/*.md`.

    Raises:
        IngestError: no such folder, or no file of the pattern in it.
    """
    if not folder.is_dir():
        raise IngestError(f"there is no folder {folder}")
    try:
        paths = sorted(path for path in folder.glob(pattern) if path.is_file())
    except (ValueError, NotImplementedError) as error:
        raise IngestError(f"--files: expected a pattern such as '**/*.md', got {pattern!r}: {error}") from None
    if not paths:
        raise IngestError(f"there is no file {pattern} in {folder}")
    return _Files(folder, paths)


@dataclass(frozen=True)
class _Files:
    """Text files in UTF-8."""

    folder: Path
    paths: list[Path]

    def survey(self, types: Mapping[str, ColumnType], template: TextTemplate | None, *skipped: str | None) -> Survey:
        if template is not None:
            template.check_columns(("path", "text"), "--files")
        for _ in self.rows({}):  # one that cannot be read is named before anything is written
            pass
        kinds = {name: types.get(name) or TYPES["text"] for name in ("path", "text") if name not in skipped}
        return Survey(kinds, {}, len(self.paths))

    def rows(self, _parsed: Mapping[str, ColumnType]) -> Iterator[Row]:
        for path in self.paths:
            try:
                text = "".join(line for _, line in text_lines(path))
            except OSError as error:
                raise IngestError(f"{path}: {error.strerror}") from None
            name = path.relative_to(self.folder).as_posix()
            if not is_unicode(name):
                raise IngestError(
                    f"{safe_repr(name)}: the file's name is not UTF-8, and no key could be made of it: rename it"
                )
            yield {"path": name, "text": text}


@contextmanager
def standard_input(form: str) -> Iterator[RowSource]:
    """What comes by standard input, kept in a temporary file: rows are read once to look at them and once to load them.

    Args:
        form: jsonl, csv, tsv or parquet.
    """
    with tempfile.TemporaryDirectory(prefix="pgmrl-") as folder:
        path = Path(folder) / f"input.{form}"
        with path.open("wb") as file:
            shutil.copyfileobj(sys.stdin.buffer, file)
        yield file_source(path)
