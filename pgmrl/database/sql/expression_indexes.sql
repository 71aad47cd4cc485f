-- The HNSW indexes on leading dimensions that no column holds, as pgvector's README makes them:
-- `hnsw ((subvector(embedding, 1, 128)::halfvec(128)) halfvec_cosine_ops)`. By their expression, whatever their names.
-- DISTINCT: the condition of a partial one depends on columns, too
SELECT DISTINCT
    x.indexrelid AS index_oid,
    x.indrelid AS table_oid,
    f.attname AS full_column,
    t.typname AS short_type,
    a.atttypmod AS short_dims,
    -- Definition.short_name says the same
    f.attname || '_expression_' || a.atttypmod || CASE t.typname WHEN 'halfvec' THEN '' ELSE '_' || t.typname END AS short_column
FROM pg_index AS x
JOIN pg_class AS i ON i.oid = x.indexrelid
JOIN pg_am AS am ON am.oid = i.relam AND am.amname = 'hnsw'
JOIN pg_opclass AS o ON o.oid = x.indclass[0] AND o.opcname ~ '^(halfvec|vector)_(cosine|l2|ip)_ops$|^bit_hamming_ops$'
JOIN pg_attribute AS a ON a.attrelid = x.indexrelid AND a.attnum = 1 AND a.atttypmod > 0
JOIN pg_type AS t ON t.oid = a.atttypid AND t.typname IN ('halfvec', 'vector', 'bit')
-- of its table's columns it reads this one; of several, the text below fits none
JOIN pg_depend AS d ON d.classid = 'pg_class'::regclass AND d.objid = x.indexrelid
    AND d.refclassid = 'pg_class'::regclass AND d.refobjid = x.indrelid AND d.refobjsubid > 0
JOIN pg_attribute AS f ON f.attrelid = x.indrelid AND f.attnum = d.refobjsubid
JOIN pg_type AS v ON v.oid = f.atttypid AND v.typname IN ('halfvec', 'vector')
CROSS JOIN LATERAL replace(
    pg_get_expr(x.indexprs, x.indrelid), 'subvector(' || quote_ident(f.attname) || ', 1, ' || a.atttypmod || ')', '@'
) AS e (text)
WHERE x.indkey[0] = 0 AND x.indnatts = 1
  -- names may have their schema before them
  AND e.text ~ (CASE t.typname WHEN 'bit' THEN '^\(*([^()]*\.)?binary_quantize\(([^()]*\.)?@\)' ELSE '^\(*([^()]*\.)?@' END
      || '\)*::([^()]*\.)?' || t.typname || '\([0-9]+\)\)*$')
