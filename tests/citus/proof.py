"""The tables of the proof on Citus, with their rows and the truth of them by NumPy.

PGMRL_CITUS_URL names the coordinator of a Citus whose database may be written to; the tables are called
`pgmrl_proof_…` and dropped at the end.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from pgmrl import Short, matryoshka
from pgmrl.model.vectors import VectorArray

if TYPE_CHECKING:
    from numpy.typing import NDArray

URL = os.environ.get("PGMRL_CITUS_URL")
NEEDS_CITUS = pytest.mark.skipif(URL is None, reason="no Citus here: PGMRL_CITUS_URL is not set")

ROWS, DIMS, TENANTS = 10_000, 256, 20


class Base(DeclarativeBase):
    """The tables of the proof."""


class Package(Base):
    """Distributed by its key."""

    __tablename__ = "pgmrl_proof_packages"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str]
    part: Mapped[int]
    embedding: Mapped[VectorArray] = matryoshka(DIMS, Short(64), distributed=True)


class Document(Base):
    """Distributed by tenant."""

    __tablename__ = "pgmrl_proof_documents"
    tenant: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    embedding: Mapped[VectorArray] = matryoshka(DIMS, Short(64), distributed="tenant")


class Damaged(Base):
    """Whose shards lose their indexes."""

    __tablename__ = "pgmrl_proof_damaged"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    embedding: Mapped[VectorArray] = matryoshka(DIMS, Short(64), distributed="id")


def _vectors() -> NDArray[np.float32]:
    """Rows, then 50 queries: their variance falls from dimension to dimension, as a Matryoshka model's does."""
    rng = np.random.default_rng(5)
    spread = 1 / np.sqrt(1 + np.arange(DIMS) / 12)
    made = (rng.normal(size=(ROWS + 50, DIMS)) * spread).astype(np.float32)
    return made.astype(np.float16).astype(np.float32)


VECTORS = _vectors() if URL is not None else np.empty((1, DIMS), np.float32)
DOCUMENTS, QUERIES = VECTORS[:ROWS], VECTORS[ROWS:]


def truth(query: NDArray[np.float32], k: int, numbers: Any = None) -> list[int]:
    """The nearest of these rows."""
    own = np.arange(ROWS) if numbers is None else np.asarray(numbers)
    vectors = DOCUMENTS[own]
    similarity = vectors @ query / np.linalg.norm(vectors, axis=1)
    return [int(n) for n in own[np.argsort(-similarity, kind="stable")[:k]]]
