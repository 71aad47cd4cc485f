-- Tables of chunks, which workers cut out of a parent's text and keep in step with it. The parent's triggers mark its rows
-- in pgmrl.embedding_queue, whose `embedding` says then which table of chunks it is; a column's name has at most 63 bytes.
CREATE VIEW pgmrl.chunk_tables AS
SELECT c.oid::regclass AS relation, n.nspname::text AS table_schema, c.relname::text AS table_name,
    k.oid::regclass AS chunks, v.a[1] AS chunk_schema, v.a[2] AS chunk_table,
    'chunks in ' || quote_ident(v.a[1]) || '.' || quote_ident(v.a[2]) AS embedding,
    v.a[3] AS template, v.a[4] AS model, v.a[5]::integer AS size, v.a[6]::integer AS overlap, v.a[7] = 'notify' AS notifies,
    g.tgfoid::regprocedure AS function
FROM pg_trigger AS g
JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zw\_pgmrl\_%'
CROSS JOIN LATERAL (
    SELECT string_to_array(convert_from(decode(
        replace(replace(encode(g.tgargs, 'escape'), '\\', '\134'), '\000', '\001'), 'escape'), getdatabaseencoding()), E'\x01') AS a
) AS v
-- not to_regclass, which fails for whoever may not use the schema
LEFT JOIN (pg_class AS k JOIN pg_namespace AS m ON m.oid = k.relnamespace) ON m.nspname = v.a[1] AND k.relname = v.a[2]
-- whoever has a table may name any other one in a trigger: of a stranger's table only if the chunks refer to it
WHERE (k.relowner = c.relowner OR k.oid IS NULL OR EXISTS (
        SELECT FROM pg_constraint AS f
        WHERE f.conrelid = k.oid AND f.contype = 'f' AND f.confdeltype = 'c' AND f.confrelid = c.oid))
    AND g.tgparentid = 0 AND g.tgnargs = 7 AND (g.tgtype & 4) = 4 AND v.a[5] ~ '^[0-9]{1,9}$' AND v.a[6] ~ '^[0-9]{1,9}$';
COMMENT ON VIEW pgmrl.chunk_tables IS 'Tables of chunks that are kept in step with a text of another table, as its triggers say';
GRANT SELECT ON pgmrl.chunk_tables TO PUBLIC;

-- The foreign key by which chunks go with their parent.
CREATE FUNCTION pgmrl.chunk_parent_v1(chunks regclass) RETURNS TABLE (parent regclass, columns text[], keys text[])
LANGUAGE plpgsql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT f.confrelid::regclass,
        ARRAY(SELECT a.attname::text FROM unnest(x.indkey[0:x.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, n)
              JOIN unnest(f.conkey, f.confkey) AS r (own, others) ON r.others = k.attnum
              JOIN pg_attribute AS a ON a.attrelid = f.conrelid AND a.attnum = r.own ORDER BY k.n),
        ARRAY(SELECT a.attname::text FROM unnest(x.indkey[0:x.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, n)
              JOIN pg_attribute AS a ON a.attrelid = f.confrelid AND a.attnum = k.attnum ORDER BY k.n)
    FROM pg_constraint AS f JOIN pg_index AS x ON x.indrelid = f.confrelid AND x.indisprimary
    WHERE f.conrelid = $1 AND f.contype = 'f' AND f.confdeltype = 'c' AND f.conparentid = 0 AND f.confrelid <> f.conrelid
      AND NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = f.confrelid AND c.relispartition)
      AND x.indkey[0:x.indnkeyatts - 1] @> f.confkey AND x.indkey[0:x.indnkeyatts - 1] <@ f.confkey
      AND NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum = ANY (f.conkey) AND NOT a.attnotnull);
END $$;
COMMENT ON FUNCTION pgmrl.chunk_parent_v1(regclass) IS 'The table that chunks are made of, and the columns that refer to it';

-- Ends what marks the rows of a table. A trigger says what its maker likes, and may call the function of another one's:
-- so such a function stays, and of a table that is not the chunks' parent what belongs to others.
CREATE FUNCTION pgmrl.end_chunks_v1(chunks regclass, marked regclass, marker regprocedure, embedding text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    shared boolean := EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgfoid = marker AND g.tgrelid <> marked AND g.tgparentid = 0);
    belongs_to oid := CASE WHEN shared THEN (SELECT c.relowner FROM pg_class AS c WHERE c.oid = marked)
                           ELSE (SELECT p.proowner FROM pg_proc AS p WHERE p.oid = marker) END;
    trigger_name name;
