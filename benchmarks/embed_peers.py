"""A first load beside others: `python -m benchmarks.embed_peers --rows 20000,40000`.

The same texts and vectors (the static model's, 256 dimensions) by `pgmrl load`, langchain-postgres, LlamaIndex's
PGVectorStore and vecs, each as its documentation has it, in batches of 1,000, in a process of its own. The others get
the vectors as arrays; `pgmrl load` reads them from Parquet. None has an index: that of `pgmrl load`, which it makes at
the end, is not counted, nor is its measurement of recall. Each of the others is installed into an environment of its
own, in --environments.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import venv
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.embed_results import keep, new_server
from benchmarks.million import texts
from pgmrl.embedders import load_embedder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.server import Server

READ: Final = """
import json, sys, resource, time
import numpy as np
url, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
vectors = np.load(folder + "/vectors.npy", mmap_mode="r")

def batches():
    with open(folder + "/rows.jsonl") as file:
        for first in range(0, count, 1000):
            rows = [json.loads(next(file)) for _ in range(first, min(first + 1000, count))]
            yield rows, vectors[first : first + len(rows)]

def done(began):
    print(json.dumps({"seconds": time.perf_counter() - began}))
"""
PEERS: Final = {
    "langchain-postgres": (
        "PGVectorStore.add_embeddings",
        READ
        + """
from langchain_core.embeddings import DeterministicFakeEmbedding
from langchain_postgres import PGEngine, PGVectorStore
engine = PGEngine.from_connection_string(url=url.replace("postgresql:", "postgresql+psycopg:"))
engine.init_vectorstore_table(table_name="langchain", vector_size=256)
store = PGVectorStore.create_sync(
    engine, table_name="langchain", embedding_service=DeterministicFakeEmbedding(size=256)
)
import uuid
began = time.perf_counter()
for rows, arrays in batches():
    store.add_embeddings(
        [row["name"] for row in rows], arrays.tolist(), [{"topic": row["topic"]} for row in rows],
        [str(uuid.UUID(int=row["id"])) for row in rows],
    )
done(began)
""",
    ),
    "llama-index-vector-stores-postgres": (
        "PGVectorStore.add",
        READ
        + """
from llama_index.core.schema import TextNode
from llama_index.vector_stores.postgres import PGVectorStore
store = PGVectorStore(
    connection_string=url.replace("postgresql:", "postgresql+psycopg2:"),
    async_connection_string=url.replace("postgresql:", "postgresql+asyncpg:"), table_name="llama", embed_dim=256,
)
began = time.perf_counter()
for rows, arrays in batches():
    store.add([
        TextNode(id_=str(row["id"]), text=row["name"], metadata={"topic": row["topic"]}, embedding=vector)
        for row, vector in zip(rows, arrays.tolist())
    ])
done(began)
""",
    ),
    "vecs": (
        "Collection.upsert",
        READ
        + """
import vecs
client = vecs.create_client(url.replace("postgresql:", "postgresql+psycopg2:"))
collection = client.get_or_create_collection(name="docs", dimension=256)
began = time.perf_counter()
for rows, arrays in batches():
    collection.upsert(records=[
        (str(row["id"]), vector, {"text": row["name"], "topic": row["topic"]}) for row, vector in zip(rows, arrays)
    ])
done(began)
""",
    ),
}


def environments(folder: Path) -> dict[str, Path]:
    """Each peer's Python; installed where it is not yet."""
    pythons = {}
    for package in PEERS:
        place = folder / package
        pythons[package] = place / "bin" / "python"
        if not pythons[package].exists():
            venv.create(place, with_pip=True)
            subprocess.run([pythons[package], "-m", "pip", "install", "-q", package], check=True)  # noqa: S603
    return pythons


def run(command: Sequence[str | Path], environ: dict[str, str] | None = None) -> dict[str, Any]:
    """What a process printed as JSON, its seconds and its largest memory."""
    began = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, stdout=output, env={**os.environ, **(environ or {})})  # noqa: S603
        largest = 0.0
        while process.poll() is None:
            largest = max(largest, _memory(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        if process.returncode:
            raise SystemExit(f"{command[:3]} failed")
        output.seek(0)
        text = output.read().decode()
        printed = json.loads(text[text.index("{") :])
    return {"process": seconds, "megabytes": largest, **printed}


def _memory(pid: int) -> float:
    """The largest memory of a process so far, in MB; what getrusage says counts that of the process it was made by."""
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return round(int(line.split()[1]) / 1024, 1)
    return 0.0


def write_data(folder: Path, rows: int) -> float:
    """Texts, and their vectors for everybody; the seconds that the model took."""
    model, lines = load_embedder("static"), list(texts(rows))
    began = time.perf_counter()
    names = [row["name"] for row in lines]
    vectors = np.concatenate([model.embed_documents(names[n : n + 1000]) for n in range(0, rows, 1000)])
    seconds = time.perf_counter() - began
    np.save(folder / "vectors.npy", vectors)
    (folder / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in lines))
    columns = {name: [row[name] for row in lines] for name in ("id", "name", "topic")}
    vector = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    pq.write_table(pa.table({**columns, "vector": vector}), folder / "rows.parquet")
    return seconds


def load(server: Server, how: Sequence[str], table: str) -> dict[str, Any]:
    """`pgmrl load`; seconds of what the others do as well."""
    command = [sys.executable, "-W", "ignore", "-m", "pgmrl.cli", "load", *how, "--table", table, "--json"]
    result = run(command, {"DATABASE_URL": server.sqlalchemy_url})
    steps = result["seconds"]
    return {"seconds": steps["read"] + steps["embed and load"], "megabytes": result["megabytes"], "steps": steps}


def measure(server: Server, pythons: dict[str, Path], rows: int) -> dict[str, Any]:
    """Everybody on so many rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        embedding = write_data(folder, rows)
        url = f"postgresql://postgres@/postgres?host={server.data}"
        parquet = str(folder / "rows.parquet")
        numbers: dict[str, Any] = {
            "pgmrl, the same vectors": load(server, [parquet, "--vector-column", "vector"], f"vectors_{rows}"),
            "pgmrl, with embedding": load(server, [str(folder / "rows.jsonl"), "--text", "name"], f"texts_{rows}"),
            "the model alone": {"seconds": embedding},
        }
        for package, (_, script) in PEERS.items():
            numbers[package] = run([pythons[package], "-c", script, url, str(folder), str(rows)])
            with server.connect() as connection:
                connection.execute("DROP TABLE IF EXISTS langchain, data_llama")
                connection.execute("DROP SCHEMA IF EXISTS vecs CASCADE")
    own, embedded = (numbers[f"pgmrl, {way}"]["seconds"] for way in ("the same vectors", "with embedding"))
    for entry in numbers.values():
        entry["rows a second"] = round(rows / entry["seconds"])
    for package in PEERS:
        seconds = numbers[package]["seconds"]
        numbers[package]["pgmrl is faster, the same vectors"] = round(seconds / own, 1)
        numbers[package]["pgmrl is faster, with embedding"] = round((seconds + embedding) / embedded, 1)
    return numbers


def main() -> None:
    """Measure, and put the numbers into the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", default="20000,40000", help="one or more sizes")
    parser.add_argument("--environments", type=Path, default=Path(tempfile.gettempdir()) / "pgmrl-peers")
    options = parser.parse_args()
    pythons = environments(options.environments)
    with new_server({}) as server:
        sizes = [int(size) for size in options.rows.split(",")]
        keep("peers", {f"{rows:,} rows": measure(server, pythons, rows) for rows in sizes}, server)


if __name__ == "__main__":
    main()
