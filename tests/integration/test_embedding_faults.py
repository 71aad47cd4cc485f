"""Everything that can go wrong at once; minutes of it are `python -m benchmarks.embed_faults`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.embedding_faults import under_faults

if TYPE_CHECKING:
    from sqlalchemy import Engine


def test_every_row_has_the_vector_of_its_latest_text(engine: Engine) -> None:
    """After kills, lost connections, and a model that answers late, wrong or not at all; none had another meanwhile."""
    outcome = under_faults(engine.url.render_as_string(hide_password=False), 4.0, 3, rows=100)
    assert (outcome.stored_wrong, outcome.rows_wrong, outcome.entries_left) == (0, 0, 0), outcome
    assert outcome.kills == 3
    assert outcome.kills_with_rows >= 2
    assert outcome.rows > 0
