-- Every Matryoshka column of the database, as the catalogue has it.
SELECT
    n.nspname AS table_schema,
    c.relname AS table_name,
    f.attname AS full_column,
    format_type(f.atttypid, NULL) AS full_type,
    nullif(f.atttypmod, -1) AS full_dims,
    s.attname AS short_column,
    format_type(s.atttypid, NULL) AS short_type,
    nullif(s.atttypmod, -1) AS short_dims,
    coalesce(k.metric, CASE
        WHEN o.opcname LIKE '%cosine_ops' THEN 'cosine'
        WHEN o.opcname LIKE '%l2_ops' THEN 'l2'
        WHEN o.opcname LIKE '%ip_ops' THEN 'inner_product'
    END) AS metric,
    CASE WHEN coalesce(k.rule, 'prefix') = 'prefix' THEN 'prefix' ELSE 'rotation' END AS shortening,
    nullif(k.rule, 'prefix') AS rotation,
    x.indexrelid::regclass AS index_name,
    o.opcname AS operator_class,
    pg_get_expr(x.indpred, x.indrelid) AS index_predicate,
    x.indisvalid AS index_valid,
    CASE WHEN i.relkind = 'I' THEN (SELECT sum(pg_relation_size(r.relid)) FROM pg_partition_tree(x.indexrelid) AS r)::bigint
        ELSE pg_relation_size(x.indexrelid) END AS index_bytes,
    CASE WHEN c.relkind = 'p' THEN (SELECT sum(pg_table_size(r.relid)) FROM pg_partition_tree(c.oid) AS r)::bigint
        ELSE pg_table_size(c.oid) END AS table_bytes,
    c.reltuples::bigint AS estimated_rows,
    CASE WHEN k.rule IS NULL THEN 'generated' ELSE 'trigger' END AS kept_by,
    -- 'arriving' or 'retired' while a reshape has two short columns side by side
    substring(col_description(c.oid, s.attnum) FROM '^pgmrl: (arriving|retired)') AS stage
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS s ON s.attrelid = c.oid AND s.attnum > 0 AND NOT s.attisdropped
JOIN pg_type AS t ON t.oid = s.atttypid AND t.typname IN ('halfvec', 'vector', 'bit')
-- a trigger: its condition names the short column first and then the full one, by their numbers, which a renaming leaves.
-- Its arguments are both names as they were, rotation or 'prefix', and metric, each ended by a zero byte
LEFT JOIN LATERAL (
    SELECT a[3] AS rule, a[4] AS metric, (
        SELECT m[1]::int2 FROM regexp_matches(g.tgqual::text, 'varattno (\d+)', 'g') WITH ORDINALITY AS r (m, n)
        WHERE m[1]::int2 <> s.attnum ORDER BY n LIMIT 1
    ) AS full_number
    FROM pg_trigger AS g
    JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zz\_pgmrl\_%'
    CROSS JOIN LATERAL string_to_array(replace(encode(g.tgargs, 'escape'), '\000', E'\x01'), E'\x01') AS a
    WHERE s.attgenerated = '' AND g.tgrelid = c.oid AND g.tgnargs = 4 AND substring(g.tgqual::text FROM 'varattno (\d+)')::int2 = s.attnum AND NOT g.tgisinternal
        -- whoever may create a function can write what he likes there: what pgmrl would not write is not pgmrl's
        AND a[3] ~ '^(prefix|r[0-9a-f]{12})$' AND a[4] IN ('cosine', 'l2', 'inner_product')
    LIMIT 1
) AS k ON true
-- a prefix: a generated column that takes a subvector of one other column
LEFT JOIN pg_attrdef AS e ON e.adrelid = c.oid AND e.adnum = s.attnum AND s.attgenerated = 's'
LEFT JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid NOT IN (0, s.attnum)
    AND pg_get_expr(e.adbin, e.adrelid) LIKE '%subvector(%'
JOIN pg_attribute AS f ON f.attrelid = c.oid AND NOT f.attisdropped
    AND f.attnum IN (d.refobjsubid, k.full_number)
LEFT JOIN (
    pg_index AS x
    JOIN pg_class AS i ON i.oid = x.indexrelid
    JOIN pg_am AS am ON am.oid = i.relam AND am.amname = 'hnsw'
    JOIN pg_opclass AS o ON o.oid = x.indclass[0]
) ON x.indrelid = c.oid AND x.indkey[0] = s.attnum
-- a partition shows through its parent
WHERE c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
UNION ALL
-- short vectors that only an index computes
SELECT
    n.nspname,
    c.relname,
    e.full_column,
    format_type(f.atttypid, NULL),
    nullif(f.atttypmod, -1),
    e.short_column,
    format_type(a.atttypid, NULL),
    e.short_dims,
    CASE
        WHEN o.opcname LIKE '%cosine_ops' THEN 'cosine'
        WHEN o.opcname LIKE '%l2_ops' THEN 'l2'
        WHEN o.opcname LIKE '%ip_ops' THEN 'inner_product'
    END,
    'prefix',
    NULL,
    x.indexrelid::regclass,
    o.opcname,
    pg_get_expr(x.indpred, x.indrelid),
    x.indisvalid,
    CASE WHEN i.relkind = 'I' THEN (SELECT sum(pg_relation_size(r.relid)) FROM pg_partition_tree(x.indexrelid) AS r)::bigint
        ELSE pg_relation_size(x.indexrelid) END,
    CASE WHEN c.relkind = 'p' THEN (SELECT sum(pg_table_size(r.relid)) FROM pg_partition_tree(c.oid) AS r)::bigint
        ELSE pg_table_size(c.oid) END,
    c.reltuples::bigint,
    'index',
    NULL
FROM ({expression_indexes}) AS e
JOIN pg_index AS x ON x.indexrelid = e.index_oid
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_opclass AS o ON o.oid = x.indclass[0]
JOIN pg_attribute AS a ON a.attrelid = x.indexrelid AND a.attnum = 1
JOIN pg_class AS c ON c.oid = x.indrelid AND c.relkind IN ('r', 'p', 'm') AND NOT c.relispartition
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS f ON f.attrelid = c.oid AND f.attname = e.full_column
