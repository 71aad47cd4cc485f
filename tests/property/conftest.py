"""A small shop that hostile arguments are tried on, and how many of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings
from sqlalchemy import NullPool, create_engine

from tests.databases import new_database
from tests.property.small_shop import Shop, fill

if TYPE_CHECKING:
    from pgmrl.local import LocalServer

# the same examples in every run, and no file of those that failed
settings.register_profile(
    "pgmrl",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=int(os.environ.get("PGMRL_EXAMPLES", "30")),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large],
)
settings.load_profile("pgmrl")


@pytest.fixture(scope="package")
def hostile_shop(server: LocalServer) -> Iterator[Shop]:
    """The shop in a database of its own; whoever writes rolls back."""
    with new_database(server, "hostile") as url:
        engine = create_engine(url, poolclass=NullPool)
        yield Shop(engine, fill(engine))
