"""What a table has: its vector columns, the short ones and what keeps each in step, their indexes.

The catalogue is the truth. A short column is known by what computes it (a generated column's expression or a trigger's
function), never by its name, so that two roads to the same state are the same state.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, cast

from sqlalchemy import text

from pgmrl.database.extension import hidden_schema
from pgmrl.database.index_states import FilterIndexState, IndexState, filter_index_states, index_states
from pgmrl.database.search_path import catalogue_result, relation_name
from pgmrl.database.sql import load as load_sql
from pgmrl.errors import DefinitionError
from pgmrl.model.ddl import rule_of
from pgmrl.model.metrics import METRICS
from pgmrl.model.shortening import FULL_LIMIT, Definition, Prefix, Rotation, Short
from pgmrl.names import qualified

if TYPE_CHECKING:
    from collections.abc import Collection

    from sqlalchemy import Connection

    from pgmrl.model.metrics import FullType, MetricName, ShortType

__all__ = ["ColumnState", "ShortState", "SideState", "SyncTrigger", "TableState", "table_state"]


@dataclass(frozen=True, slots=True)
class ColumnState:
    """A column as the catalogue has it.

    Attributes:
        name: its name.
        type: its type without a schema, such as `halfvec(768)`.
        generated: the expression of a generated column, as the server writes it.
        storage: `main`, `external`, `extended` or `plain`.
        comment: its comment.
        not_null: whether NULL is refused.
    """

    name: str
    type: str
    generated: str | None
    storage: str
    comment: str | None
    not_null: bool

    @property
    def kind(self) -> str:
        """The type without its dimensions."""
        return self.type.partition("(")[0]

    @property
    def dims(self) -> int | None:
        """The type's dimensions, where it has some."""
        dims = re.search(r"\((\d+)\)$", self.type)
        return int(dims.group(1)) if dims else None


@dataclass(frozen=True, slots=True)
class SyncTrigger:
    """The trigger that keeps a plain short column in step.

    Attributes:
        name: of its function, and of its first trigger.
        full: the column it reads.
        short: the column it writes.
        rule: `prefix` or a rotation's id.
        metric: as it was installed for.
        source: its function's text.
        complete: whether both triggers are there and enabled.
        installed_names: the full and the short column as its function names them; other names than `full` and `short`
            where they were renamed since.
    """

    name: str
    full: str
    short: str
    rule: str
    metric: MetricName
    source: str
    complete: bool
    installed_names: tuple[str, str] | None = None

    @property
    def renamed(self) -> bool:
        """Whether a column was renamed since: each write looks its name up."""
        return self.installed_names not in {None, (self.full, self.short)}

    def misread(self, columns: Collection[str]) -> bool:
        """Whether a name in its function is another column's by now, of these: it computes from the wrong vectors."""
        return self.renamed and bool((set(self.installed_names or ()) - {self.full, self.short}) & set(columns))


@dataclass(frozen=True, slots=True)
class ShortState:
    """A short column that something keeps in step, or short vectors that no column holds.

    Attributes:
        full: the column it is computed from.
        short: its name, `Definition.short_name`.
        definition: what it is, with its name; the metric is the trigger's or the index's where they say it.
        kept_by: `generated`, `trigger`, or `index`: no column holds it, the expression of its indexes computes it.
        indexes: HNSW indexes on it.
        stage: `arriving` or `retired` while a reshape has two side by side; else None.
        filter_indexes: B-trees that include it.
    """

    full: str
    short: str
    definition: Definition
    kept_by: Literal["generated", "trigger", "index"]
    indexes: tuple[IndexState, ...]
    stage: str | None
    filter_indexes: tuple[FilterIndexState, ...] = ()

    def is_for(self, full: str, definition: Definition) -> bool:
        """Whether it holds what this definition says, whichever way it is kept."""
        return self.full == full and _values_of(self.definition) == _values_of(definition)


def _values_of(definition: Definition) -> tuple[object, ...]:
    """What the values of a short column depend on."""
    short = definition.short
    scaled = definition.scaled or short.type == "bit"
    return rule_of(definition), definition.has_column, scaled, short.dims, short.type, definition.dims, definition.full


