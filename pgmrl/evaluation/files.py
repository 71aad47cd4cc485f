"""Files of queries and judgements, as TREC and BEIR have them."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from pgmrl.errors import MeasureError
from pgmrl.measure.queries import array_of
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["grade", "qrels", "queries", "vectors"]

IDS: Final = ("_id", "id", "qid", "query_id")
GRADES: Final = 2**31  # trec_eval keeps a grade in 32 bits


def queries(path: Path) -> list[tuple[str, str | None, Any]]:
    """Id, text and vector of each query; the text or the vector may be missing.

    Raises:
        MeasureError: it cannot be read, has another format, or names a query twice.

    """
    known: dict[str, tuple[str, str | None, Any]] = {}
    read: Callable[[str, str], tuple[str, str | None, Any]] | None = None
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        read = read or _reader(line, where)
        query = read(line, where)
        if query[0] in known:
            raise MeasureError(f"{where}: there was a query {safe_repr(query[0])} before: give each its own id")
        known[query[0]] = query
    if not known:
        raise MeasureError(f"{path} is empty: there are no queries in it")
    return list(known.values())


def qrels(path: Path) -> dict[str, dict[str, int]]:
    """Grades by query and document, of a file in TREC's form or in BEIR's.

    Raises:
        MeasureError: it cannot be read, has another format, or contradicts itself.

    """
    relevance: dict[str, dict[str, int]] = {}
    lines: dict[tuple[str, str], int] = {}
    tabs: bool | None = None
    for number, line in _lines(path):
        where = f"{path}, line {number}"
        if tabs is None:
            tabs = len(line.split("\t")) == 3
            if tabs and re.fullmatch(r"[A-Za-z_ -]+", line.split("\t")[2]):
                continue  # the header
        query, document, stated = _judgement(line, tabs, where)
        value = grade(stated, where)
        before = relevance.setdefault(query, {}).setdefault(document, value)
        first = lines.setdefault((query, document), number)
        if before != value:
            raise MeasureError(
                f"{where}: document {safe_repr(document)} has relevance {value} for query {safe_repr(query)}, "
                f"line {first} says {before}: keep one of them"
            )
    if not relevance:
        raise MeasureError(f"{path} is empty: there are no judgements in it")
    return relevance


def vectors(path: Path) -> NDArray[Any]:
    """The vectors of a `.npy` file, shape (n, dims).

    Raises:
        MeasureError: it cannot be read.
        VectorError: it is no such array.

    """
    try:
        return array_of(path)
    except OSError as error:
        raise MeasureError(f"{path} cannot be read: {error.strerror or error}") from None


def grade(value: Any, where: str) -> int:
    """A relevance as a number: a whole one, also below 0, as some of TREC's judgements have it.

    Raises:
        MeasureError: it is none.

    """
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole and not (isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,20}", value)):
        raise MeasureError(
            f"{where}: relevance {safe_repr(value)} is no whole number: 0 is not relevant, 1 and more are grades"
        )
    if abs(int(value)) >= GRADES:
        raise MeasureError(f"{where}: relevance {value} is no grade: give numbers of 32 bits")
    return int(value)


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, by their numbers."""
    try:
        with path.open(encoding="utf-8-sig") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, line.rstrip("\r\n")
    except OSError as error:
        raise MeasureError(f"{path} cannot be read: {error.strerror or error}") from None
    except UnicodeEncodeError:
        raise MeasureError(f"{path} cannot be read: no file can have such a name") from None
    except UnicodeDecodeError as error:
        raise MeasureError(f"{path} is not UTF-8 ({error}): convert it") from None


# -- queries -------------------------------------------------------------------------------------------------------


def _reader(line: str, where: str) -> Callable[[str, str], tuple[str, str | None, Any]]:
    """What reads lines such as the first."""
    if line.lstrip().startswith("{"):
        return _object
    if line.lstrip().startswith("<"):
        raise MeasureError(f"{where}: topics in TREC's markup are not read: write `id<TAB>text`, a query a line")
    return _tabbed


def _object(line: str, where: str) -> tuple[str, str | None, Any]:
    try:
        query = json.loads(line)
    except ValueError as error:
        raise MeasureError(f"{where} is no JSON: {error}") from None
    name = next((key for key in IDS if isinstance(query, dict) and query.get(key) is not None), None)
    if name is None:
        raise MeasureError(f'{where} is no object with `_id`: write {{"_id": …, "text": …}}, a query a line')
    text, vector = query.get("text"), query.get("vector")
    if not (text is None or isinstance(text, str)) or (vector is None and not (text or "").strip()):
        raise MeasureError(f"{where}: query {safe_repr(query[name])} has neither a `text` nor a `vector`")
    return str(query[name]), text, vector


def _tabbed(line: str, where: str) -> tuple[str, str | None, Any]:
    name, tab, text = line.partition("\t")
    if not tab or not name.strip() or not text.strip():
        raise MeasureError(f"{where} is neither `id<TAB>text` nor a JSON object: {safe_repr(line[:60])}")
    return name.strip(), text.strip(), None


# -- judgements ----------------------------------------------------------------------------------------------------


def _judgement(line: str, tabs: bool, where: str) -> tuple[str, str, str]:
    fields = [field.strip() for field in line.split("\t")] if tabs else line.split()
    if len(fields) != (3 if tabs else 4) or not all(fields):
        raise MeasureError(
            f"{where} is neither TREC's `query 0 document relevance` nor BEIR's `query<TAB>document<TAB>relevance`, "
            f"or not the form of the lines before: {safe_repr(line[:60])}"
        )
    return fields[0], fields[-2], fields[-1]
