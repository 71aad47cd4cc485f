-- For dashboards: one row a short column, of the catalogue, the statistics and what was recorded. A finding with its
-- remedy is what `pgmrl doctor` gives. It runs with the rights of who asks: recall is shown to those who may read the table.
CREATE VIEW pgmrl.health WITH (security_invoker = true) AS
WITH short_columns AS (
    -- of several indexes the one that serves
    SELECT DISTINCT ON (c.table_schema, c.table_name, c.short_column) c.*, r.oid AS relation
    FROM pgmrl.columns AS c
    -- not to_regclass, which fails for whoever may not use one of the schemas
    JOIN pg_namespace AS n ON n.nspname = c.table_schema
    JOIN pg_class AS r ON r.relnamespace = n.oid AND r.relname = c.table_name
    ORDER BY c.table_schema, c.table_name, c.short_column, c.index_valid DESC NULLS LAST,
        c.index_predicate IS NOT NULL, c.index_bytes DESC NULLS LAST
)
SELECT
    c.table_schema, c.table_name, c.full_column, c.short_column, c.shortening, c.rotation, c.metric, c.stage,
    c.index_name,
    CASE WHEN c.index_name IS NULL THEN 'missing' WHEN c.index_valid THEN 'valid' ELSE 'invalid' END AS index_state,
    c.index_bytes,
    c.table_bytes,
    t.estimated_rows,
    i.index_scans,
    t.table_reads,
    t.dead_rows,
    t.dead_rows::double precision / nullif(greatest(t.estimated_rows, t.live_rows) + t.dead_rows, 0) AS dead_share,
    t.last_vacuum,
    t.last_analyze,
    t.modified_since_analyze,
    h.recall,
    h.recall_low,
    h.recall_high,
    h.k AS recall_k,
    h.measured_at AS recall_measured_at,
    s.target AS recall_target,
    -- a measurement with other numbers says nothing of the setting
    CASE WHEN (h.k, h.shortlist, h.ef_search) = (s.k, s.shortlist, s.ef_search) THEN h.recall_high < s.target END
        AS below_target
FROM short_columns AS c
CROSS JOIN LATERAL (
    SELECT greatest(coalesce(sum(r.reltuples) FILTER (WHERE r.relkind <> 'p' AND r.reltuples >= 0), 0), 0)::bigint
            AS estimated_rows,
        coalesce(sum(pg_stat_get_numscans(r.oid)), 0)::bigint AS table_reads,
        coalesce(sum(pg_stat_get_live_tuples(r.oid)), 0)::bigint AS live_rows,
        coalesce(sum(pg_stat_get_dead_tuples(r.oid)), 0)::bigint AS dead_rows,
        max(greatest(pg_stat_get_last_vacuum_time(r.oid), pg_stat_get_last_autovacuum_time(r.oid))) AS last_vacuum,
        max(greatest(pg_stat_get_last_analyze_time(r.oid), pg_stat_get_last_autoanalyze_time(r.oid))) AS last_analyze,
        coalesce(sum(pg_stat_get_mod_since_analyze(r.oid)), 0)::bigint AS modified_since_analyze
    FROM pg_class AS r
    WHERE r.oid = c.relation OR r.oid IN (SELECT p.relid FROM pg_partition_tree(c.relation) AS p)
) AS t
CROSS JOIN LATERAL (
    SELECT coalesce(sum(pg_stat_get_numscans(x.relid)), 0)::bigint AS index_scans
    FROM (SELECT c.index_name AS relid UNION SELECT p.relid FROM pg_partition_tree(c.index_name) AS p) AS x
    WHERE x.relid IS NOT NULL
) AS i
LEFT JOIN pgmrl.settings AS s ON s.relation = c.relation
    AND s.full_column = c.full_column AND s.short_column = c.short_column
LEFT JOIN LATERAL (
    SELECT r.*
    FROM pgmrl.recall_history AS r
    WHERE r.relation = c.relation AND r.full_column = c.full_column AND r.short_column = c.short_column
      AND r.filter IS NULL
    ORDER BY r.measured_at DESC, r.id DESC
    LIMIT 1
) AS h ON true;
COMMENT ON VIEW pgmrl.health IS 'Every short column with its index, statistics and latest recall; for dashboards';
COMMENT ON COLUMN pgmrl.health.index_state IS 'valid, invalid or missing';
COMMENT ON COLUMN pgmrl.health.index_scans IS 'Since the statistics began, on this server';
COMMENT ON COLUMN pgmrl.health.table_reads IS 'Sequential scans, since the statistics began, on this server';
COMMENT ON COLUMN pgmrl.health.dead_share IS 'Dead rows among all, by the statistics; they take places in a shortlist until VACUUM';
COMMENT ON COLUMN pgmrl.health.recall IS 'The latest that was recorded without a filter, with its 95 % interval';
COMMENT ON COLUMN pgmrl.health.below_target IS 'Whether the whole interval is below the target; NULL where one is missing, or recall was measured with another k, shortlist or ef_search than the setting has';
GRANT SELECT ON pgmrl.health TO PUBLIC;
