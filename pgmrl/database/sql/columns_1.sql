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
    CASE WHEN k.rotation IS NULL THEN 'prefix' ELSE 'rotation' END AS shortening,
    k.rotation,
    x.indexrelid::regclass AS index_name,
    o.opcname AS operator_class,
    x.indisvalid AS index_valid,
    pg_relation_size(x.indexrelid) AS index_bytes,
    pg_table_size(c.oid) AS table_bytes,
    c.reltuples::bigint AS estimated_rows
FROM pg_class AS c
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_attribute AS s ON s.attrelid = c.oid AND s.attnum > 0 AND NOT s.attisdropped
JOIN pg_type AS t ON t.oid = s.atttypid AND t.typname IN ('halfvec', 'vector', 'bit')
-- a rotation: the arguments of its trigger are full column, short column, rotation, metric, each ended by a zero byte
LEFT JOIN LATERAL (
    SELECT a[1] AS full_name, a[3] AS rotation, a[4] AS metric
    FROM pg_trigger AS g
    JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zz\_pgmrl\_%'
    CROSS JOIN LATERAL string_to_array(replace(encode(g.tgargs, 'escape'), '\000', E'\x01'), E'\x01') AS a
    WHERE g.tgrelid = c.oid AND g.tgnargs = 4 AND a[2] = encode(convert_to(s.attname, 'UTF8'), 'escape') AND NOT g.tgisinternal
    LIMIT 1
) AS k ON true
-- a prefix: a generated column that takes a subvector of one other column
LEFT JOIN pg_attrdef AS e ON e.adrelid = c.oid AND e.adnum = s.attnum AND s.attgenerated = 's'
LEFT JOIN pg_depend AS d ON d.classid = 'pg_attrdef'::regclass AND d.objid = e.oid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = c.oid AND d.refobjsubid NOT IN (0, s.attnum)
    AND pg_get_expr(e.adbin, e.adrelid) LIKE '%subvector(%'
JOIN pg_attribute AS f ON f.attrelid = c.oid AND NOT f.attisdropped
    AND (f.attnum = d.refobjsubid OR encode(convert_to(f.attname, 'UTF8'), 'escape') = k.full_name)
LEFT JOIN (
    pg_index AS x
    JOIN pg_class AS i ON i.oid = x.indexrelid
    JOIN pg_am AS am ON am.oid = i.relam AND am.amname = 'hnsw'
    JOIN pg_opclass AS o ON o.oid = x.indclass[0]
) ON x.indrelid = c.oid AND x.indkey[0] = s.attnum
WHERE c.relkind IN ('r', 'p', 'm')
