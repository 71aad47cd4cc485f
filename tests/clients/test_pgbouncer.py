"""The functions through PgBouncer in transaction mode: several clients share two connections, and nothing leaks."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import psycopg
from sqlalchemy import NullPool, create_engine, text

if TYPE_CHECKING:
    from tests.clients.conftest import Answer
    from tests.conftest import Wares
else:
    Answer = Wares = Any

SETTINGS = ("hnsw.ef_search", "hnsw.iterative_scan", "hnsw.max_scan_tuples", "hnsw.scan_mem_multiplier", "search_path")
DEFAULTS = ("40", "off", "20000", "1", '"$user", public')


def connect(wares: Wares, port: int, *, autocommit: bool) -> psycopg.Connection[Any]:
    """As docs/bi.md says: without prepared statements, which would stay in a connection that others get."""
    return psycopg.connect(
        host="127.0.0.1", port=port, user="anyone", dbname=wares.engine.url.database, autocommit=autocommit,
        prepare_threshold=None,
    )  # fmt: skip


def settings(connection: psycopg.Connection[Any]) -> tuple[str, ...]:
    """What the server scans with."""
    asked = ", ".join(f"current_setting('{name}')" for name in SETTINGS)
    row: tuple[str, ...] = connection.execute(f"SELECT {asked}, vector_dims('[1]'::vector)").fetchone()  # type: ignore[assignment]
    return row[:-1]


def test_several_clients_at_once(wares: Wares, pgbouncer: int) -> None:
    """Each finds the truth, in autocommit and in transactions; each sees the default settings all the time."""

    def client(number: int) -> set[int]:
        backends: set[int] = set()
        with connect(wares, pgbouncer, autocommit=number % 2 == 0) as connection:
            connection.execute("SELECT vector_dims('[1]'::vector)")  # loads pgvector, so that its settings are known
            connection.commit()
            for turn in range(8):
                query = (number * 8 + turn) % 100
                sent = (wares.literal(query), 7)
                rows = connection.execute("SELECT id FROM passages_search(%s::halfvec, %s, 4000)", sent).fetchall()
                assert [row[0] for row in rows] == wares.nearest(wares.queries[query], 7)
                assert settings(connection) == DEFAULTS
                connection.commit()
                backends.add(connection.execute("SELECT pg_backend_pid()").fetchone()[0])  # type: ignore[index]
                similar = connection.execute("SELECT id FROM passages_similar(%s, 3)", (query,)).fetchall()
                assert len(similar) == 3
                connection.rollback()
                assert settings(connection) == DEFAULTS
                connection.commit()
        return backends

    with ThreadPoolExecutor(6) as pool:
        seen = list(pool.map(client, range(6)))
    backends = set.union(*seen)
    assert len(backends) <= 2  # they did share connections
    assert any(len(one) > 1 for one in seen) or len(backends) == 1


def test_every_shape(wares: Wares, pgbouncer: int, answers: list[Answer]) -> None:
    """Rows that differ, groups, words, by two clients in turn: what psycopg gets directly, and no setting stays."""
    with connect(wares, pgbouncer, autocommit=True) as one, connect(wares, pgbouncer, autocommit=False) as other:
        for connection in (one, other) * 3:
            for answer in answers:
                cursor = connection.execute(answer.statement.replace("?", "%s").encode(), answer.given)
                assert [column.name for column in cursor.description or ()] == answer.columns
                assert cursor.fetchall() == answer.rows
                connection.commit()
                assert settings(connection) == DEFAULTS
                connection.commit()


def test_an_error_leaves_nothing(wares: Wares, pgbouncer: int) -> None:
    """A refused call in one client, the next one of another client."""
    with connect(wares, pgbouncer, autocommit=True) as one, connect(wares, pgbouncer, autocommit=True) as other:
        for connection in (one, other) * 4:
            for call in (
                "passages_search('[1,2]')",
                "passages_search(passages_vector(1), 3000, 2)",
                "passages_similar(-1)",
            ):
                try:
                    connection.execute(f"SELECT * FROM {call}")
                except psycopg.Error as error:
                    assert error.sqlstate in {"22000", "22023", "P0002"}  # noqa: PT017 - another statement follows
                else:
                    raise AssertionError(call)
            assert settings(connection) == DEFAULTS


def test_sqlalchemy(wares: Wares, pgbouncer: int) -> None:
    """An Engine with `prepare_threshold=None`."""
    url = f"postgresql+psycopg://anyone@127.0.0.1:{pgbouncer}/{wares.engine.url.database}"
    engine = create_engine(url, poolclass=NullPool, connect_args={"prepare_threshold": None})
    statement = text("SELECT id FROM passages_search(:query, k => :k, package => :package, exact => true)")
    for number in range(12):
        with engine.connect() as connection:
            sent = {"query": wares.literal(number), "k": 5, "package": "email"}
            found = connection.execute(statement, sent).scalars().all()
            assert found == wares.nearest(wares.queries[number], 5, lambda p: p["package"] == "email")
    engine.dispose()
