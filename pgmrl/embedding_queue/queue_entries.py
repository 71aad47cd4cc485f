"""The queue of one column: taking entries, reading their texts, storing vectors, and what becomes of the rest."""

from __future__ import annotations

import json
import os
import secrets
import socket
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import bindparam, text

from pgmrl.database.search_path import caller_path, catalogue_result
from pgmrl.errors import MigrationError
from pgmrl.model.embed import text_sql
from pgmrl.model.types import NumpyVector
from pgmrl.names import qualified, quoted
from pgmrl.reprs import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import Connection

    from pgmrl.embedding_queue.embedded_column import EmbeddedColumn
    from pgmrl.model.vectors import VectorArray

__all__ = ["Entry", "QueueEntries", "Reinstalled", "RowText", "plain_sql"]

ERROR_CHARACTERS: Final = 1_000
LONGEST_PAUSE: Final = 3600.0  # seconds between two attempts

_TAKE: Final = text("""
WITH due AS MATERIALIZED (
    SELECT id FROM pgmrl.embedding_queue
    WHERE relation = to_regclass(:owner) AND embedding = :column AND NOT parked AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT :size FOR UPDATE SKIP LOCKED
)
UPDATE pgmrl.embedding_queue AS q
SET due_at = clock_timestamp() + make_interval(secs => :lease), attempts = attempts + 1, worker = :worker
FROM due WHERE q.id = due.id RETURNING q.id, q.key, q.attempts, q.error
""")
# what a statement sees before the text is read, the text has in it: an entry comes with its change
_ENTRIES: Final = text("""
SELECT key, array_agg(id) AS ids FROM pgmrl.embedding_queue
WHERE relation = to_regclass(:owner) AND embedding = :column AND key IN (
    SELECT ARRAY(SELECT jsonb_array_elements_text(k)) FROM jsonb_array_elements(CAST(:keys AS jsonb)) AS k)
GROUP BY key
""")
_FINISH: Final = text("DELETE FROM pgmrl.embedding_queue WHERE id = ANY (:ids)")
_RELEASE: Final = text("""
UPDATE pgmrl.embedding_queue SET worker = NULL, due_at = clock_timestamp(), attempts = greatest(attempts - 1, 0)
WHERE worker = :worker
""")
_POSTPONE: Final = text("""
UPDATE pgmrl.embedding_queue SET worker = NULL, attempts = least(attempts, :most - 1),
    due_at = clock_timestamp() + make_interval(secs => 0.1 * 2 ^ least(attempts, 8))
WHERE id = ANY (:ids)
""")
_FAIL: Final = text("""
UPDATE pgmrl.embedding_queue SET worker = NULL, error = :error, parked = :park OR attempts >= :most,
    due_at = clock_timestamp()
        + make_interval(secs => least(CAST(:pause AS float8) * 2 ^ least(attempts - 1, 20), :longest))
WHERE id = :id RETURNING parked
""")
_WAITING: Final = text("""
SELECT count(*) AS entries, extract(epoch FROM min(due_at) - clock_timestamp())::float8 AS seconds
FROM pgmrl.embedding_queue WHERE relation = to_regclass(:owner) AND embedding = :column AND NOT parked
""")
_INSTALLED: Final = text("""
SELECT template, embedder FROM pgmrl.embeddings WHERE relation = to_regclass(:owner) AND embedding = :column
""")
_RIGHTS: Final = text("""
SELECT current_user AS who, (
    SELECT string_agg(r.name, ', ') FROM (VALUES ('SELECT'), ('UPDATE'), ('DELETE')) AS r (name)
    WHERE NOT has_table_privilege('pgmrl.embedding_queue', r.name)) AS missing
""")
# no trigger of the server's tells of a dropped table but to a superuser
_FORGET_DROPPED: Final = text("""
DELETE FROM pgmrl.embedding_queue AS q WHERE NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = q.relation)
""")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row that is to be embedded; several entries of one row are one.

    Attributes:
        key: the primary key's values as text.
        ids: of its entries.
        attempts: how often one of them was taken, this time included.
        error: of the last attempt.
    """

    key: tuple[str, ...]
    ids: tuple[int, ...]
    attempts: int
    error: str | None


@dataclass(frozen=True, slots=True)
class RowText:
    """What is to be embedded of a row.

    Attributes:
        entry: the row's.
        text: None where its columns are blank, or where it is too long.
        size: of the text in bytes.
        digest: of the text, SHA-256.
    """

    entry: Entry
    text: str | None
    size: int
    digest: bytes


class Reinstalled(MigrationError):
    """The column is kept in step with another text, or by another model, than its worker was started with."""


class QueueEntries:
    """The queue of one column, for one worker. Every method belongs into a transaction of `pgmrl.online.jobs`.

    Args:
        column: with its text.
        most_attempts: after which a row is parked.
        pause: seconds before the second attempt; each later one waits twice as long.
    """

    def __init__(self, column: EmbeddedColumn, most_attempts: int, pause: float) -> None:
        if column.embed is None:
            raise MigrationError(f"no trigger marks the rows of {column.title}: `pgmrl embed --install` installs it")
        self.column = column
        self.embed = column.embed
        self.most_attempts = most_attempts
        self.pause = pause
        self.worker = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
        self._place = {"owner": column.owner, "column": column.column}
        owner, embedding = plain_sql(column.owner), plain_sql(quoted(column.column))
        value = plain_sql(text_sql(column.embed, "t"))
        keys = [(plain_sql(quoted(name)), plain_sql(type_)) for name, type_ in column.keys]
        digest = f"pg_catalog.sha256(pg_catalog.convert_to(COALESCE({value}, ''::pg_catalog.text), 'UTF8'))"
        arrays = [f"pg_catalog.unnest(CAST(:k{n} AS pg_catalog.text[]))" for n, _ in enumerate(column.keys)]
        names = ", ".join(f"k{n}" for n, _ in enumerate(column.keys))
        rows = f"ROWS FROM ({', '.join(arrays)}) WITH ORDINALITY AS i ({names}, n)"
        with_digests = (
            f"ROWS FROM ({', '.join(arrays)}, pg_catalog.unnest(CAST(:digests AS pg_catalog.bytea[]))) "
            f"WITH ORDINALITY AS i ({names}, digest, n)"
        )
        joined = " AND ".join(f"t.{key} = CAST(i.k{n} AS {type_})" for n, (key, type_) in enumerate(keys))
        self._read = text(
            "SELECT CAST(i.n AS pg_catalog.int4), CASE WHEN pg_catalog.octet_length(x.value) OPERATOR(pg_catalog.<=) "
            "CAST(:most AS pg_catalog.int4) THEN x.value END, pg_catalog.octet_length(x.value), x.digest "
            f"FROM {rows} JOIN {owner} AS t ON {joined} "
            f"CROSS JOIN LATERAL (SELECT {value} AS value, {digest} AS digest OFFSET 0) AS x"
        )
        self._lock = text(
            "SELECT CAST(i.n AS pg_catalog.int4), CAST(t.tableoid AS pg_catalog.int8), CAST(t.ctid AS pg_catalog.text) "
            f"FROM {with_digests} JOIN {owner} AS t ON {joined} "
            f"WHERE {digest} OPERATOR(pg_catalog.=) i.digest FOR NO KEY UPDATE OF t SKIP LOCKED"
        )
        vector_type = plain_sql(qualified(column.vector_schema, column.kind))
        # by the place of a row that is locked: operators of these types are the server's own
        self._store = text(
            f"UPDATE {owner} AS t SET {embedding} = CAST(:vector AS {vector_type}) "
            "WHERE t.tableoid OPERATOR(pg_catalog.=) CAST(:leaf AS pg_catalog.oid) "
            "AND t.ctid OPERATOR(pg_catalog.=) CAST(:place AS pg_catalog.tid)"
        ).bindparams(bindparam("vector", type_=NumpyVector(column.dims, column.kind, column.vector_schema)))

    def check_installed(self, connection: Connection) -> None:
        """Check that the triggers still name this text and this model.

        Raises:
            Reinstalled: they do not.
        """
        row = connection.execute(_INSTALLED, self._place).first()
        if row is None or (row.template, row.embedder) != (self.embed.template, self.embed.by):
            now = "by no trigger any more" if row is None else f"in step with {row.template!r} by {row.embedder} now"
            raise Reinstalled(
                f"{self.column.title} is kept {now}, expected {self.embed.template!r} by {self.embed.by}: start the "
                "worker again, with the model that the triggers name"
            )

    def check_rights(self, connection: Connection) -> None:
        """Check that this role may take entries.

        Raises:
            MigrationError: it may not.
        """
        row = catalogue_result(connection, _RIGHTS).one()
        if row.missing is not None:
            raise MigrationError(
                f"a worker needs {row.missing} on pgmrl.embedding_queue: GRANT SELECT, UPDATE, DELETE ON "
                f"pgmrl.embedding_queue TO {quoted(row.who)}"
            )

    def forget_dropped(self, connection: Connection) -> None:
        """Remove the entries of tables that were dropped, as far as this role sees them."""
        connection.execute(_FORGET_DROPPED)

    def take(self, connection: Connection, size: int, lease: float) -> list[Entry]:
        """Take entries that are due: for `lease` seconds no other worker does."""
        parameters = {**self._place, "size": size, "lease": lease, "worker": self.worker}
        by_key: dict[tuple[str, ...], list[Any]] = {}
        for row in connection.execute(_TAKE, parameters):
            by_key.setdefault(tuple(row.key), []).append(row)
        return [
            Entry(key, tuple(row.id for row in rows), max(row.attempts for row in rows), rows[0].error)
            for key, rows in by_key.items()
        ]

    def read(
        self, connection: Connection, entries: Sequence[Entry], most_bytes: int
    ) -> tuple[list[RowText], list[Entry]]:
        """The texts of the rows, without those that are longer; and the entries whose row is gone.

        Every other entry of such a row that stands in the queue by now is one with it, whoever took it.
        """
        parameters = {**self._place, "keys": json.dumps([entry.key for entry in entries])}
        ids = {tuple(row.key): tuple(row.ids) for row in connection.execute(_ENTRIES, parameters)}
        entries = [replace(e, ids=tuple(dict.fromkeys((*e.ids, *ids.get(e.key, ()))))) for e in entries]
        # whoever may write the table may mark what is the key of none of its rows
        whole = [entry for entry in entries if len(entry.key) == len(self.column.keys)]
        rows = connection.execute(self._read, {**self._keys(whole), "most": most_bytes}).all()
        texts = [RowText(whole[n - 1], value, size or 0, bytes(digest)) for n, value, size, digest in rows]
        there = {row.entry.key for row in texts}
        return texts, [entry for entry in entries if entry.key not in there]

    def store(
        self, connection: Connection, rows: Sequence[RowText], vectors: Sequence[VectorArray | None]
    ) -> list[Entry]:
        """Store the vectors of rows whose text is still the same and which nobody holds; the entries of these rows.

        Raises:
            Reinstalled: the column is kept by another model meanwhile; the transaction must not be committed.
        """
        if not rows:
            return []
        keys = self._keys([row.entry for row in rows])
        locked = connection.execute(self._lock, {**keys, "digests": [row.digest for row in rows]}).all()
        values = [{"vector": vectors[n - 1], "leaf": leaf, "place": place} for n, leaf, place in locked]
        if values:
            with caller_path(connection):  # for the application's triggers
                connection.execute(self._store, values)
            # the UPDATE's lock lets nobody install others from here to the end
            self.check_installed(connection)
        return [rows[n - 1].entry for n, _, _ in locked]

    def finish(self, connection: Connection, entries: Collection[Entry]) -> None:
        """Forget entries whose row is done, or gone."""
        if entries:
            connection.execute(_FINISH, {"ids": _ids(entries)})

    def postpone(self, connection: Connection, entries: Collection[Entry]) -> None:
        """Leave entries for a little later: somebody holds their row, or has just changed its text."""
        if entries:
            connection.execute(_POSTPONE, {"ids": _ids(entries), "most": self.most_attempts})

    def fail(self, connection: Connection, entry: Entry, error: str, *, park: bool = False) -> bool:
        """Leave an entry for later, or for nobody if it was tried often enough; whether it is parked."""
        error = printable(error[:ERROR_CHARACTERS], keep="\n\t")[:ERROR_CHARACTERS]  # as the server takes it
        parameters = {
            "id": entry.ids[0], "error": error, "park": park,
            "most": self.most_attempts, "pause": self.pause, "longest": LONGEST_PAUSE,
        }  # fmt: skip
        connection.execute(_FINISH, {"ids": list(entry.ids[1:])})
        return connection.execute(_FAIL, parameters).scalar() is True

    def release(self, connection: Connection) -> None:
        """Give back what this worker has taken."""
        connection.execute(_RELEASE, {"worker": self.worker})

    def waiting(self, connection: Connection) -> tuple[int, float]:
        """How many entries there are, and seconds until the first may be taken."""
        row = connection.execute(_WAITING, self._place).one()
        return int(row.entries), float(row.seconds or 0)

    def _keys(self, entries: Sequence[Entry]) -> dict[str, list[str]]:
        return {f"k{n}": [entry.key[n] for entry in entries] for n, _ in enumerate(self.column.keys)}


def plain_sql(sql: str) -> str:
    """SQL text in which no colon begins a parameter of SQLAlchemy's."""
    return sql.replace(":", "\\:")


def _ids(entries: Collection[Entry]) -> list[int]:
    return [number for entry in entries for number in entry.ids]