@dataclass(frozen=True, slots=True)
class SideState:
    """The triggers that copy a column into a side table.

    Attributes:
        name: of the function.
        side: the side table as SQL text.
        full: the column's name.
        complete: whether both triggers are there and enabled.
        installed_names: the columns that its function names, in both tables alike: the key's, then the vector's.
    """

    name: str
    side: str
    full: str
    complete: bool = True
    installed_names: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TableState:
    """What pgmrl looks at in one table.

    Attributes:
        schema: of the table.
        table: its name.
        partitioned: whether it is a partitioned parent.
        columns: all columns by name.
        sync_triggers: the triggers that keep short columns in step, by the short column's name.
        shorts: short columns by name, and by theirs the short vectors that no column holds.
        sides: triggers that copy a column into a side table.
        mirrors: full columns that are kept the same, old and new.
    """

    schema: str
    table: str
    partitioned: bool
    columns: dict[str, ColumnState]
    sync_triggers: dict[str, SyncTrigger]
    shorts: dict[str, ShortState]
    sides: tuple[SideState, ...]
    mirrors: tuple[tuple[str, str], ...]

    @property
    def mirrored(self) -> set[str]:
        """Full columns that stand beside another one while an application moves between them."""
        return {name for pair in self.mirrors for name in pair}


_TABLE: Final = """
SELECT n.nspname, c.relname, c.relkind = 'p' AS partitioned
FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.oid = to_regclass(:owner) AND c.relkind IN ('r', 'p')
"""

_COLUMNS: Final = """
SELECT a.attname, t.typname || CASE WHEN a.atttypmod > 0 AND t.typname IN ('vector', 'halfvec', 'sparsevec', 'bit')
        THEN '(' || a.atttypmod || ')' ELSE '' END AS type,
    CASE WHEN a.attgenerated = 's' THEN pg_get_expr(d.adbin, d.adrelid) END AS generated,
    CASE a.attstorage WHEN 'm' THEN 'main' WHEN 'e' THEN 'external' WHEN 'x' THEN 'extended' ELSE 'plain' END
        AS storage,
    col_description(a.attrelid, a.attnum) AS comment, a.attnotnull
FROM pg_attribute AS a
JOIN pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = to_regclass(:owner) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attnum
"""

# Conditions name columns by their numbers, which a renaming leaves; of each pair the second trigger's names them all.
_TRIGGERS: Final = """
SELECT p.proname, p.prosrc, count(*) FILTER (WHERE g.tgenabled IN ('O', 'A')) AS enabled,
    (array_agg(g.tgargs ORDER BY g.tgname))[1] AS arguments,
    ARRAY(SELECT a.attname::text FROM (
        SELECT m[1]::int2 AS number, min(n) AS place
        FROM regexp_matches((array_agg(g.tgqual::text ORDER BY g.tgname DESC))[1], 'varattno (\\d+)', 'g')
            WITH ORDINALITY AS r (m, n) GROUP BY 1
    ) AS v JOIN pg_attribute AS a ON a.attrelid = g.tgrelid AND a.attnum = v.number ORDER BY v.place) AS watched
FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
WHERE g.tgrelid = to_regclass(:owner) AND NOT g.tgisinternal AND p.proname LIKE 'z_\\_pgmrl\\_%'
    AND p.proname NOT LIKE 'zx\\_%'
GROUP BY p.oid, g.tgrelid ORDER BY p.proname
"""

_EXPRESSIONS: Final = f"""
SELECT DISTINCT e.full_column, e.short_type, e.short_dims FROM ({load_sql("expression_indexes")}) AS e
WHERE e.table_oid = to_regclass(:owner)
"""  # noqa: S608 - pgmrl's own text

_PREFIX: Final = re.compile(r"subvector\((.+?), 1, (\d+)\)")
_ROTATION_ID: Final = re.compile(r"r[0-9a-f]{12}")
_ROTATED: Final = re.compile(r"rotate_v\d+\((.+?), '(r[0-9a-f]{12})'(?:::text)?, (\d+)\)")


def table_state(connection: Connection, schema: str | None, table: str) -> TableState | None:
    """Everything pgmrl looks at in a table; None where there is none of this name."""
    owner = {"owner": relation_name(connection, qualified(schema, table))}
    row = catalogue_result(connection, text(_TABLE), owner).first()
    if row is None:
        return None
    columns = {row[0]: ColumnState(*row) for row in catalogue_result(connection, text(_COLUMNS), owner)}
    sync_triggers, sides, mirrors = _triggers(connection, owner["owner"])
    shorts = {}
    hidden = hidden_schema(connection)
    covering = filter_index_states(connection, owner["owner"])
    for column in columns.values():
        state = _short_state(columns, column, sync_triggers.get(column.name), hidden)
        if state is not None:
            indexes = tuple(index_states(connection, owner["owner"], column.name))
            filters = tuple(index for index in covering if index.short == column.name)
            shorts[column.name] = replace(_with_metric(state, indexes), indexes=indexes, filter_indexes=filters)
    for full, type_, dims in catalogue_result(connection, text(_EXPRESSIONS), owner):
        state = _expression_state(columns[full], type_, dims, hidden)
        indexes = tuple(index_states(connection, owner["owner"], state.short))
        shorts[state.short] = replace(_with_metric(state, indexes), indexes=indexes)
    return TableState(
        row.nspname, row.relname, row.partitioned, columns, sync_triggers, shorts, tuple(sides), tuple(mirrors)
    )


