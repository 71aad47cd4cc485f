"""Steps of a migration that is printed instead of run, as statements that look for themselves what is there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgmrl.model import ddl
from pgmrl.names import dollar_quoted, literal, qualified, quoted
from pgmrl.online.index_statements import beside, create_statement, drop_statement, exchange_statements

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgmrl.online.index_statements import Build, ShortIndex
    from pgmrl.online.target import Target

__all__ = ["backfill_script", "index_script", "rebuild_script", "validate_script"]


def backfill_script(target: Target) -> str:
    """The backfill as one statement that commits as it goes; for `alembic upgrade --sql`, outside a transaction.

    It goes by blocks, since the primary key cannot be looked up when a script is printed.
    """
    owner = literal(target.owner)
    # what `format` takes for its own must be doubled
    short, full, value = (part.replace("%", "%%") for part in (quoted(target.short), quoted(target.full), target.value))
    update = (
        f"UPDATE %s AS t SET {short} = {value} WHERE t.ctid = ANY (ARRAY(SELECT s.ctid FROM %s AS s "
        f"WHERE s.ctid >= format('(%%s,0)', $1)::tid AND s.ctid < format('(%%s,0)', $1 + 200)::tid "
        f"AND s.{short} IS NULL AND s.{full} IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED))"
    )
    body = f"""
DECLARE
    leaf regclass;
    leaves regclass[] := coalesce((SELECT array_agg(p.relid) FROM pg_partition_tree({owner}::regclass) AS p
                                   WHERE p.isleaf), ARRAY[{owner}::regclass]);
    part bigint;
    missing bigint;
BEGIN
    FOREACH leaf IN ARRAY leaves LOOP
        part := 0;
        WHILE part * 8192 < pg_relation_size(leaf) LOOP
            PERFORM pg_catalog.set_config('pgmrl.computed_by', {literal(ddl.rule_of(target.definition))}, true);
            EXECUTE format({literal(update)}, leaf, leaf) USING part;
            COMMIT;
            part := part + 200;
        END LOOP;
    END LOOP;
    SELECT count(*) INTO missing FROM {target.owner} WHERE {target.missing};
    IF missing > 0 THEN
        RAISE EXCEPTION '% rows were held by others and have no short vector yet', missing
            USING HINT = 'Run this statement again.';
    END IF;
END """
    return f"DO {dollar_quoted(body)}"


def validate_script(target: Target) -> str:
    """The check that no row lacks its short vector, as one statement."""
    body = f"""
DECLARE
    missing bigint := (SELECT count(*) FROM {target.owner} WHERE {target.missing});
BEGIN
    IF missing > 0 THEN
        RAISE EXCEPTION '% rows have no short vector yet', missing USING HINT = 'Backfill them first.';
    END IF;
END """
    return f"DO {dollar_quoted(body)}"


def index_script(target: Target, index: ShortIndex, options: Build, name: str | None = None) -> list[str]:
    """Remove an INVALID leftover, then build; outside a transaction."""
    name = name or index.index_name(target.table, target.short)
    return [
        *_set(options),
        _drop_invalid(target, name),
        create_statement(target, index, concurrently=True, name=name),
        *_reset(options),
    ]


def rebuild_script(target: Target, index: ShortIndex, options: Build) -> list[str]:
    """Build beside the old one, exchange, drop; outside a transaction."""
    name = index.index_name(target.table, target.short)
    new, old = beside(name)
    return [
        *_set(options),
        _drop_invalid(target, new),
        create_statement(target, index, concurrently=True, name=new),
        *_reset(options),
        "BEGIN",
        *exchange_statements(target.schema, name),
        "COMMIT",
        drop_statement(target.schema, old),
    ]


def _drop_invalid(target: Target, name: str) -> str:
    qualified_name = qualified(target.schema, name)
    body = f"""
BEGIN
    IF EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass({literal(qualified_name)}) AND NOT indisvalid) THEN
        EXECUTE {literal(f"DROP INDEX {qualified_name}")};
    END IF;
END """
    return f"DO {dollar_quoted(body)}"


def _set(options: Build) -> Sequence[str]:
    return [f"SET {name} = {literal(value)}" for name, value in options.settings()]


def _reset(options: Build) -> Sequence[str]:
    return [f"RESET {name}" for name, _ in options.settings()]
