"""Which limit of pgvector's ended the scans of a filtered search before the shortlist was full, and what helps."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sqlalchemy import text

from pgmrl import database
from pgmrl.limits import MAX_SCAN_TUPLES
from pgmrl.model.scan_settings import max_scan_tuples
from pgmrl.searching.plans import explained, shortlist_scans, sources
from pgmrl.searching.scan_ends import scan_end

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import Connection

    from pgmrl.searching.plans import Node
    from pgmrl.searching.scan_ends import ScanEnd
    from pgmrl.searching.subject import AnySelect

__all__ = ["EndedScan", "ScanLimit", "ended_scan", "scan_limit"]

EXECUTED: Final = "ANALYZE, VERBOSE, TIMING OFF, BUFFERS OFF"
COVERING: Final = (
    "declare an index on the filter's columns that includes the short vector (FilterIndex), which finds the shortlist "
    "without the graph"
)


class EndedScan(NamedTuple):
    """How the scan of one search ended.

    Attributes:
        end: why.
        candidates: rows it returned.
        requested: rows of the shortlist.
        limit: the setting that ended it with its value, in words; empty for another end.

    """

    end: ScanEnd
    candidates: int
    requested: int
    limit: str

    @property
    def why(self) -> str:
        """In words; empty where no limit ended it."""
        if not self.limit:
            return ""
        return f"the scan ended at {self.limit} with {self.candidates:,} of {self.requested:,} candidates"


@dataclass(frozen=True, slots=True)
class ScanLimit:
    """The limit that ended most of the scans that were looked into.

    Attributes:
        end: `max_scan_tuples` or `scan_mem`.
        limit: the setting with its value, in words.
        ended: scans that it ended.
        scans: that were looked into.
        candidates: rows that those returned, the median.
        requested: rows of the shortlist.

    """

    end: Literal["max_scan_tuples", "scan_mem"]
    limit: str
    ended: int
    scans: int
    candidates: float
    requested: int

    @property
    def message(self) -> str:
        """What is, in words."""
        return (
            f"{self.ended} of {self.scans} scans that were looked into ended at {self.limit}, with "
            f"{self.candidates:,.0f} of {self.requested:,} candidates (median)"
        )

    @property
    def remedy(self) -> str:
        """What to do."""
        return f"{remedy(self.end)}; a larger ef_search does not help"


def remedy(end: ScanEnd) -> str:
    """What helps against a limit: the index first, since a longer scan takes longer."""
    setting = "hnsw.max_scan_tuples" if end == "max_scan_tuples" else "hnsw.scan_mem_multiplier"
    return f"{COVERING}; or raise {setting}"


def ended_scan(connection: Connection, statement: AnySelect, shortlist: int) -> EndedScan | None:
    """Run a search without its fallback, and see how the scan of the index ended; None where no index was scanned.

    Args:
        connection: in a transaction.
        statement: of the search, with its parameters.
        shortlist: rows that it asks for.

    """
    plan = explained(connection, statement, EXECUTED)["Plan"]
    parts = shortlist_scans(plan)
    scans = [scan for part in parts for scan in sources(part) if "Order By" in scan]
    if not scans:
        return None
    rows = sum(part["Actual Rows"] * part["Actual Loops"] for part in parts)
    tuples, memory, multiplier, indexed = _settings(connection, scans)
    limit = max_scan_tuples(shortlist) or tuples
    end = scan_end(rows, shortlist, [_examined(scan) for scan in scans], limit, indexed)
    if end is None:
        return None
    limits = {
        "max_scan_tuples": f"hnsw.max_scan_tuples ({limit:,} rows)",
        "scan_mem": f"its memory, work_mem ({memory}) times hnsw.scan_mem_multiplier ({multiplier})",
    }
    return EndedScan(end, round(rows), shortlist, limits.get(end, ""))


def scan_limit(scans: Iterable[EndedScan]) -> ScanLimit | None:
    """The limit that ended most of these; None where none ended one."""
    known = list(scans)
    limited = [scan for scan in known if scan.limit]
    if not limited:
        return None
    ((end, limit), count) = Counter((scan.end, scan.limit) for scan in limited).most_common(1)[0]
    own: list[Any] = [scan.candidates for scan in limited if scan.end == end]
    name: Any = end
    return ScanLimit(name, limit, count, len(known), float(median(own)), limited[0].requested)


def _examined(scan: Node) -> float:
    rows: float = scan["Actual Rows"] + scan.get("Rows Removed by Filter", 0)
    return rows * float(scan["Actual Loops"])


def _settings(connection: Connection, scans: list[Node]) -> tuple[int, str, str, float | None]:
    """hnsw.max_scan_tuples, work_mem and hnsw.scan_mem_multiplier of the session, and the rows of the indexes."""
    names = [(str(scan.get("Schema")), str(scan["Index Name"])) for scan in scans]
    row = database.catalogue_result(
        connection,
        text(
            "SELECT coalesce(nullif(current_setting('hnsw.max_scan_tuples', true), ''), :tuples)::bigint, "
            "current_setting('work_mem'), "
            "coalesce(nullif(current_setting('hnsw.scan_mem_multiplier', true), ''), '1'), "
            "(SELECT sum(c.reltuples) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE n.nspname = ANY(:schemas) AND c.relname = ANY(:names) AND c.relkind = 'i' AND c.reltuples >= 0)"
        ),
        {
            "tuples": str(MAX_SCAN_TUPLES),
            "schemas": [schema for schema, _ in names],
            "names": [name for _, name in names],
        },
    ).one()
    return int(row[0]), str(row[1]), str(row[2]), None if row[3] is None else float(row[3])
