"""An assertion for an application's own tests: the short index serves a search."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pgmrl.explanation.reasons import reasons
from pgmrl.explanation.server_counters import read_only, without_sorting
from pgmrl.explanation.statement_check import check_arguments, check_parameters
from pgmrl.searching.arguments import flag
from pgmrl.searching.plans import explained, explained_text, index_serving, reads_distributed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.expression import SelectBase

__all__ = ["assert_index_used"]


def assert_index_used(
    connection: Connection | Session,
    statement: SelectBase,
    parameters: Mapping[str, Any] | None = None,
    *,
    ignore_cost: bool = False,
) -> None:
    """Assert, in a test of your own, that the short index serves every shortlist of a search.

    The statement is planned, not executed, and nothing is changed.

        assert_index_used(session, search(select(Package), Package.embedding, vector), ignore_cost=True)

    Args:
        connection: of the database, through any driver.
        statement: as for `explain`.
        parameters: values of the statement's own parameters, by name.
        ignore_cost: ask whether the index can serve the search, whatever it costs: for a test's database with a few
            rows, where the planner rightly reads the whole table.

    Raises:
        AssertionError: it does not, with the reason and the plan.
        SearchError: the statement is not a search of pgmrl's.
        WrongConnection: `connection` is not a Connection or Session.

    """
    connection, parameters = check_arguments(connection, statement), check_parameters(parameters)
    ignore_cost = flag("ignore_cost", ignore_cost)
    with read_only(connection):
        if ignore_cost:
            without_sorting(connection, shards=reads_distributed(statement))
        plan = explained(connection, statement, "VERBOSE", parameters)["Plan"]
        serving = index_serving(plan)
        if serving.used:
            return
        plan_lines = explained_text(connection, statement, "", parameters)
        why = "; ".join(reasons(connection, statement, plan, parameters))
    raise AssertionError(f"the short index does not serve this search: {serving.instead}\nWhy: {why}.\n\n{plan_lines}")
