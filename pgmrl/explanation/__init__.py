"""What a search costs, stage by stage, and which index serves it: `explain`, and an assertion for tests."""

from pgmrl.explanation.explain_search import explain, plan_text
from pgmrl.explanation.explanation import Explanation
from pgmrl.explanation.index_assertion import assert_index_used
from pgmrl.explanation.shortlists import Shortlist
from pgmrl.explanation.stages import Scan, Stage, Usage
from pgmrl.explanation.toast import ToastReads

__all__ = [
    "Explanation",
    "Scan",
    "Shortlist",
    "Stage",
    "ToastReads",
    "Usage",
    "assert_index_used",
    "explain",
    "plan_text",
]
