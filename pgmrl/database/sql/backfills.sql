-- Backfills as jobs: what is done survives the worker. A worker takes the next range of keys in a short transaction of its
-- own, then writes its rows and forgets the range in a second one. Killed in between, the range is still there, and the
-- row lock that marked it as taken is gone with the worker.
CREATE TABLE pgmrl.backfills (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    table_schema text NOT NULL,
    table_name text NOT NULL,
    source_column text NOT NULL,
    target_column text NOT NULL,
    rule text NOT NULL,
    key_columns text[] NOT NULL,
    table_oid oid NOT NULL,
    target_number integer NOT NULL,
    position text[],
    exhausted boolean NOT NULL DEFAULT false,
    stop_requested boolean NOT NULL DEFAULT false,
    rows_estimated bigint NOT NULL,
    rows_seen bigint NOT NULL DEFAULT 0,
    rows_written bigint NOT NULL DEFAULT 0,
    state text NOT NULL DEFAULT 'running',
    started_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    finished_at timestamptz,
    UNIQUE (table_schema, table_name, target_column)
);
CREATE TABLE pgmrl.backfill_ranges (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    backfill_id bigint NOT NULL REFERENCES pgmrl.backfills (id) ON DELETE CASCADE,
    after_key text[],
    up_to_key text[],
    size bigint NOT NULL
);
CREATE INDEX backfill_ranges_backfill_id ON pgmrl.backfill_ranges (backfill_id);
COMMENT ON TABLE pgmrl.backfills IS 'Backfills, running and finished, with keys of their tables: see pgmrl.backfill_progress';
COMMENT ON COLUMN pgmrl.backfills.key_columns IS 'The primary key by which it goes, with types: another key begins anew';
COMMENT ON COLUMN pgmrl.backfills.target_number IS 'attnum of the target: a column dropped and made again begins anew';
COMMENT ON COLUMN pgmrl.backfills.position IS 'The last key that was handed to a worker; NULL before the first';
COMMENT ON COLUMN pgmrl.backfills.exhausted IS 'Whether every range has been handed out';
COMMENT ON COLUMN pgmrl.backfills.state IS 'What the last worker that reported is doing: running, or why it waits';
COMMENT ON TABLE pgmrl.backfill_ranges IS 'Ranges of keys that were handed out and are not written yet';
COMMENT ON COLUMN pgmrl.backfill_ranges.after_key IS 'The key before the first of the range; NULL: from the beginning';
COMMENT ON COLUMN pgmrl.backfill_ranges.up_to_key IS 'The last key of the range; NULL: to the end';
-- Keys, and what the server said of a row, are values of the table: nobody sees them but whom the owner grants it to.
-- Everybody sees how far a backfill is; why it failed, those who may read every row of the table.
CREATE VIEW pgmrl.backfill_progress AS
SELECT b.id, b.table_schema, b.table_name, b.source_column, b.target_column, b.rule, b.rows_estimated, b.rows_seen,
    b.rows_written,
    CASE WHEN has_table_privilege(b.table_oid, 'SELECT') AND NOT row_security_active(b.table_oid) THEN b.state
        ELSE split_part(b.state, ':', 1) END AS state,
    b.stop_requested, b.started_at, b.updated_at, b.finished_at
FROM pgmrl.backfills AS b;
COMMENT ON VIEW pgmrl.backfill_progress IS 'Backfills, running and finished: how far each one is; for everybody';
COMMENT ON COLUMN pgmrl.backfill_progress.state IS 'Without what follows the colon for who may not read every row of the table';
GRANT SELECT ON pgmrl.backfill_progress TO PUBLIC;
