"""Load hundreds of millions of texts with Spark: executors embed, and each partition copies its rows by itself.

    spark-submit examples/spark_load.py s3://bucket/texts/*.parquet documents

Reads columns `id` and `text`; rows go into a table `id, text, hash, embedding`. It is idempotent by key and hash: a row
that is there with the hash of its text is left alone, one whose text has changed is replaced, and whatever a partition
did before it failed is left out when Spark tries it again. DATABASE_URL names a server that every executor reaches.
"""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, Column, MetaData, Table, Text, create_engine, delete, inspect, select

from pgmrl import Matryoshka, Short, database, ingest
from pgmrl.embedders import load_embedder
from pgmrl.ingestion.new_table import create_without_indexes

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pandas as pd
    from pyspark.sql import DataFrame

MODEL = "static"
DIMS, SHORT = 256, 64


def documents(name: str) -> Table:
    """The table; its index is built when the rows are there."""
    return Table(
        name,
        MetaData(),
        Column("id", BigInteger, primary_key=True, autoincrement=False),
        Column("text", Text),
        Column("hash", Text, nullable=False),
        Column("embedding", Matryoshka(DIMS, Short(SHORT))),
    )


def text_hash(text: str) -> str:
    """Of a text and the model: another model embeds everything anew."""
    return hashlib.sha256(f"{MODEL}\0{text}".encode()).hexdigest()[:32]


def load_partition(batches: Iterator[pd.DataFrame], url: str, name: str) -> Iterator[pd.DataFrame]:
    """Embed and copy what is not there yet; runs on an executor, batch by batch, with one connection.

    Args:
        batches: of a partition, with `id` and `text`.
        url: of the database.
        name: of the table.

    Yields:
        For each batch how many rows were written, and how many were there.
    """
    import pandas as pd  # noqa: PLC0415 - on the executor

    table, model = documents(name), load_embedder(MODEL)
    engine = create_engine(url)
    with engine.connect() as connection:
        for batch in batches:
            rows = {
                int(key): {"id": int(key), "text": text, "hash": text_hash(text or "")}
                for key, text in zip(batch["id"], batch["text"], strict=True)
            }
            query = select(table.c.id, table.c.hash).where(table.c.id.in_(rows))
            there = dict(connection.execute(query).tuples().all())
            new = [row for key, row in rows.items() if there.get(key) != row["hash"]]
            changed = [row["id"] for row in new if row["id"] in there]
            texts = [row["text"] or "" for row in new]
            vectors = [
                vector if text.strip() else None
                for text, vector in zip(texts, model.embed_documents(texts), strict=True)
            ]
            # one transaction: no reader sees a row that is gone and not yet back
            connection.execute(delete(table).where(table.c.id.in_(changed)))
            ingest(connection, table.c.embedding, new, vectors=vectors)
            connection.commit()
            yield pd.DataFrame({"written": [len(new)], "there": [len(rows) - len(new)]})
    engine.dispose()


def load(texts: DataFrame, url: str, name: str) -> tuple[int, int]:
    """Load a data frame with `id` and `text`; rows written, and rows that were there.

    Args:
        texts: of any source; a key in two partitions is loaded twice, so make keys unique before.
        url: of the database, which every executor reaches.
        name: of the table; made where there is none.
    """
    from pyspark.sql import functions  # noqa: PLC0415 - not on the executors

    table = documents(name)
    engine = create_engine(url)
    with engine.begin() as connection:
        database.create_pgvector(connection)
        if not inspect(connection).has_table(name):
            create_without_indexes(connection, table)
    counts: Any = (
        texts.select("id", "text")
        .mapInPandas(lambda batches: load_partition(batches, url, name), "written long, there long")
        .agg(functions.sum("written"), functions.sum("there"))
        .first()
    )
    with engine.begin() as connection:
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    engine.dispose()
    return int(counts[0] or 0), int(counts[1] or 0)


def main() -> None:
    """The command line's path and table."""
    from pyspark.sql import SparkSession  # noqa: PLC0415

    spark = SparkSession.builder.appName("pgmrl").getOrCreate()
    # at most as many connections as tasks run at a time: executors times cores
    written, there = load(
        spark.read.parquet(sys.argv[1]), database.sqlalchemy_url(os.environ["DATABASE_URL"]), sys.argv[2]
    )
    print(f"{written:,} rows written, {there:,} were there")
    spark.stop()


if __name__ == "__main__":
    main()
