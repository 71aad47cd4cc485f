"""The queue of a table of chunks: the marked rows of its parent, and the chunks that take the place of theirs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import text

from pgmrl.database.search_path import caller_path
from pgmrl.embedding_queue.queue_entries import Entry, QueueEntries, Reinstalled, RowText, plain_sql
from pgmrl.names import quoted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

    from pgmrl.embedding_queue.chunk_table import ChunkTable

__all__ = ["ChunkEntries"]


_INSTALLED: Final = text("""
SELECT template, model, size, overlap FROM pgmrl.chunk_tables WHERE chunks = to_regclass(:owner)
""")


class ChunkEntries(QueueEntries):
    """The marked rows of a parent.

    Args:
        table: of the chunks.
        most_attempts: after which a row is parked.
        pause: seconds before a row's second attempt.
    """

    def __init__(self, table: ChunkTable, most_attempts: int, pause: float) -> None:
        super().__init__(table.parent, most_attempts, pause)
        self.table = table
        keys = table.parent.keys
        chunks = plain_sql(table.owner)
        names = ", ".join(f"k{n}" for n, _ in enumerate(keys))
        arrays = ", ".join(f"pg_catalog.unnest(CAST(:k{n} AS pg_catalog.text[]))" for n, _ in enumerate(keys))
        parents = f"ROWS FROM ({arrays}) WITH ORDINALITY AS i ({names}, n)"
        own = [plain_sql(quoted(name)) for name in table.columns]
        types = [plain_sql(type_) for _, type_ in keys]
        joined = " AND ".join(f"c.{own[n]} = CAST(i.k{n} AS {type_})" for n, type_ in enumerate(types))
        # what has the vector of a chunk waits for this transaction, or this one for it: places stay as they are
        self._held = text(
            "SELECT CAST(i.n AS pg_catalog.int4), CAST(c.tableoid AS pg_catalog.int8), CAST(c.ctid AS pg_catalog.text) "
            f"FROM {parents} JOIN {chunks} AS c ON {joined} FOR UPDATE OF c"
        )
        same = (
            "e.n OPERATOR(pg_catalog.=) w.n AND e.place_of_text OPERATOR(pg_catalog.=) w.place_of_text "
            'AND e.text COLLATE pg_catalog."C" OPERATOR(pg_catalog.=) w.text COLLATE pg_catalog."C"'
        )
        numbered = (
            'pg_catalog.row_number() OVER (PARTITION BY {0}.n, {0}.text COLLATE pg_catalog."C" ORDER BY {0}.ordinal) '
            "AS place_of_text"
        )
        here = "c.tableoid OPERATOR(pg_catalog.=) {0}.leaf AND c.ctid OPERATOR(pg_catalog.=) {0}.place"
        moved = " OR ".join(f"e.{name} OPERATOR(pg_catalog.<>) w.{name}" for name in ("ordinal", "start", "stop"))
        inserted = ", ".join(f"CAST(i.k{n} AS {type_})" for n, type_ in enumerate(types))
        # of texts that occur twice the first stays the first; a chunk that stays keeps its row, and so its vector
        self._replace = text(f"""
