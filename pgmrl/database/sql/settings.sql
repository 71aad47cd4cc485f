-- What `pgmrl tune --apply` chose for a short column: the defaults of searches through it.
CREATE TABLE pgmrl.settings (
    relation regclass NOT NULL,
    full_column text NOT NULL,
    short_column text NOT NULL,
    k integer NOT NULL CHECK (k >= 1),
    shortlist integer NOT NULL CHECK (shortlist >= k),
    ef_search integer NOT NULL CHECK (ef_search BETWEEN 1 AND 1000),
    target double precision CHECK (target > 0 AND target <= 1),
    recall double precision CHECK (recall BETWEEN 0 AND 1),
    latency_ms double precision CHECK (latency_ms >= 0),
    row_count bigint CHECK (row_count >= 0),
    set_at timestamptz NOT NULL DEFAULT now(),
    set_by text NOT NULL DEFAULT current_user,
    PRIMARY KEY (relation, full_column, short_column)
);
COMMENT ON TABLE pgmrl.settings IS 'Default shortlist and ef_search of searches, one row a short column; written by `pgmrl tune --apply`';
COMMENT ON COLUMN pgmrl.settings.k IS 'The results that shortlist and ef_search are for; others scale with it, see docs/tuning.md';
COMMENT ON COLUMN pgmrl.settings.target IS 'The recall@k that was asked for; `pgmrl doctor` compares measured recall with it';
COMMENT ON COLUMN pgmrl.settings.recall IS 'The recall@k that was predicted';
COMMENT ON COLUMN pgmrl.settings.latency_ms IS 'The time of a search that was predicted, in milliseconds';
COMMENT ON COLUMN pgmrl.settings.row_count IS 'The rows of the table when they were chosen';
-- Numbers and a name that the catalogue shows anyway: no row-level security, for every search of a SQL function reads it.
GRANT SELECT ON pgmrl.settings TO PUBLIC;
