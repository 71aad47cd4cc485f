"""The setting that was chosen, tried with the queries that it was not chosen by."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg import Cursor
from psycopg.rows import tuple_row

from pgmrl.measure.intervals import mean_interval
from pgmrl.measure.recall_by_distance import recall_at_k
from pgmrl.tune.index_scans import IndexScans, TrialQueries
from pgmrl.tune.index_trials import TIMED
from pgmrl.tune.result import Check
from pgmrl.tune.search_timing import time_trial
from pgmrl.tune.tuning_transaction import driver_of

if TYPE_CHECKING:
    from pgmrl.tune.index_trial import IndexTrial, Option
    from pgmrl.tune.index_trials import IndexTrials

__all__ = ["check_column", "check_trial"]

FEWEST: Final = 100  # queries


def check_trial(trials: IndexTrials, trial: IndexTrial, option: Option) -> Check | None:
    """The setting through the index that was tried; None where no queries are left."""
    inputs = trials.inputs
    if not len(inputs.checking):
        return None
    base = trial.indexes[0]
    index, rows = base.scans.index, base.rows
    shortlist, ef = option.shortlist, option.ef_search
    checking = _affordable(trials, option)
    queries = TrialQueries.of(trial.candidate.definition, inputs.checking[:checking])
    part = slice(inputs.tuned, inputs.tuned + checking)
    scans = IndexScans(index, queries, trials.truths[base.sample].of_queries(part))
    scans.scan(ef)
    if index.trial:
        ms = time_trial(index, queries, [(shortlist, ef)], trials.request.k, rows, 2 * TIMED)[0].ms
        what = f"a trial index of {rows:,} rows"
    else:
        ms = trials.time_existing([(shortlist, ef)], queries)[0]
        what = "the index there is"
    return Check(
        what,
        len(queries),
        trial.recall(shortlist, ef, rows).mean,
        mean_interval(scans.per_query(shortlist, ef)),
        trial.latency_ms(shortlist, ef, rows),
        ms,
    )


def check_column(trials: IndexTrials, trial: IndexTrial, option: Option) -> Check | None:
    """The same through the column there is, by the statement that applications send; None where it was not read whole.

    Queries that are rows of the table are in its index: they are not counted, and found a little more easily than
    others would be.
    """
    inputs, k = trials.inputs, trials.request.k
    checking = _affordable(trials, option)
    truth = trials.truths[0].of_queries(slice(inputs.tuned, inputs.tuned + checking))
    if not len(inputs.checking) or inputs.table.percent < 100:
        return None
    keys = {tuple(key) for key in inputs.source.keys or ()}
    more = 0 if not keys else 2 + 2 * round(k * len(keys) / max(1, inputs.rows))
    shortlist, ef = option.shortlist, option.ef_search
    queries = TrialQueries.of(trial.candidate.definition, inputs.checking[:checking])
    search = trials.application_search(queries, min(shortlist, k + more), shortlist, ef)
    recalls = []
    with Cursor(driver_of(inputs.table.connection), row_factory=tuple_row) as cursor:
        for number, (distances, count) in enumerate(zip(truth.distances, truth.counts, strict=True)):
            statement, parameters = search(number)
            rows = cursor.execute(statement.encode(), parameters).fetchall()
            returned = [float(row[-1]) for row in rows if tuple(row[:-1]) not in keys][:k]
            recalls.append(recall_at_k(returned, distances[:count].tolist()))
            trials.report("checking the column", number, len(queries))
    return Check(
        "the column there is",
        len(recalls),
        trial.recall(shortlist, ef, inputs.rows).mean,
        mean_interval(recalls),
        trial.latency_ms(shortlist, ef, inputs.rows),
        trials.time_existing([(shortlist, ef)], queries)[0],
    )


def _affordable(trials: IndexTrials, option: Option) -> int:
    """Queries that there is time to check with; a hundred in any case, where there are so many."""
    count, left = len(trials.inputs.checking), trials.budget.left_to_check
    if left is None:
        return count
    return min(count, max(FEWEST, int(1000 * left / (3 * max(0.1, option.latency_ms)))))