BEGIN
    IF NOT pg_has_role(belongs_to, 'USAGE') AND NOT EXISTS (SELECT FROM pgmrl.chunk_parent_v1($1) AS p WHERE p.parent = marked) THEN
        RETURN;
    ELSIF shared THEN
        FOR trigger_name IN SELECT g.tgname FROM pg_trigger AS g WHERE g.tgrelid = marked AND g.tgfoid = marker AND g.tgparentid = 0 LOOP
            EXECUTE format('DROP TRIGGER %I ON %s', trigger_name, marked);
        END LOOP;
    ELSE
        EXECUTE format('DROP FUNCTION %s CASCADE', marker);
    END IF;
    IF has_table_privilege('pgmrl.embedding_queue', 'SELECT') AND has_table_privilege('pgmrl.embedding_queue', 'DELETE') THEN
        DELETE FROM pgmrl.embedding_queue AS q WHERE q.relation = marked AND q.embedding = $4;
    END IF;
END $$;
COMMENT ON FUNCTION pgmrl.end_chunks_v1(regclass, regclass, regprocedure, text) IS 'Removes the triggers of one table that mark rows to be cut into chunks';

CREATE FUNCTION pgmrl.keep_chunks_v1(
    chunks regclass, trigger_name text, columns text[], template text, model text, size integer, overlap integer, notify boolean
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    own_schema text;
    own_name text;
    parents regclass[];
    owner regclass;
    fixed text[] := ARRAY['ordinal', 'start', 'stop', 'text'];
    foreign_key text[];
    keys text[];
    place text;
    target text;
    watched text[];
    problem text;
    marker text;
    arguments text;
    earlier record;
BEGIN
    SELECT n.nspname, c.relname INTO own_schema, own_name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1;
    SELECT array_agg(p.parent) INTO parents FROM pgmrl.chunk_parent_v1($1) AS p;
    IF cardinality(parents) IS DISTINCT FROM 1 THEN
        RAISE EXCEPTION 'table % refers to % tables as chunks refer to their parent, expected one', $1, coalesce(cardinality(parents), 0)
            USING ERRCODE = 'undefined_object',
                  HINT = 'Give it one FOREIGN KEY to the parent''s primary key, of NOT NULL columns, with ON DELETE CASCADE.';
    END IF;
    SELECT p.parent, p.columns, p.keys INTO owner, foreign_key, keys FROM pgmrl.chunk_parent_v1($1) AS p;
    SELECT string_agg(format('%I %s', w.name, w.type), ', ') INTO problem
    FROM (VALUES ('ordinal', 'integer'), ('start', 'integer'), ('stop', 'integer'), ('text', 'text')) AS w (name, type)
    WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attname = w.name AND NOT a.attisdropped
                      AND a.attgenerated = '' AND a.attidentity <> 'a'
                      AND CASE w.type WHEN 'text' THEN a.atttypid IN ('text'::regtype, 'varchar'::regtype) AND a.atttypmod = -1
                                      ELSE a.atttypid IN ('int4'::regtype, 'int8'::regtype) END);
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'table % of chunks lacks the columns %', $1, problem
            USING ERRCODE = 'undefined_column', HINT = 'Add them: a chunk has its place, its offsets and its text.';
    END IF;
    SELECT string_agg(quote_ident(a.attname), ', ') INTO problem FROM pg_attribute AS a
    WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped AND a.attnotnull AND NOT a.atthasdef
      AND a.attidentity = '' AND a.attgenerated = '' AND a.attname <> ALL (fixed || foreign_key);
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'the columns % of % are NOT NULL without a default, and a worker that cuts a text does not know them', problem, $1
            USING ERRCODE = 'not_null_violation', HINT = 'Give them a default, or drop NOT NULL.';
    END IF;
    -- chunks move up and down while their rows and vectors stay
    SELECT string_agg(x.indexrelid::regclass::text, ', ') INTO problem FROM pg_index AS x
    WHERE x.indrelid = $1 AND x.indisunique AND (x.indimmediate OR x.indisprimary)
      AND EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attnum = ANY (x.indkey) AND a.attname = ANY (fixed));
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'the unique index % of % has a column that changes when a text does', problem, $1
            USING ERRCODE = 'object_in_use',
                  HINT = 'Give chunks a primary key of its own (id), and make other unique constraints DEFERRABLE.';
    END IF;
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place, target
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner;
    SELECT w.name INTO problem FROM unnest(columns) AS w (name)
    WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = w.name
                      AND a.attnum > 0 AND NOT a.attisdropped);
    IF problem IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', owner, quote_ident(problem)
            USING ERRCODE = 'undefined_column', HINT = 'Name the columns of the text in braces, as in {title}.';
    END IF;
    marker := 'chunks in ' || quote_ident(own_schema) || '.' || quote_ident(own_name);
    IF EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = marker AND NOT a.attisdropped) THEN
        RAISE EXCEPTION 'table % has a column %', owner, quote_ident(marker)
            USING ERRCODE = 'duplicate_object', HINT = 'Rename it: the queue knows the chunks by this name.';
    END IF;
    IF EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgrelid <> owner AND g.tgparentid = 0
               AND g.tgfoid = to_regprocedure(format('%s.%I()', place, trigger_name)))
       OR EXISTS (SELECT FROM pgmrl.chunk_tables AS t WHERE t.function = to_regprocedure(format('%s.%I()', place, trigger_name))
                  AND t.chunks IS NOT NULL AND t.chunks <> $1) THEN
        trigger_name := pgmrl.other_name_v1(trigger_name, $1);
    END IF;
    PERFORM pgmrl.marking_function_v1(owner, trigger_name, marker, keys, format('marks rows whose %s are to be cut', marker), notify);
    arguments := format('%L, %L, %L, %L, %L, %L, %L', own_schema, own_name, template, model, size, overlap,
                        CASE WHEN notify THEN 'notify' ELSE '' END);
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %s.%I(%s)',
                   trigger_name, target, place, trigger_name, arguments);
    SELECT array_agg(DISTINCT w.name) INTO watched FROM unnest(columns || keys) AS w (name);
    -- of UPDATEs those that name the text, as the triggers of an embedding: see pgmrl.keep_embedding_v1
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER UPDATE %s ON %s FOR EACH ROW WHEN (record_image_ne(ROW(%s), ROW(%s))) '
                   'EXECUTE FUNCTION %s.%I(%s)',
                   trigger_name || '_u',
                   CASE WHEN pgmrl.rewriting_triggers_v1(owner, watched) IS NULL
                        THEN 'OF ' || (SELECT string_agg(quote_ident(w), ', ') FROM unnest(watched) AS w) END,
                   target,
                   (SELECT string_agg(format('OLD.%I', w), ', ') FROM unnest(watched) AS w),
                   (SELECT string_agg(format('NEW.%I', w), ', ') FROM unnest(watched) AS w),
                   place, trigger_name, arguments);
    -- what kept them before, of another parent or under a name of then; and what names no table any more
    FOR earlier IN
        SELECT DISTINCT t.function, t.relation, t.embedding FROM pgmrl.chunk_tables AS t
        WHERE (t.chunks = $1 OR (t.relation = owner AND t.chunks IS NULL))
          AND t.function <> to_regprocedure(format('%s.%I()', place, trigger_name))
    LOOP
        PERFORM pgmrl.end_chunks_v1($1, earlier.relation, earlier.function, earlier.embedding);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmrl.keep_chunks_v1(regclass, text, text[], text, text, integer, integer, boolean)
    IS 'Installs the triggers that mark rows whose text is to be cut into chunks';

