"""From a model and a table's state to operations, without a database."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import pytest

from pgmrl.alembic.autogenerate.compared_tables import DeclaredFull, DeclaredShort, DeclaredSide, DeclaredTable
from pgmrl.alembic.autogenerate.prerequisites import commits, needs_schema, rotations_used
from pgmrl.alembic.autogenerate.short_column_rules import table_changes
from pgmrl.alembic.autogenerate.side_table_rules import side_changes
from pgmrl.alembic.operations import (
    AddShort,
    AlterShort,
    BackfillShort,
    CreateShortIndex,
    DropShort,
    DropShortIndex,
    DropSide,
    KeepSide,
    MarkShort,
    OneWay,
    RebuildShortIndex,
    SetStorage,
    ValidateShort,
)
from pgmrl.database.index_states import IndexState
from pgmrl.database.table_state import ColumnState, ShortState, SideState, SyncTrigger, TableState
from pgmrl.model.hnsw import Hnsw
from pgmrl.model.shortening import Definition, Rotation, Short

if TYPE_CHECKING:
    from collections.abc import Sequence

    from alembic.operations import MigrateOperation

    from pgmrl.model.metrics import MetricName

ROTATION = Rotation("r0123456789ab")
SHORT = "embedding_short_4"


def definition(
    dims: int = 4, metric: MetricName = "cosine", full: Literal["vector", "halfvec"] = "vector"
) -> Definition:
    """A prefix of this many dimensions."""
    return Definition.of(8, Short(dims), metric, full)


def declared(*shorts: Definition, index: Hnsw | None = Hnsw(), **options: Any) -> DeclaredTable:  # noqa: B008 - immutable
    """A model with a vector column and these short ones."""
    full = DeclaredFull("embedding", f"{shorts[0].full}(8)" if shorts else "vector(8)", options.pop("storage", None))
    declared_shorts = tuple(DeclaredShort("embedding", short, () if index is None else (index,)) for short in shorts)
    names = {"id", "embedding", *(short.name for short in declared_shorts)}
    return DeclaredTable(frozenset(names), (full,), declared_shorts, **options)


def index_of(one: Definition, index: Hnsw | None = None, *, valid: bool = True) -> IndexState:
    """The index on a short column."""
    name = Hnsw().index_name("documents", one.short_name("embedding"))
    operator_class = one.metric.operator_class(one.short.type)
    return IndexState(1, name, operator_class, index or Hnsw(), valid, 8192, None)


def short_of(
    one: Definition,
    *indexes: IndexState,
    kept_by: Literal["generated", "trigger"] = "generated",
    stage: str | None = None,
) -> ShortState:
    """A short column as `table_state` reads it: with its name."""
    name = one.short_name("embedding")
    named = replace(one, short=replace(one.short, name=name))
    return ShortState("embedding", name, named, kept_by, indexes, stage)


def table(*shorts: ShortState, full: str = "vector(8)", storage: str = "external", complete: bool = True) -> TableState:
    """A table with a vector column and these short ones."""
    columns = {
        "id": ColumnState("id", "int4", None, "plain", None, True),
        "embedding": ColumnState("embedding", full, None, storage, None, False),
    }
    keepers = {}
    for short in shorts:
        kind = f"{short.definition.short.type}({short.definition.short.dims})"
        columns[short.short] = ColumnState(short.short, kind, None, "main", None, False)
        if short.kept_by == "trigger":
            metric = short.definition.metric.name
            keepers[short.short] = SyncTrigger("zz", "embedding", short.short, "prefix", metric, "", complete)
    return TableState("public", "documents", False, columns, keepers, {short.short: short for short in shorts}, (), ())


def steps(ops: Sequence[MigrateOperation]) -> list[type]:
    """What is done, in order."""
    done = []
    for op in ops:
        if isinstance(op, OneWay):
            done += [] if op.downgrade else [type(op.operation)]
        else:
            done.append(type(op))
    return done


def up_and_down(
    model: DeclaredTable | None, state: TableState | None, *, online: bool = False
) -> tuple[list[type], list[type]]:
    """Both directions."""
    ops = table_changes(None, "documents", model, state, online=online).all
    return steps(ops), steps([op.reverse() for op in reversed(ops)])


KEPT = short_of(definition(), index_of(definition()))
BY_TRIGGER = short_of(definition(), index_of(definition()), kept_by="trigger")


@pytest.mark.parametrize("there", [KEPT, BY_TRIGGER])
@pytest.mark.parametrize("online", [False, True])
def test_the_same_whichever_way_it_is_kept(there: ShortState, online: bool) -> None:
    """No operation, whatever road led there."""
    assert table_changes(None, "documents", declared(definition()), table(there), online=online).all == []


def test_a_new_table() -> None:
    """Its way back is the table's; a trigger's function has to be removed."""
    assert up_and_down(declared(definition(), storage="main"), None) == ([SetStorage, AddShort, CreateShortIndex], [])
    rotated = Definition.of(8, Short(4, ROTATION), full="vector")
    assert up_and_down(declared(rotated), None)[1] == [DropShort]
    (index,) = table_changes(None, "documents", declared(definition()), None, online=True).indexes
    assert not commits(index)


def test_a_removed_table() -> None:
    """It comes back with everything."""
    assert up_and_down(None, table(KEPT, storage="main")) == ([], [SetStorage, AddShort, CreateShortIndex])
    assert up_and_down(None, table(BY_TRIGGER)) == ([DropShort], [AddShort, CreateShortIndex])


def test_a_new_short_column() -> None:
    """In place, or while the table is in use."""
    assert up_and_down(declared(definition()), table()) == ([AddShort, CreateShortIndex], [DropShort])
    expected = [AddShort, BackfillShort, ValidateShort, CreateShortIndex]
    assert up_and_down(declared(definition()), table(), online=True) == (expected, [DropShort])


def test_the_new_one_is_searchable_before_the_old_one_goes() -> None:
    """In both directions."""
    both = [AddShort, CreateShortIndex, DropShort]
    assert up_and_down(declared(definition(2)), table(KEPT)) == (both, both)
    up, down = up_and_down(declared(definition(2)), table(KEPT), online=True)
    assert up[-1] is MarkShort
    assert down == [MarkShort, DropShort]


def test_one_that_a_trigger_kept_comes_back_so() -> None:
    """Added online and filled, then indexed."""
    up, down = up_and_down(declared(), table(BY_TRIGGER))
    assert up == [DropShort]
    assert down == [AddShort, BackfillShort, ValidateShort, CreateShortIndex]
    (dropped,) = [
        op for op in table_changes(None, "documents", declared(), table(BY_TRIGGER)).drops if isinstance(op, DropShort)
    ]
    assert dropped.previous is not None
    assert dropped.previous.online
    assert dropped.previous.definition.short.name is None  # the usual name needs no saying


@pytest.mark.parametrize("stage", ["arriving", "retired"])
@pytest.mark.parametrize("online", [False, True])
def test_marks(stage: str, online: bool) -> None:
    """Left alone where the model does not have it, taken off where it has."""
    marked = replace(KEPT, stage=stage)
    assert table_changes(None, "documents", declared(), table(marked), online=online).all == []
    (op,) = table_changes(None, "documents", declared(definition()), table(marked), online=online).all
    assert isinstance(op, MarkShort)
    assert (op.stage, op.reverse().stage) == (None, stage)


@pytest.mark.parametrize(
    ("index", "there", "expected"),
    [
        (Hnsw(24, 128), index_of(definition()), [RebuildShortIndex]),
        (Hnsw(), index_of(definition(metric="l2")), [RebuildShortIndex]),
        (Hnsw(), index_of(definition(), valid=False), [RebuildShortIndex]),
        (Hnsw(), replace(index_of(definition(), valid=False), builder=77), []),
        (None, index_of(definition()), [DropShortIndex]),
        (None, replace(index_of(definition()), name="another"), []),
        (Hnsw(), None, [CreateShortIndex]),
    ],
    ids=["parameters", "operator class", "invalid", "being built", "not wanted", "not ours", "missing"],
)
def test_indexes(index: Hnsw | None, there: IndexState | None, expected: list[type]) -> None:
    """What the catalogue has and what the model says."""
    existing = short_of(definition(), *([there] if there else []))
    assert up_and_down(declared(definition(), index=index), table(existing))[0] == expected


def test_an_index_comes_back_as_it_was() -> None:
    """Parameters and operator class."""
    existing = short_of(definition(metric="l2"), index_of(definition(metric="l2"), Hnsw(8, 40)))
    (op,) = table_changes(None, "documents", declared(definition(metric="inner_product")), table(existing)).all
    back = op.reverse()
    assert isinstance(back, RebuildShortIndex)
    assert (back.index, back.definition.metric.name) == (Hnsw(8, 40), "l2")
    (same,) = table_changes(None, "documents", declared(definition(metric="l2")), table(existing)).all
    assert isinstance(same, RebuildShortIndex)
    assert same.previous_definition is None


def test_another_meaning_under_the_same_name() -> None:
    """Replaced in place; online, and where a trigger kept it, dropped and added."""
    l2 = declared(definition(metric="l2"))
    assert up_and_down(l2, table(KEPT)) == ([AlterShort, CreateShortIndex], [AlterShort, CreateShortIndex])
    up, down = up_and_down(l2, table(BY_TRIGGER))
    assert up == [DropShort, AddShort, CreateShortIndex]
    assert down == [DropShort, AddShort, BackfillShort, ValidateShort, CreateShortIndex]
    assert up_and_down(l2, table(KEPT), online=True)[0][0] is DropShort


def test_the_full_column_of_another_type() -> None:
    """Short columns go before, in whatever stage, and storage is said again behind."""
    want = declared(definition(full="halfvec"), storage="main")
    changes = table_changes(None, "documents", want, table(replace(KEPT, stage="retired"), storage="main"))
    assert changes.retyped == {"embedding"}
    assert steps(changes.before) == [DropShort]
    assert steps(changes.after) == [SetStorage, AddShort]
    back = steps([op.reverse() for op in reversed([*changes.restores, *changes.before])])
    assert back == [SetStorage, AddShort, CreateShortIndex, MarkShort]


@pytest.mark.parametrize("there", [table(BY_TRIGGER, complete=False), None])
def test_a_trigger_that_is_missing(there: TableState | None) -> None:
    """It is installed again and what it missed is filled; there is nothing to undo."""
    if there is None:  # a plain column of the name, which nothing keeps
        there = replace(table(KEPT), shorts={})
    want = declared(definition(), existing_indexes=frozenset({index_of(definition()).name}))
    assert up_and_down(want, there) == ([AddShort, BackfillShort, ValidateShort], [])


def test_storage() -> None:
    """Of the full column where the model says it, of the short one always."""
    up, down = up_and_down(declared(definition(), storage="main"), table(KEPT))
    assert (up, down) == ([SetStorage], [SetStorage])
    state = table(KEPT)
    state.columns[SHORT] = replace(state.columns[SHORT], storage="external")
    (op,) = table_changes(None, "documents", declared(definition()), state).all
    assert isinstance(op, SetStorage)
    assert (op.column, op.storage, op.reverse().storage) == (SHORT, "main", "external")


def test_what_the_filters_leave_out() -> None:
    """Columns and indexes."""
    hidden = frozenset({SHORT})
    assert table_changes(None, "documents", declared(definition(), hidden=hidden), table()).all == []
    assert table_changes(None, "documents", declared(hidden=hidden), table(KEPT)).all == []
    index = frozenset({index_of(definition()).name})
    assert up_and_down(declared(definition(), hidden=index), table())[0] == [AddShort]
    assert up_and_down(declared(definition(), hidden=index), table(short_of(definition())))[0] == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("public.documents_embedding", "documents_embedding"),
        ('shop."we""ird %:t_embedding"', 'we"ird %:t_embedding'),
        ('"a.b"."c.""d"""', 'c."d"'),
        ('"""x"', '"x'),
    ],
)
def test_side_tables(text: str, name: str) -> None:
    """Known by their trigger's name; one that goes comes back to the table it was for."""
    want = DeclaredSide("documents_embedding", ("id",), "embedding")
    kept, dropped = side_changes("shop", "documents", [want], [], ["id"])
    assert kept == [KeepSide("documents", "documents_embedding", ("id",), "embedding", "shop")]
    assert dropped == []
    there = SideState("zz_pgmrl_documents_embedding_embedding", text, "embedding")
    assert side_changes("shop", "documents", [want], [there], ["id"]) == ([], [])
    _, (gone,) = side_changes("shop", "documents", [], [there], ["id", "part"])
    assert gone.side == name
    assert gone.reverse() == KeepSide("documents", name, ("id", "part"), "embedding", "shop")
    assert isinstance(gone, DropSide)


def test_what_operations_need() -> None:
    """A trigger needs pgmrl's schema, a rotation its axes; what is done on the way back needs nothing yet."""
    plain = AddShort("documents", "embedding", definition())
    online, rotated = replace(plain, online=True), replace(plain, definition=Definition.of(8, Short(4, ROTATION)))
    assert not needs_schema([plain, OneWay(online, downgrade=True)])
    assert needs_schema([OneWay(online)])
    assert needs_schema([rotated])
    assert rotations_used([plain, rotated, rotated, OneWay(rotated)]) == [ROTATION]
    assert rotations_used([OneWay(rotated, downgrade=True)]) == []
    assert [commits(op) for op in (plain, rotated, online, OneWay(online, downgrade=True))] == [
        False,
        False,
        True,
        False,
    ]


def test_operations_for_alembic_check() -> None:
    """Each says what it is."""
    plain = AddShort("documents", "embedding", definition())
    assert plain.to_diff_tuple() == ("add_short", plain)
    assert OneWay(plain, downgrade=True).to_diff_tuple() == ("add_short", plain)
