-- Named queries: a question, embedded once, for those who have no model at hand.
CREATE TABLE pgmrl.queries (
    relation regclass NOT NULL,
    full_column text NOT NULL,
    name text NOT NULL CHECK (name <> ''),
    question text,
    embedder text,
    vector {vector}.vector NOT NULL,
    added_at timestamptz NOT NULL DEFAULT now(),
    added_by text NOT NULL DEFAULT current_user,
    PRIMARY KEY (relation, full_column, name)
);
COMMENT ON TABLE pgmrl.queries IS 'Named queries, filled by `pgmrl query add`; seen by those who may read the vectors they are for';
COMMENT ON COLUMN pgmrl.queries.relation IS 'The table that the query is for';
COMMENT ON COLUMN pgmrl.queries.embedder IS 'The model the question was embedded with';
-- A question tells something about the vectors: whoever may not read those does not see it. Not has_column_privilege by
-- the column's name, which fails for all where one column is gone.
ALTER TABLE pgmrl.queries ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON pgmrl.queries USING (EXISTS (
    SELECT FROM pg_attribute AS a
    WHERE a.attrelid = relation AND a.attname = full_column AND has_column_privilege(relation, a.attnum, 'SELECT')));
GRANT SELECT ON pgmrl.queries TO PUBLIC;

CREATE FUNCTION pgmrl.query_v1(table_name text, full_column text, name text) RETURNS {vector}.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stored {vector}.vector;
BEGIN
    IF $3 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'name is NULL', HINT = 'Give the name of a query.';
    END IF;
    SELECT q.vector INTO stored FROM pgmrl.queries AS q
    WHERE q.relation = to_regclass($1) AND q.full_column = $2 AND q.name = $3;
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = format('there is no query named %s for %s', quote_literal($3), $1),
            HINT = format('SELECT name FROM pgmrl.queries WHERE relation = %L::regclass lists them; `pgmrl query add` adds one.', $1);
    END IF;
    RETURN stored;
END $$;
COMMENT ON FUNCTION pgmrl.query_v1(text, text, text) IS 'The vector of a named query';
