"""SQL functions of a table declared as distributed, on one server: their settings, their shortlist, their fallback.

That they give the rows of the searches in Python is in test_functions_alike, what only Citus can show in tests/citus.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, text

from pgmrl import SqlFunctions, database, install_functions
from pgmrl.errors import DefinitionError
from pgmrl.functions.install import searched_column_in
from pgmrl.functions.install_statements import install_statements, printed_statements
from pgmrl.model.columns import Matryoshka, attachment_of
from pgmrl.model.scan_settings import PGVECTOR_DEFAULTS
from pgmrl.model.shortening import Prefix, Short
from tests.conftest import vector_text

if TYPE_CHECKING:
    from pgmrl.model.rotation import Rotation
else:
    Rotation = Any

ROWS, DIMS = 1500, 8
VECTORS = np.random.default_rng(11).normal(size=(ROWS, DIMS)).astype(np.float16).astype(np.float32)
QUERY = vector_text(VECTORS[7])


@pytest.fixture(scope="module", params=["prefix", "rotation"])
def docs(module_engine: Engine, small_rotation: Rotation, request: pytest.FixtureRequest) -> Table:
    """Rows of two tenants, by either rule."""
    rule = small_rotation if request.param == "rotation" else Prefix()
    docs = Table(
        f"docs_{request.param}",
        MetaData(),
        Column("tenant", Integer, primary_key=True),
        Column("id", Integer, primary_key=True),
        Column("part", Integer),
        Column("e", Matryoshka(DIMS, Short(4, rule), distributed="tenant")),
    )
    with module_engine.begin() as connection:
        database.install_rotation(connection, small_rotation)
        docs.create(connection)
        rows = [{"tenant": n % 2, "id": n, "part": n % 50, "e": vector} for n, vector in enumerate(VECTORS)]
        connection.execute(docs.insert(), rows)
        install_functions(connection, docs.c.e, SqlFunctions(filters=("tenant", "part")))
    return docs


def ids(connection: Connection, call: str) -> list[int]:
    """The ids that a call finds."""
    return list(connection.execute(text(f"SELECT id FROM {call} ORDER BY rank")).scalars())


@pytest.mark.parametrize("own", [False, True])
def test_settings_reach_the_scan_and_are_put_back(module_engine: Engine, docs: Table, own: bool) -> None:
    """A shortlist of 800 has 800 rows through the index; afterwards all is as it was, also in the transaction."""
    with module_engine.connect() as connection:
        connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
        connection.exec_driver_sql("SET LOCAL enable_sort = off")
        if own:
            connection.exec_driver_sql("SET LOCAL hnsw.ef_search = 33")
        assert len(ids(connection, f"{docs.name}_search('{QUERY}', 800, 800)")) == 800
        for function in ("search", "search_diverse"):
            assert len(ids(connection, f"{docs.name}_{function}('{QUERY}', 20, part => 3)")) == 20
        expected = dict(PGVECTOR_DEFAULTS) | ({"hnsw.ef_search": "33"} if own else {})
        for name, value in expected.items():
            assert connection.scalar(text(f"SELECT current_setting('{name}')")) == value


def test_what_a_filter_leaves(module_engine: Engine, docs: Table) -> None:
    """All of it, nearest first; without a filter a shortlist is what it is."""
    with module_engine.connect() as connection:
        own = [n for n in range(ROWS) if n % 50 == 3]
        similarity = VECTORS @ VECTORS[7] / np.linalg.norm(VECTORS, axis=1)
        truth = sorted(own, key=lambda n: -similarity[n])
        assert ids(connection, f"{docs.name}_search('{QUERY}', 200, part => 3)") == truth
        assert ids(connection, f"{docs.name}_search('{QUERY}', 5, part => 3, exact => true)") == truth[:5]
        assert ids(connection, f"{docs.name}_search('{QUERY}', 5, part => 3, tenant_is => 0)") == []
        assert sorted(ids(connection, f"{docs.name}_similar(1, 3, 200, part => 3)")) == own[1:]


def test_what_is_installed(module_engine: Engine, docs: Table) -> None:
    """No view that calls a function for each row; printed, Citus is told to leave them on the coordinator."""
    with module_engine.connect() as connection:
        with pytest.raises(DefinitionError, match=f"call the function {docs.name}_similar for a row"):
            install_functions(connection, docs.c.e, SqlFunctions(related=3))
        searched = searched_column_in(connection, docs.c.e)
    index = attachment_of(docs.c.e).index
    printed = printed_statements(searched, index)
    assert printed[1:-1] == install_statements(searched, index)
    assert printed[0] == "SELECT pg_catalog.set_config('citus.enable_ddl_propagation', 'off', true)"
    assert printed[-1] == "SELECT pg_catalog.set_config('citus.enable_ddl_propagation', 'on', true)"
