"""What is read out of Citus' plans, of documents cut from those of Citus 14.0.1."""

from __future__ import annotations

from typing import Any

from pgmrl.explanation.shard_stages import round_name, shard_shortlist, shard_stages
from pgmrl.searching.plans import expected_rows, index_serving
from pgmrl.searching.shard_plans import rounds, shard_plans

GATE = {
    "Node Type": "Result",
    "Parent Relationship": "InitPlan",
    "Plan Rows": 1,
    "Actual Rows": 1.0,
    "Actual Loops": 1,
    "One-Time Filter": "((set_config('hnsw.ef_search'::text, '100'::text, true)) IS NOT NULL)",
}


def node(kind: str, rows: float, *inner: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A node that was executed once."""
    return {"Node Type": kind, "Plan Rows": rows, "Actual Rows": rows, "Actual Loops": 1, "Plans": [*inner]} | more


def scan(shard: int, *, index: bool = True, loops: int = 1) -> dict[str, Any]:
    """Of a shard, in the order of its short index or whole."""
    own = {"Relation Name": f"docs_{shard}", "Parent Relationship": "Outer", "Actual Loops": loops}
    if not index:
        return node("Seq Scan", 50, **own)
    return node("Index Scan", 50, **own, **{"Index Name": f"docs_short_64_hnsw_{shard}", "Order By": "short <=> …"})


def citus(*plans: dict[str, Any], subplans: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    """Citus' own node, with the plans of its tasks."""
    tasks = [
        {"Node": f"host=w port={7400 + number} dbname=shop", "Remote Plan": [[{"Plan": plan, "Execution Time": 1.5}]]}
        for number, plan in enumerate(plans)
    ]
    query: dict[str, Any] = {"Job": {"Task Count": len(tasks), "Tasks": tasks}}
    if subplans is not None:
        query["Subplans"] = subplans
    return node("Custom Scan", 0, **{"Parent Relationship": "Outer", "Distributed Query": query, **more})


def subplan(plan: dict[str, Any], ms: float) -> dict[str, Any]:
    """A round whose rows the coordinator keeps."""
    return {"Subplan Duration": ms, "PlannedStmt": [{"Plan": plan}]}


def kept(rows: float) -> dict[str, Any]:
    """The coordinator's reading of kept rows."""
    return node("Limit", rows, node("Function Scan", rows, **{"Function Name": "read_intermediate_result"}))


def shortlist(*scans: dict[str, Any]) -> dict[str, Any]:
    """The round of a shortlist of 100."""
    shards = citus(*(node("Limit", 100, GATE, each, **{"Shared Hit Blocks": 40}) for each in scans))
    return node("Limit", 100, node("Sort", 100_000, shards))


def fallback(loops: int) -> dict[str, Any]:
    """The round of the exact ranking, with one of its own before it."""
    rows = [scan(shard, index=False, loops=loops) for shard in (8, 9)]
    plans = [node("Sort", 10, each, **{"Sort Key": ["((docs.e <=> '[1,2]'::vector) + '0')"]}) for each in rows]
    return node("Limit", 10, citus(*plans, subplans=[subplan(citus(kept(1)), 2.0)]))


def searched(*scans: dict[str, Any], loops: int = 0) -> dict[str, Any]:
    """A filtered search."""
    subplans = [subplan(shortlist(*scans), 12.0), subplan(fallback(loops), 5.0)]
    return citus(kept(10), subplans=subplans, **{"Actual Total Time": 1.0})


def test_rounds() -> None:
    """In their order, each with its own time and rows, with the names of the table and the index."""
    listed = rounds(searched(scan(8), scan(9)))
    assert [round_name(each) for each in listed] == ["shortlist", "coordinator", "exact", "coordinator"]
    assert [each.ms for each in listed] == [12.0, 2.0, 3.0, 1.0]
    assert [each.rows for each in listed] == [100, 1, 10, 10]
    assert [task.node for task in listed[0].tasks] == ["w:7400", "w:7401"]
    first = listed[0].tasks[0].document["Plan"]["Plans"][1]
    assert (first["Relation Name"], first["Index Name"]) == ("docs", "docs_short_64_hnsw")


def test_stages() -> None:
    """Times are the coordinator's and add up, blocks are the shards'; a ranking that no shard had to do was not run."""
    stages = shard_stages(rounds(searched(scan(8), scan(9))))
    assert [(stage.name, stage.executed) for stage in stages] == [
        ("shortlist", True),
        ("exact", False),
        ("coordinator", True),
    ]
    assert [stage.usage and stage.usage.ms for stage in stages] == [12.0, 3.0, 3.0]
    assert stages[0].usage is not None
    assert stages[0].usage.hit == 80
    assert shard_stages(rounds(searched(scan(8), scan(9), loops=1)))[1].executed is True


def test_serving() -> None:
    """By the short index only where it serves on every shard."""
    assert index_serving(searched(scan(8), scan(9))) == (("docs_short_64_hnsw",), None)
    mixed = index_serving(searched(scan(8), scan(9, index=False)))
    assert mixed.indexes == ("docs_short_64_hnsw",)
    assert mixed.instead == "the whole table docs is read, and the distances are sorted"
    sql = "ORDER BY short <=> (SELECT … WHERE (set_config('hnsw.ef_search', '200', true)) IS NOT NULL)\n LIMIT 100"
    (own,) = shard_shortlist(rounds(searched(scan(8), scan(9))), f"{sql}) SELECT … LIMIT 10")
    assert (own.size, own.rows, own.indexes, own.instead) == (100, 100, ("docs_short_64_hnsw",), None)


def test_expected_rows() -> None:
    """Of a scan of all shards the sum, for Citus itself expects none; of another plan its own."""
    assert expected_rows(citus(scan(8, index=False), scan(9, index=False))) == 100
    assert expected_rows(node("Seq Scan", 7)) == 7
    assert shard_plans(node("Seq Scan", 7)) == []