WITH held AS MATERIALIZED (
    SELECT h.n, CAST(h.leaf AS pg_catalog.oid) AS leaf, CAST(h.place AS pg_catalog.tid) AS place
    FROM ROWS FROM (pg_catalog.unnest(CAST(:held AS pg_catalog.int4[])),
        pg_catalog.unnest(CAST(:leaves AS pg_catalog.int8[])), pg_catalog.unnest(CAST(:places AS pg_catalog.text[]))
    ) AS h (n, leaf, place)
), existing AS MATERIALIZED (
    SELECT x.*, {numbered.format("x")} FROM (
        SELECT h.n, h.leaf, h.place, CAST(c.text AS pg_catalog.text) AS text,
            CAST(c.ordinal AS pg_catalog.int8) AS ordinal,
            CAST(c.start AS pg_catalog.int8) AS start, CAST(c.stop AS pg_catalog.int8) AS stop
        FROM held AS h JOIN {chunks} AS c ON {here.format("h")}
    ) AS x
), wanted AS MATERIALIZED (
    SELECT x.*, {numbered.format("x")}
    FROM ROWS FROM (pg_catalog.unnest(CAST(:n AS pg_catalog.int4[])),
        pg_catalog.unnest(CAST(:ordinal AS pg_catalog.int8[])),
        pg_catalog.unnest(CAST(:start AS pg_catalog.int8[])), pg_catalog.unnest(CAST(:stop AS pg_catalog.int8[])),
        pg_catalog.unnest(CAST(:text AS pg_catalog.text[]))
    ) AS x (n, ordinal, start, stop, text)
), gone AS (
    DELETE FROM {chunks} AS c USING existing AS e
    WHERE {here.format("e")} AND NOT EXISTS (SELECT FROM wanted AS w WHERE {same})
), moved AS (
    UPDATE {chunks} AS c SET ordinal = w.ordinal, start = w.start, stop = w.stop
    FROM existing AS e JOIN wanted AS w ON {same}
    WHERE {here.format("e")} AND ({moved})
)
INSERT INTO {chunks} ({", ".join(own)}, ordinal, start, stop, text)
SELECT {inserted}, w.ordinal, w.start, w.stop, w.text
FROM wanted AS w JOIN {parents} ON i.n OPERATOR(pg_catalog.=) w.n
WHERE NOT EXISTS (SELECT FROM existing AS e WHERE {same}) ORDER BY w.n, w.ordinal
""")

    def check_installed(self, connection: Connection) -> None:
        """Check that the triggers still have the declaration that the chunks are cut by.

        Raises:
            Reinstalled: they do not.
        """
        row = connection.execute(_INSTALLED, {"owner": self.table.owner}).first()
        declared = self.table.chunks
        if row is None or tuple(row) != (declared.template, declared.by, declared.size, declared.overlap):
            raise Reinstalled(
                f"the chunks in {self.table.title} are cut by {'no' if row is None else 'another'} declaration now: "
                "start the worker again"
            )

    def store(self, connection: Connection, rows: Sequence[RowText], vectors: Sequence[Any]) -> list[Entry]:
        """Replace the chunks of parents whose text is still the same and which nobody holds; the entries of these.

        Args:
            connection: in a transaction.
            rows: the parents, with the text that was cut.
            vectors: the chunks of each; None where there is no text.

        Raises:
            Reinstalled: the chunks are declared anew meanwhile; the transaction must not be committed.
        """
        if not rows:
            return []
        digests = {"digests": [row.digest for row in rows]}
        locked = [n for n, _, _ in connection.execute(self._lock, self._keys([row.entry for row in rows]) | digests)]
        entries = [rows[n - 1].entry for n in locked]
        if not entries:
            return []
        keys = self._keys(entries)
        held = connection.execute(self._held, keys).all()
        chunks = [
            (n, ordinal, chunk)
            for n, place in enumerate(locked, 1)
            for ordinal, chunk in enumerate(vectors[place - 1] or ())
        ]
        parameters = {
            "held": [n for n, _, _ in held],
            "leaves": [leaf for _, leaf, _ in held],
            "places": [place for _, _, place in held],
            "n": [n for n, _, _ in chunks],
            "ordinal": [ordinal for _, ordinal, _ in chunks],
            "start": [chunk.start for _, _, chunk in chunks],
            "stop": [chunk.stop for _, _, chunk in chunks],
            "text": [chunk.text for _, _, chunk in chunks],
        }
        with caller_path(connection):  # for the application's triggers
            connection.execute(self._replace, keys | parameters)
        self.check_installed(connection)  # what is declared after this marks every row again
        return entries