def _triggers(
    connection: Connection, owner: str
) -> tuple[dict[str, SyncTrigger], list[SideState], list[tuple[str, str]]]:
    sync_triggers: dict[str, SyncTrigger] = {}
    sides: list[SideState] = []
    mirrors: list[tuple[str, str]] = []
    for name, source, enabled, encoded, watched in catalogue_result(connection, text(_TRIGGERS), {"owner": owner}):
        # anybody's, who may create a function: what is not of the form that pgmrl writes is not pgmrl's
        arguments = [argument.decode(errors="replace") for argument in bytes(encoded or b"").split(b"\0")[:-1]]
        if name.startswith("zy_") and len(arguments) == 2:
            old, new = watched if len(watched) == 2 else arguments
            mirrors.append((old, new))
        elif len(arguments) == 4:
            named_full, named_short, rule, metric = arguments
            if metric not in METRICS or not (rule == "prefix" or _ROTATION_ID.fullmatch(rule)):
                continue
            short, full = watched if len(watched) == 2 else (named_short, named_full)
            sync_triggers[short] = SyncTrigger(
                name, full, short, rule, cast("MetricName", metric), source, enabled == 2, (named_full, named_short)
            )
        elif len(arguments) == 1:
            copied = re.search(r"DO UPDATE SET (?P<name>\"(?:[^\"]|\"\")+\"|\w+) = EXCLUDED", source)
            if copied is None:
                continue
            named = _unquoted(copied.group("name"))
            copies = tuple(_unquoted(match) for match in re.findall(r"NEW\.(\"(?:[^\"]|\"\")+\"|\w+)", source))
            sides.append(SideState(name, arguments[0], watched[0] if watched else named, enabled == 2, copies))
    return sync_triggers, sides, mirrors


def _short_state(
    columns: dict[str, ColumnState], column: ColumnState, trigger: SyncTrigger | None, vector_schema: str | None
) -> ShortState | None:
    if column.kind not in {"halfvec", "vector", "bit"} or column.dims is None:
        return None
    expression = column.generated or (trigger.source if trigger else None)
    if expression is None:
        return None
    rotated, prefix = _ROTATED.search(expression), _PREFIX.search(expression)
    if rotated:
        name, by, dims = rotated.group(1), Rotation(rotated.group(2)), int(rotated.group(3))
    elif prefix:
        name, by, dims = prefix.group(1), Prefix(), int(prefix.group(2))  # type: ignore[assignment]
    else:
        return None
    full = columns.get(trigger.full if trigger and not column.generated else _unquoted(name.removeprefix("NEW.")))
    if full is None or full.kind not in {"halfvec", "vector"} or full.dims is None or dims != column.dims:
        return None
    normalised = "l2_normalize(" in expression or column.kind == "bit"
    metric: MetricName = "cosine" if normalised else "l2"
    if trigger and not column.generated:
        metric = trigger.metric
    short = Short(dims, by, cast("ShortType", column.kind), column.name)
    try:
        definition = Definition(full.dims, short, METRICS[metric], cast("FullType", full.kind), vector_schema)
    except DefinitionError:  # an expression that resembles pgmrl's
        return None
    stage = re.match(r"pgmrl: (arriving|retired)", column.comment or "")
    kept_by: Literal["generated", "trigger"] = "generated" if column.generated else "trigger"
    return ShortState(full.name, column.name, definition, kept_by, (), stage.group(1) if stage else None)


def _expression_state(full: ColumnState, type_: ShortType, dims: int, vector_schema: str | None) -> ShortState:
    """The short vectors of an expression index; of a column without dimensions as if it had all that it may have."""
    kind = cast("FullType", full.kind)
    short = Short(dims, type=type_)
    definition = Definition.of(full.dims or FULL_LIMIT, short, "l2", kind, vector_schema, stored=False)
    return ShortState(full.name, definition.short_name(full.name), definition, "index", (), None)


def _unquoted(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name


def _with_metric(state: ShortState, indexes: tuple[IndexState, ...]) -> ShortState:
    """The index says which metric it is, where the expression is the same for several."""
    definition = state.definition
    if state.kept_by == "trigger" or definition.short.type == "bit" or definition.scaled:
        return state
    for index in indexes:
        for metric in METRICS.values():
            possible = not metric.normalise or not definition.has_column
            if metric.operator_class(definition.short.type) == index.operator_class and possible:
                return replace(state, definition=replace(definition, metric=metric))
    return state
