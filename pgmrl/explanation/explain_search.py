"""Execute a search once under EXPLAIN, and say what each of its stages took."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pgmrl.explanation.explain_shards import explain_shards
from pgmrl.explanation.explanation import Explanation
from pgmrl.explanation.reasons import reasons
from pgmrl.explanation.server_counters import (
    block_size,
    read_only,
    row_counts,
    session_settings,
    settings_in_force,
)
from pgmrl.explanation.shortlists import shortlists
from pgmrl.explanation.stages import stages
from pgmrl.explanation.statement_check import check_arguments, check_parameters
from pgmrl.explanation.toast import ToastCounters
from pgmrl.explanation.verdict import sentences
from pgmrl.searching.arguments import flag
from pgmrl.searching.plans import explained, explained_text, reads_distributed, shortlist_scans

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection
    from sqlalchemy.orm import Session
    from sqlalchemy.sql.expression import SelectBase

__all__ = ["explain", "plan_text"]

SERIALIZE_SINCE: Final = 17  # EXPLAIN's option that counts what is read to send the result


def explain(
    connection: Connection | Session,
    statement: SelectBase,
    parameters: Mapping[str, Any] | None = None,
    *,
    analyze: bool = True,
) -> Explanation:
    """Execute a search once under EXPLAIN ANALYZE and say what each of its stages took, and why.

        print(explain(session, search(select(Package), Package.embedding, vector)))

    Nothing is changed: the statement runs read-only in a savepoint (on a connection in autocommit: a transaction) that
    is rolled back, with the settings it makes. Works on a hot standby. It is planned first without being executed, so
    that the planning time is that of a connection in use; blocks are as warm or cold as they are.

    Of a distributed table the stages are what Citus asks the shards, or those of the one shard that the search goes to.

    With an AsyncSession: `await session.run_sync(lambda sync: explain(sync, statement))`.

    Args:
        connection: of the database, through any driver.
        statement: what `search`, `search_many`, `search_groups`, `search_diverse`, `search_funnel` or `search_hybrid`
            returned, also inside a Select of your own.
        parameters: values of the statement's own parameters, by name.
        analyze: False for the plan alone, without executing the statement.

    Raises:
        SearchError: the statement is not a search of pgmrl's, or one of a table that is declared as distributed and is
            an ordinary one.
        WrongConnection: `connection` is not a Connection or Session.

    """
    connection, parameters = check_arguments(connection, statement), check_parameters(parameters)
    analyze = flag("analyze", analyze)
    with read_only(connection):
        if reads_distributed(statement):
            return explain_shards(connection, statement, parameters, analyze=analyze)
        document = explained(connection, statement, "VERBOSE, SETTINGS", parameters)
        toast_reads = None
        session = session_settings(connection)  # planning has loaded pgvector, whose settings they are
        if analyze:
            counters = ToastCounters(connection, document["Plan"])
            document = explained(connection, statement, _explain_options(connection), parameters)
            toast_reads = counters.since_start(document["Plan"])
        plan = document["Plan"]
        counts, block = row_counts(connection, plan), block_size(connection)
        why = reasons(connection, statement, plan, parameters) if shortlist_scans(plan) else []
    listed = stages(document)
    explanation = Explanation(
        stages=tuple(listed),
        shortlists=tuple(shortlists(statement, listed, plan, session, counts)),
        reasons=tuple(why),
        planning_ms=document.get("Planning Time"),
        execution_ms=document.get("Execution Time"),
        jit_ms=document.get("JIT", {}).get("Timing", {}).get("Total"),
        toast_reads=toast_reads,
        settings=settings_in_force(session, plan) | document.get("Settings", {}),
        row_counts=counts,
        block_size=block,
        document=document,
    )
    return replace(explanation, verdict=tuple(sentences(explanation)))


def plan_text(
    connection: Connection | Session,
    statement: SelectBase,
    parameters: Mapping[str, Any] | None = None,
    *,
    analyze: bool = True,
) -> str:
    """The server's plan of a search as text, in which vectors are cut to their first numbers.

    Arguments and errors are those of `explain`; of a distributed table, the plan of one shard stands for all.
    """
    connection, parameters = check_arguments(connection, statement), check_parameters(parameters)
    with read_only(connection):
        options = "ANALYZE, BUFFERS, SETTINGS" if analyze else "SETTINGS"
        return explained_text(connection, statement, options, parameters)


def _explain_options(connection: Connection) -> str:
    version: Any = connection.dialect.server_version_info
    return "ANALYZE, BUFFERS, VERBOSE, SETTINGS" + (", SERIALIZE" if version[0] >= SERIALIZE_SINCE else "")
