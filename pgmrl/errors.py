"""Every error pgmrl raises, and the warnings it gives.

    PgmrlError
    ├── DefinitionError      a declaration that cannot work
    ├── VectorError          a vector that cannot be stored or searched with
    ├── SearchError          a search that cannot be built
    ├── RotationError        axes that are missing, changed or of other dimensions
    ├── IngestError          rows that cannot be loaded
    ├── EmbedderError        a model that is missing or does not fit
    │   └── EmbedderUnavailable
    ├── MeasureError         nothing to measure, or not with what was given
    └── DatabaseError        the server's side
        ├── WrongConnection  an engine, a session or a driver that cannot be used for this
        ├── Unreachable
        ├── PgvectorMissing
        ├── NotMigrated
        ├── MigrationError   a change that cannot be made, or was stopped
        ├── Locked           a table that others hold
        └── LocalServerError

    PgmrlWarning
    ├── ExactSearchWarning
    ├── PartialIndexWarning
    ├── PgvectorVersionWarning
    ├── PolicyIndexWarning
    └── UntrainedTruncationWarning

A docstring is the default message and ends with the remedy.
"""

from __future__ import annotations

import inspect

from sqlalchemy.exc import DontWrapMixin

from pgmrl.reprs import printable

__all__ = [
    "DatabaseError",
    "DefinitionError",
    "EmbedderError",
    "EmbedderUnavailable",
    "ExactSearchWarning",
    "IngestError",
    "LocalServerError",
    "Locked",
    "MeasureError",
    "MigrationError",
    "NotMigrated",
    "PartialIndexWarning",
    "PgmrlError",
    "PgmrlWarning",
    "PgvectorMissing",
    "PgvectorVersionWarning",
    "PolicyIndexWarning",
    "RotationError",
    "SearchError",
    "Unreachable",
    "UntrainedTruncationWarning",
    "VectorError",
    "WrongConnection",
]


# DontWrapMixin: raised while SQLAlchemy binds a parameter, the error reaches the caller as it is.
class PgmrlError(DontWrapMixin, Exception):
    """pgmrl could not do what was asked. See the message for what to change."""

    def __init__(self, message: str | None = None) -> None:
        # names and values of others may hold what moves a terminal's cursor, or what cannot be encoded
        super().__init__(printable(message or inspect.cleandoc(self.__doc__ or ""), keep="\n\t"))


class DefinitionError(PgmrlError, ValueError):
    """A Matryoshka column is declared in a way that cannot work. Correct the declaration."""


class VectorError(PgmrlError, ValueError):
    """A vector cannot be stored or searched with. Check its dimensions and that all values are finite."""


class SearchError(PgmrlError, ValueError):
    """A search cannot be built from these arguments. Correct the Select or the arguments."""


class RotationError(PgmrlError):
    """The axes of a rotation are missing or are not the ones its id names. Install them with `pgmrl fit-rotation`."""


class IngestError(PgmrlError):
    """Rows cannot be loaded; nothing of their batch was written. Correct them and load again."""


class EmbedderError(PgmrlError):
    """An embedding model is missing or does not fit. Install its extra or choose another model."""


class EmbedderUnavailable(EmbedderError):
    """A model's server does not answer, or asks to wait: the same texts may succeed later.

    Attributes:
        retry_after: seconds that the server asked to wait; None where it did not say.
        repeated: whether the same request may succeed at once; not where a key is refused.
    """

    retry_after: float | None = None
    repeated: bool = True


class MeasureError(PgmrlError):
    """Recall, quality or cost cannot be measured with what there is. See the message for what to give or change."""


class DatabaseError(PgmrlError):
    """The database refused. See the message for what to change there."""


class WrongConnection(DatabaseError, TypeError):
    """A function was given something else than the connection it needs. Give it what the message says."""


class Unreachable(DatabaseError):
    """The server does not answer. Check DATABASE_URL and that the server runs."""


class PgvectorMissing(DatabaseError):
    """pgvector 0.8.0 or later is not installed in this database. Run CREATE EXTENSION vector (or update it)."""


class NotMigrated(DatabaseError):
    """A table, a column or pgmrl's own schema is not there yet. Run the application's migrations."""


class MigrationError(DatabaseError):
    """A change to a table cannot be made. See the message for what is in the way."""


class Locked(DatabaseError):
    """A table is held by other transactions. End them, or try again when they are over."""


class LocalServerError(DatabaseError):
    """The embedded PostgreSQL cannot be used. Install the extra `local`, or set DATABASE_URL."""


class PgmrlWarning(UserWarning):
    """Something works, but not as well as it could."""


class ExactSearchWarning(PgmrlWarning):
    """No rotation has been learned yet, so the search reads every row. Run `pgmrl fit-rotation` and pin its id."""


class PartialIndexWarning(PgmrlWarning):
    """Only a partial index is there, so a search without its filter reads every row. Add an index of all rows, too."""


class PolicyIndexWarning(PgmrlWarning):
    """Row-level security filters searches by columns without a covering index. Declare filters=[FilterIndex(...)]."""


class PgvectorVersionWarning(PgmrlWarning):
    """pgvector before 0.8.4 has defects when vacuuming HNSW indexes. Update the extension."""


class UntrainedTruncationWarning(PgmrlWarning):
    """The short vector's length is none the model was trained for. Take one that is, or `pgmrl fit-rotation`."""
