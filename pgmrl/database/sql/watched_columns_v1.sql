-- The columns of a trigger's condition, by their names now, in the order in which the condition names them. The server keeps
-- a condition with the columns' numbers, so that it survives what a function's text does not: a column that is renamed.
-- Partitions have numbers of their own, and so has a restored dump: both have conditions with theirs.
CREATE FUNCTION pgmrl.watched_columns_v1(relation oid, trigger_name name) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(a.attname::text ORDER BY v.place)
    FROM (
        SELECT m[1]::int2 AS number, min(n) AS place
        FROM pg_trigger AS g
        CROSS JOIN LATERAL regexp_matches(g.tgqual::text, 'varattno (\d+)', 'g') WITH ORDINALITY AS r (m, n)
        WHERE g.tgrelid = $1 AND g.tgname = $2
        GROUP BY 1
    ) AS v
    JOIN pg_attribute AS a ON a.attrelid = $1 AND a.attnum = v.number
$$;
COMMENT ON FUNCTION pgmrl.watched_columns_v1(oid, name) IS 'The columns that a trigger''s condition names, by their names now';
