"""Models that embed text in the database: a static model's tables, installed, listed and removed."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from pgmrl import database
from pgmrl.database.ownership import strangers_objects
from pgmrl.errors import DefinitionError, MigrationError
from pgmrl.names import quoted
from pgmrl.reprs import safe_repr

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session

    from pgmrl.embedders.token_model import TokenModel

__all__ = ["ModelInfo", "install_model", "models", "remove_model"]

_BATCH: Final = 4000  # rows of a statement
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_INSERT_MODEL: Final = (
    "INSERT INTO pgmrl.models (name, hash, dims, tokens, space, pieces, letters, special, unknown) "
    "VALUES (:name, :hash, :dims, :tokens, :space, :pieces, CAST(:letters AS integer[]), CAST(:special AS text[]), "
    ":unknown)"
)
_INSERT_TOKENS: Final = (
    "INSERT INTO pgmrl.tokens (model, id, token, whole, vector) "
    "SELECT :name, r.id, r.token, r.whole, CAST(r.vector AS {vector}.halfvec) FROM unnest(CAST(:ids AS integer[]), "
    "CAST(:tokens AS text[]), CAST(:whole AS boolean[]), CAST(:vectors AS text[])) AS r (id, token, whole, vector)"
)
_INSERT_MERGES: Final = (
    "INSERT INTO pgmrl.merges (model, left_id, right_id, rank, merged_id) SELECT :name, r.* FROM unnest("
    "CAST(:left AS integer[]), CAST(:right AS integer[]), CAST(:ranks AS integer[]), CAST(:merged AS integer[])) AS r"
)
_INSERT_JOINTS: Final = "INSERT INTO pgmrl.joints (model, letters) SELECT :name, unnest(CAST(:joints AS text[]))"


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """One model of a database.

    Attributes:
        name: what `pgmrl.embed_text` is called with.
        hash: of its content.
        dims: dimensions of its vectors.
        tokens: how many it knows.
        installed_at: when.
        installed_by: the role that installed it.

    """

    name: str
    hash: str
    dims: int
    tokens: int
    installed_at: datetime
    installed_by: str


def install_model(connection: Connection | Session, name: str, model: TokenModel) -> bool:
    """Put a model into the tables of pgmrl's schema, in the caller's transaction.

    Args:
        connection: its role needs INSERT on these tables, as the owner of the schema has.
        name: what `pgmrl.embed_text` is called with.
        model: from `load_token_model`.

    Returns:
        Whether it was not there before.

    Raises:
        NotMigrated: as `database.require_schema`.
        DefinitionError: the name is none.
        MigrationError: another model has this name, the database is not in UTF8, or something in pgmrl's schema belongs
            to a stranger.

    """
    connection = database.sqlalchemy_connection(connection)
    if not _NAME.fullmatch(name):
        raise DefinitionError(f"expected a name of letters, digits, dots, - and _ for the model, got {safe_repr(name)}")
    database.require_schema(connection)
    with database.pinned(connection):
        encoding = connection.execute(text("SHOW server_encoding")).scalar_one()
        if encoding != "UTF8":
            raise MigrationError(f"a model needs a database in UTF8, got {encoding}: its tokens are of all scripts")
        strangers = strangers_objects(connection, "pgmrl.models")
        if strangers:
            raise MigrationError(f"{strangers[0].describe()}: {strangers[0].remedy()}")
        installed = {other.name: other.hash for other in models(connection)}
        if installed.get(name) == model.hash:
            return False
        if name in installed:
            raise MigrationError(
                f"there is another model {safe_repr(name)}: expected the hash {model.hash}, got {installed[name]}; "
                f"vectors of two models cannot be compared: give this one another name, or remove that one first"
            )
        for statement, values in _statements(name, model, quoted(database.check_pgvector(connection))):
            connection.execute(text(statement), values)
        stored = connection.execute(text("SELECT pgmrl.model_hash_v1(:name)"), {"name": name}).scalar_one()
        if stored != model.hash:  # a trigger or a rule on the tables
            raise MigrationError(f"the model {name} was stored with the hash {stored}, expected {model.hash}")
    return True


def remove_model(connection: Connection | Session, name: str) -> bool:
    """Remove a model, in the caller's transaction; False where there is none.

    Raises:
        NotMigrated: as `database.require_schema`.
        MigrationError: search functions or a trigger of `pgmrl.keep_text` need it.

    """
    connection = database.sqlalchemy_connection(connection)
    database.require_schema(connection)
    if not _NAME.fullmatch(name):
        return False
    try:
        with database.pinned(connection), connection.begin_nested():
            return connection.execute(text("DELETE FROM pgmrl.models WHERE name = :name"), {"name": name}).rowcount > 0
    except DBAPIError as error:
        if database.sqlstate(error) != "2BP01":
            raise
        raise MigrationError(str(error.orig).strip()) from None


def models(connection: Connection | Session) -> list[ModelInfo]:
    """The models of this database.

    Raises:
        NotMigrated: as `database.require_schema`.

    """
    connection = database.sqlalchemy_connection(connection)
    database.require_schema(connection)
    names = ", ".join(ModelInfo.__dataclass_fields__)
    rows = database.catalogue_result(connection, text(f"SELECT {names} FROM pgmrl.models ORDER BY name"))
    return [ModelInfo(*row) for row in rows]


def _statements(name: str, model: TokenModel, vector_schema: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Statements with their values: arrays, which every driver sends."""
    yield (
        _INSERT_MODEL,
        {
            "name": name,
            "hash": model.hash,
            "dims": model.dims,
            "tokens": len(model.tokens),
            "space": model.space,
            "pieces": model.pieces,
            "letters": model.letters,
            "special": model.special,
            "unknown": model.unknown,
        },
    )
    spelling = _spelling()
    for first in range(0, len(model.tokens), _BATCH):
        part = slice(first, first + _BATCH)
        yield (
            _INSERT_TOKENS.replace("{vector}", vector_schema),
            {
                "name": name,
                "ids": list(range(len(model.tokens)))[part],
                "tokens": model.tokens[part],
                "whole": model.whole[part],
                "vectors": [f"[{','.join(row)}]" for row in spelling[model.vectors[part].view(np.uint16)]],
            },
        )
    left, right, merged = zip(*model.merges, strict=True)
    yield (
        _INSERT_MERGES,
        {"name": name, "left": [*left], "right": [*right], "ranks": [*range(len(left))], "merged": [*merged]},
    )
    yield _INSERT_JOINTS, {"name": name, "joints": model.joints}


def _spelling() -> Any:
    """The text of every number of half precision, by its bits; shape (65536,): a model has millions of numbers."""
    with np.errstate(invalid="ignore"):
        numbers = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float64)
    return np.array([f"{number:.9g}" for number in numbers], dtype=object)
