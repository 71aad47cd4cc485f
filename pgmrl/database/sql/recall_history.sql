-- One row for each time that recall was measured and recorded.
CREATE TABLE pgmrl.recall_history (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    measured_at timestamptz NOT NULL DEFAULT now(),
    relation regclass NOT NULL,
    full_column text NOT NULL,
    short_column text NOT NULL,
    index_name text,
    k integer NOT NULL,
    shortlist integer NOT NULL,
    ef_search integer NOT NULL,
    filter text,
    queries integer NOT NULL,
    source text NOT NULL,
    recall double precision NOT NULL,
    recall_low double precision NOT NULL,
    recall_high double precision NOT NULL,
    truncation_loss double precision NOT NULL,
    ann_loss double precision NOT NULL,
    shortfall double precision NOT NULL,
    completed double precision NOT NULL,
    p50_ms double precision,
    row_count bigint,
    measured_by text NOT NULL DEFAULT current_user
);
CREATE INDEX recall_history_latest ON pgmrl.recall_history (relation, full_column, short_column, measured_at DESC);
COMMENT ON TABLE pgmrl.recall_history IS 'Recall as it was measured, one row a measurement; written by `pgmrl recall --record` and `pgmrl doctor --measure`';
COMMENT ON COLUMN pgmrl.recall_history.filter IS 'The filter of the searches, as SQL; NULL for none';
COMMENT ON COLUMN pgmrl.recall_history.recall IS 'Mean recall@k, with its 95 % confidence interval in recall_low and recall_high';
COMMENT ON COLUMN pgmrl.recall_history.truncation_loss IS 'What the short vectors lose: 1 - recall is truncation_loss + ann_loss + shortfall - completed';
COMMENT ON COLUMN pgmrl.recall_history.ann_loss IS 'What the HNSW scan of the short vectors loses besides';
COMMENT ON COLUMN pgmrl.recall_history.shortfall IS 'What is lost because fewer rows came back than were asked for';
COMMENT ON COLUMN pgmrl.recall_history.completed IS 'What the exact fallback of a filtered search gave back';
-- A filter may tell what is in the table: whoever may not read that, or not all of its rows, does not see it.
ALTER TABLE pgmrl.recall_history ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON pgmrl.recall_history
    USING (has_any_column_privilege(relation, 'SELECT') AND (filter IS NULL OR NOT row_security_active(relation)))
    WITH CHECK (has_any_column_privilege(relation, 'SELECT'));
GRANT SELECT ON pgmrl.recall_history TO PUBLIC;
