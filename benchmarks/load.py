"""Clients that read and write a table at a steady rate, and remember how long each of them waited.

Run as a process of its own (`python -m benchmarks.load`), so that it shares no interpreter with what is measured. An
operation's time counts from when it was due, not from when it was sent: whoever is made to wait also makes those wait
who come after (coordinated omission).
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import psycopg

ROOT = Path(__file__).parent.parent
WRITES = ("title", "vector", "insert", "delete")
MIX = ("title",) * 4 + ("vector",) * 2 + ("insert",) * 3 + ("delete",)  # of a writer


@dataclass
class Client:
    """One connection: an even number only reads, an odd one only writes.

    Attributes:
        conninfo: of the server.
        number: of the client; its own rows have ids of their own.
        rows: rows of the table that everybody shares.
        rate: operations a second; 0: as many as it can.
    """

    conninfo: str
    number: int
    rows: int
    rate: float

    def __post_init__(self) -> None:
        self.random = random.Random(self.number)  # noqa: S311 - no secret
        self.done: list[tuple[str, float, float]] = []
        self.own: list[int] = []
        self.next_id = (self.number + 1) * 1_000_000_000
        vectors = np.random.default_rng(self.number).normal(size=(64, 256)).astype(np.float32)
        self.vectors = ["[" + ",".join(f"{value:.4f}" for value in vector) + "]" for vector in vectors]

    def run(self, over: threading.Event) -> None:
        """Work until told to stop."""
        with psycopg.connect(self.conninfo, autocommit=True) as connection:
            due = time.time()
            while not over.is_set():
                if self.rate:
                    due += self.random.expovariate(self.rate)
                    over.wait(max(0.0, due - time.time()))
                else:
                    due = time.time()
                kind = self.random.choice(MIX) if self.number % 2 else "read"
                self._do(connection, kind)
                self.done.append((kind, due, time.time() - due))

    def _do(self, connection: psycopg.Connection[Any], kind: str) -> None:
        some = self.random.randrange(1, self.rows + 1)
        vector = self.random.choice(self.vectors)
        if kind == "read":
            connection.execute("SELECT title FROM documents WHERE id = %s", [some]).fetchone()
        elif kind == "title":
            connection.execute("UPDATE documents SET title = title || '' WHERE id = %s", [some])
        elif kind == "vector":
            connection.execute("UPDATE documents SET embedding = %s WHERE id = %s", [vector, some])
        elif kind == "insert" or not self.own:
            self.next_id += 1
            connection.execute(
                "INSERT INTO documents (id, title, embedding) VALUES (%s, 'new', %s)", [self.next_id, vector]
            )
            self.own.append(self.next_id)
        else:
            gone = self.own.pop(self.random.randrange(len(self.own)))
            connection.execute("DELETE FROM documents WHERE id = %s", [gone])


class Load:
    """Clients in processes of their own.

    Args:
        conninfo: of the server.
        rows: of the table.
        clients: how many; two in a process.
        rate: operations a second of all of them together; 0: as many as they can.
    """

    def __init__(self, conninfo: str, rows: int, clients: int = 4, rate: float = 200.0) -> None:
        self.given = {"conninfo": conninfo, "rows": rows, "rate": rate / clients}
        self.clients = clients
        self.processes: list[subprocess.Popen[str]] = []
        self.done: list[tuple[str, float, float]] = []
        self.own: list[int] = []

    def __enter__(self) -> Self:
        for first in range(0, self.clients, 2):
            numbers = list(range(first, min(first + 2, self.clients)))
            command = [sys.executable, "-m", "benchmarks.load", json.dumps({**self.given, "numbers": numbers})]
            process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
            self.processes.append(process)
        for process in self.processes:  # each says when it is ready
            assert process.stdout is not None
            process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            told, _unused = process.communicate("stop\n")
            found = json.loads(told)
            self.done += [(kind, due, seconds) for kind, due, seconds in found["done"]]
            self.own += found["own"]
        self.done.sort(key=lambda operation: operation[1])


def main() -> None:
    """The clients of one process."""
    given = json.loads(sys.argv[1])
    clients = [Client(given["conninfo"], number, given["rows"], given["rate"]) for number in given["numbers"]]
    over = threading.Event()
    threads = [threading.Thread(target=client.run, args=(over,)) for client in clients]
    for thread in threads:
        thread.start()
    print("ready", flush=True)
    sys.stdin.readline()
    over.set()
    for thread in threads:
        thread.join()
    done = [one for client in clients for one in client.done]
    json.dump({"done": done, "own": [number for client in clients for number in client.own]}, sys.stdout)


if __name__ == "__main__":
    main()