CREATE FUNCTION pgmrl.queue_chunks_v1(chunks regclass) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    owner regclass;
    marker text;
BEGIN
    SELECT t.relation, t.embedding INTO owner, marker
    FROM pgmrl.chunk_tables AS t CROSS JOIN pgmrl.chunk_parent_v1($1) AS p WHERE t.chunks = $1 AND p.parent = t.relation;
    IF owner IS NULL THEN
        RAISE EXCEPTION 'no trigger keeps the chunks in %', $1 USING ERRCODE = 'undefined_object', HINT = 'Install it first.';
    END IF;
    RETURN pgmrl.queue_rows_v1(owner, marker, NULL);
END $$;
COMMENT ON FUNCTION pgmrl.queue_chunks_v1(regclass) IS 'Marks every row of the table that chunks are made of';

CREATE FUNCTION pgmrl.drop_chunks_v1(chunks regclass) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept record;
BEGIN
    FOR kept IN SELECT DISTINCT t.function, t.relation, t.embedding FROM pgmrl.chunk_tables AS t WHERE t.chunks = $1 LOOP
        PERFORM pgmrl.end_chunks_v1($1, kept.relation, kept.function, kept.embedding);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmrl.drop_chunks_v1(regclass) IS 'Removes the triggers that mark rows to be cut into chunks; the chunks stay';
