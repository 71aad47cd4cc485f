"""Streaming standbys of a server of the tests, from the same wheel."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from pgmrl import local
from pgmrl.local.cluster import Cluster
from pgmrl.local.postmaster import Postmaster
from pgmrl.local.programs import Programs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from pgmrl.local import LocalServer


@contextmanager
def primary_server(database: str) -> Iterator[LocalServer]:
    """A server of its own, with a database."""
    folder = Path(tempfile.mkdtemp(prefix="pgmrl-primary-"))
    try:
        with local.start(folder, database=database) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def streaming_standby(primary: LocalServer, database: str) -> Iterator[LocalServer]:
    """A hot standby of a server that runs, which streams from it, with a socket of its own."""
    folder = Path(tempfile.mkdtemp(prefix="pgmrl-standby-"))
    cluster, programs, postmaster = Cluster.at(folder), Programs.installed(), Postmaster.read(primary.data_dir / "data")
    assert postmaster is not None
    try:
        cluster.prepare(programs)
        with cluster.start_stop_lock():  # which makes the folder one of pgmrl's
            cluster.data.mkdir(mode=0o700)
            programs.hand_over(cluster.data)
            source = ("-h", postmaster.host, "-p", str(postmaster.port), "-U", "postgres")
            options = ("-R", "-c", "fast", "-X", "stream", "--no-sync")
            programs.run("pg_basebackup", "-D", str(cluster.data), *options, *source, cwd=cluster.root)
        with local.start(folder, database=database) as running:
            yield running
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def catch_up(primary: Engine, standby: Engine) -> None:
    """Wait until the standby has replayed everything that the primary has written."""
    with primary.connect() as connection:
        position = connection.scalar(text("SELECT CAST(pg_current_wal_insert_lsn() AS text)"))
    deadline, replayed = time.monotonic() + 60, text("SELECT pg_last_wal_replay_lsn() >= CAST(:position AS pg_lsn)")
    with standby.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        while not connection.scalar(replayed, {"position": position}):
            assert time.monotonic() < deadline
            time.sleep(0.02)
