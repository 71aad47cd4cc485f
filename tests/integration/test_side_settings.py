"""A side table's column has two names, its own and the application's: what is stored by one holds for the other."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, select, text

from pgmrl import Short, add_functions, add_side_table, load_settings, reflect, search
from pgmrl.database.settings import Setting, forget_setting, setting_of, store_setting, stored_setting
from pgmrl.doctor import Thresholds, doctor, health
from pgmrl.measure import measure_recall, record_recall
from pgmrl.measure.history import recall_history
from pgmrl.model.columns import vectors_table
from pgmrl.model.types import NumpyVector
from tests.conftest import vector_text

VECTORS = np.random.default_rng(0).normal(size=(600, 8))
CHOSEN = Setting(10, 11, 17, target=0.9, row_count=200)


@pytest.fixture
def papers(engine: Engine) -> Table:
    """600 rows with a side table, and SQL functions for both names."""
    metadata = MetaData()
    table = Table("papers", metadata, Column("id", Integer, primary_key=True), Column("e", NumpyVector(8, "vector")))
    add_side_table(table.c.e, Short(4))
    add_functions(table.c.e)
    add_functions(vectors_table(table.c.e).c.e)
    with engine.begin() as connection:
        metadata.create_all(connection)
        connection.execute(table.insert(), [{"id": n, "e": v} for n, v in enumerate(VECTORS)])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    return table


def by_function(connection: Connection, table: str) -> list[int]:
    """What a SQL function finds for the first row's vector, with whatever it takes by default."""
    query = text(f"SELECT id FROM {table}_search(:query)")
    return list(connection.execute(query, {"query": vector_text(VECTORS[0])}).scalars())


def by_model(connection: Connection, column: Any, **options: Any) -> list[int]:
    """What a search from Python finds."""
    return list(connection.execute(search(select(column.table.c.id), column, VECTORS[0], **options)).scalars())


@pytest.mark.parametrize("stored_by", ["the model", "the command line"])
def test_a_setting_holds_by_either_name(engine: Engine, papers: Table, stored_by: str) -> None:
    """A model stores for the application's table, `pgmrl tune papers_e.e --apply` for the side table."""
    with engine.begin() as connection:
        reflected = reflect(connection, "papers_e.e")
        usual = by_function(connection, "papers")
        assert usual == by_function(connection, "papers_e") == by_model(connection, papers.c.e)
        store_setting(connection, papers.c.e if stored_by == "the model" else reflected, CHOSEN)
        assert stored_setting(connection, papers.c.e) == stored_setting(connection, reflected) == CHOSEN
        assert set(load_settings(connection, papers.metadata)) == {"papers.e", "papers_e.e"}
        assert setting_of(papers.c.e) == setting_of(reflect(connection, "papers_e.e")) == CHOSEN
        tuned = by_model(connection, papers.c.e)
        assert tuned == by_function(connection, "papers") == by_function(connection, "papers_e") != usual
        assert forget_setting(connection, reflected if stored_by == "the model" else papers.c.e)
        assert load_settings(connection, papers.metadata) == {}
        assert by_function(connection, "papers") == usual


@pytest.mark.parametrize("stored_by", ["the model", "the command line"])
def test_the_doctor_sees_what_either_stored(engine: Engine, papers: Table, stored_by: str) -> None:
    """SearchOptions by either name, and so does the view for dashboards."""
    with engine.begin() as connection:
        column: Any = papers.c.e if stored_by == "the model" else reflect(connection, "papers_e.e")
        store_setting(connection, column, CHOSEN)
        numbers: Any = {"k": CHOSEN.k, "shortlist": CHOSEN.shortlist, "ef_search": CHOSEN.ef_search}
        record_recall(connection, column, measure_recall(connection, column, queries=20, **numbers))
    with engine.connect() as connection:
        for asked in (papers.c.e, "papers.e", "papers_e.e"):
            report = doctor(connection, asked, only=["stored-setting", "recall-target"], thresholds=Thresholds(100))
            assert {one.check for one in report} == {"stored-setting", "recall-target"}
            assert {one.subject for one in report} == {"public.papers_e.e"}
        (row,) = health(connection)
        assert (row.recall_target, row.below_target) == (0.9, True)
        assert len(recall_history(connection, papers.c.e)) == 1
        assert recall_history(connection, papers.c.e) == recall_history(connection, reflect(connection, "papers_e.e"))
