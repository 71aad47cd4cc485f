-- Rows whose text has no vector yet, or another one: entries are only added by those who write rows, so that nobody waits
-- for a worker; an entry goes when the vector of the text that was read after it is stored. Whoever may write a table may
-- mark its rows, and gives no more than their keys.
CREATE TABLE pgmrl.embedding_queue (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation regclass NOT NULL,
    embedding text NOT NULL,
    key text[] NOT NULL CHECK (array_ndims(key) IS NOT DISTINCT FROM 1),
    queued_at timestamptz NOT NULL DEFAULT now(),
    due_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    worker text,
    error text,
    parked boolean NOT NULL DEFAULT false
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05);
CREATE INDEX embedding_queue_due ON pgmrl.embedding_queue (relation, embedding, due_at) WHERE NOT parked;
CREATE INDEX embedding_queue_key ON pgmrl.embedding_queue (relation, embedding, key);
COMMENT ON TABLE pgmrl.embedding_queue IS 'Rows whose text is to be embedded, by key: see pgmrl.embedding_status';
COMMENT ON COLUMN pgmrl.embedding_queue.embedding IS 'The column of vectors';
COMMENT ON COLUMN pgmrl.embedding_queue.key IS 'The primary key''s values as text, in the key''s order';
COMMENT ON COLUMN pgmrl.embedding_queue.due_at IS 'When the next worker may take it: of one that is taken, when its worker is given up';
COMMENT ON COLUMN pgmrl.embedding_queue.attempts IS 'How often a worker took it without an end';
COMMENT ON COLUMN pgmrl.embedding_queue.parked IS 'No worker takes it any more, see error';
ALTER TABLE pgmrl.embedding_queue ENABLE ROW LEVEL SECURITY;
CREATE POLICY of_own_tables ON pgmrl.embedding_queue
    USING (has_any_column_privilege(relation, 'SELECT')) WITH CHECK (has_any_column_privilege(relation, 'INSERT, UPDATE'));
GRANT INSERT (relation, embedding, key) ON pgmrl.embedding_queue TO PUBLIC;

CREATE VIEW pgmrl.embeddings AS
SELECT c.oid::regclass AS relation, n.nspname::text AS table_schema, c.relname::text AS table_name,
    v.a[1] AS embedding, v.a[2] AS template, v.a[3] AS embedder, v.a[4] = 'notify' AS notifies, g.tgfoid::regprocedure AS function
FROM pg_trigger AS g
JOIN pg_class AS c ON c.oid = g.tgrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zx\_pgmrl\_%'
-- the arguments end with a zero byte each; a backslash of theirs is doubled, and made an octal number before one is looked for
CROSS JOIN LATERAL (
    SELECT string_to_array(convert_from(decode(
        replace(replace(encode(g.tgargs, 'escape'), '\\', '\134'), '\000', '\001'), 'escape'), getdatabaseencoding()), E'\x01') AS a
) AS v
WHERE g.tgparentid = 0 AND g.tgnargs = 4 AND (g.tgtype & 4) = 4;
COMMENT ON VIEW pgmrl.embeddings IS 'Columns of vectors that are kept in step with a text, as their triggers say';
GRANT SELECT ON pgmrl.embeddings TO PUBLIC;

CREATE VIEW pgmrl.embedding_status AS
SELECT e.relation, e.table_schema, e.table_name, e.embedding, q.stale, q.taken, q.failed, q.parked,
    extract(epoch FROM clock_timestamp() - q.oldest)::double precision AS oldest_seconds
FROM (
    SELECT relation, table_schema, table_name, embedding FROM pgmrl.embeddings
    UNION ALL SELECT relation, table_schema, table_name, embedding FROM pgmrl.chunk_tables
) AS e
CROSS JOIN LATERAL (
    SELECT count(DISTINCT o.key) FILTER (WHERE NOT o.parked) AS stale,
        count(DISTINCT o.key) FILTER (WHERE o.worker IS NOT NULL AND o.due_at > clock_timestamp()) AS taken,
        count(DISTINCT o.key) FILTER (WHERE NOT o.parked AND o.error IS NOT NULL) AS failed,
        count(DISTINCT o.key) FILTER (WHERE o.parked) AS parked,
        min(o.queued_at) FILTER (WHERE NOT o.parked) AS oldest
    FROM pgmrl.embedding_queue AS o WHERE o.relation = e.relation AND o.embedding = e.embedding
) AS q;
COMMENT ON VIEW pgmrl.embedding_status IS 'How many rows of each column are still to be embedded; for everybody';
GRANT SELECT ON pgmrl.embedding_status TO PUBLIC;

-- What a model said of a row, and its key, are for those who may read every row of the table.
CREATE VIEW pgmrl.parked_embeddings AS
SELECT q.relation, q.embedding, q.key, q.attempts, q.error, q.queued_at FROM pgmrl.embedding_queue AS q
WHERE q.parked AND has_table_privilege(q.relation, 'SELECT') AND NOT row_security_active(q.relation);
COMMENT ON VIEW pgmrl.parked_embeddings IS 'Rows that could not be embedded, with the reason; `pgmrl embed --retry` tries them again';
GRANT SELECT ON pgmrl.parked_embeddings TO PUBLIC;

-- BEFORE triggers that may change one of these columns in an UPDATE that does not name it: a trigger that looks at what
-- an UPDATE names would miss that. Only those are left out that certainly do not: the server's own which write one other
-- column, and PL/pgSQL that neither names such a column nor uses NEW but by its columns.
CREATE FUNCTION pgmrl.rewriting_triggers_v1(owner regclass, columns text[]) RETURNS text[]
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT array_agg(DISTINCT g.tgname::text)
    FROM pg_trigger AS g
    JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname NOT LIKE 'z_\_pgmrl\_%'
    JOIN pg_language AS l ON l.oid = p.prolang
    WHERE (g.tgrelid = owner OR g.tgrelid IN (SELECT t.relid FROM pg_partition_tree(owner) AS t))
      AND columns IS NOT NULL AND NOT g.tgisinternal AND (g.tgtype & 19) = 19  -- FOR EACH ROW, BEFORE, UPDATE
      AND NOT (
        NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = ANY (columns) AND a.attgenerated <> '')
        AND CASE WHEN l.lanname = 'plpgsql' THEN
            NOT EXISTS (SELECT FROM unnest(columns) AS w (name) WHERE w.name !~ '^\w+$' OR p.prosrc ~* ('\m' || w.name || '\M'))
            AND p.prosrc !~* 'U&"'
            AND regexp_replace(p.prosrc, '\mNEW\s*\.\s*"?\w+|\mRETURN\s+(NEW|OLD|NULL)\s*;', '', 'gi') !~* '\m(NEW|RETURN)\M'
        ELSE l.lanname IN ('c', 'internal')
            AND p.proname IN ('moddatetime', 'tsvector_update_trigger', 'tsvector_update_trigger_column', 'suppress_redundant_updates_trigger')
            AND NOT EXISTS (SELECT FROM unnest(columns) AS w (name)
                            WHERE position(convert_to(w.name, getdatabaseencoding()) || '\x00'::bytea IN g.tgargs) = 1)
        END
      )
$$;
COMMENT ON FUNCTION pgmrl.rewriting_triggers_v1(regclass, text[])
    IS 'BEFORE triggers of a table that may change one of these columns in an UPDATE which does not name it';

-- What the triggers of an embedding, and of chunks, call. A key is written as every session writes it.
CREATE FUNCTION pgmrl.marking_function_v1(
    owner regclass, function_name text, entry text, keys text[], purpose text, notify boolean
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place text := (SELECT quote_ident(n.nspname) FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner);
    plain boolean := (
        SELECT bool_and(a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'uuid'::regtype, 'text'::regtype, 'varchar'::regtype))
        FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = ANY (keys));
BEGIN
    PERFORM pgmrl.refuse_strangers_v1(owner, function_name);
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql '
                   'SET search_path = pg_catalog, pg_temp %s AS %L',
                   place, function_name,
                   CASE WHEN plain THEN ''
                        ELSE 'SET DateStyle = ''ISO, YMD'' SET IntervalStyle = postgres SET extra_float_digits = 1 SET bytea_output = hex' END,
                   format(E'BEGIN\n    INSERT INTO pgmrl.embedding_queue (relation, embedding, key)\n'
                          '    VALUES (coalesce(pg_partition_root(TG_RELID), TG_RELID), %L, ARRAY[%s]);\n%s    RETURN NEW;\nEND',
                          entry, (SELECT string_agg(format('NEW.%I::text', k), ', ') FROM unnest(keys) AS k),
                          CASE WHEN notify THEN E'    PERFORM pg_notify(''pgmrl_embed'', '''');\n' ELSE '' END));
    EXECUTE format('COMMENT ON FUNCTION %s.%I() IS %L', place, function_name, 'pgmrl: ' || purpose);
END $$;
COMMENT ON FUNCTION pgmrl.marking_function_v1(regclass, text, text, text[], text, boolean)
    IS 'Makes the function by which triggers mark rows of a table in the queue';

-- Installs the triggers that mark a row when its text changes. They are AFTER triggers, so that they see what the others
-- made of the row. Of an UPDATE they look at those that name a column of the text (UPDATE OF), which costs every other
-- one least; unless a BEFORE trigger may change the text besides: then at every one.
CREATE FUNCTION pgmrl.keep_embedding_v1(
    owner regclass, trigger_name text, embedding text, columns text[], template text, embedder text, notify boolean
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place text;
    target text;
    keys text[];
    watched text[];
    parts text[];
    missing text;
    other_model text;
    has_vectors boolean;
    earlier regprocedure;
BEGIN
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place, target
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner AND NOT c.relispartition;
    IF target IS NULL THEN
        RAISE EXCEPTION '% is a partition', owner
            USING ERRCODE = 'wrong_object_type', HINT = 'Name the table that it is a partition of.';
    END IF;
    SELECT array_agg(a.attname::text ORDER BY k.n) INTO keys
    FROM pg_index AS x
    CROSS JOIN LATERAL unnest(x.indkey[0:x.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, n)
    JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
    WHERE x.indrelid = owner AND x.indisprimary;
    IF keys IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key, by which its rows are marked', owner
            USING ERRCODE = 'undefined_object', HINT = 'Add one.';
    END IF;
    SELECT w.name INTO missing FROM unnest(columns || embedding) AS w (name)
    WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = w.name
                      AND a.attnum > 0 AND NOT a.attisdropped);
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', owner, quote_ident(missing)
            USING ERRCODE = 'undefined_column', HINT = 'Name the columns of the text in braces, as in {title}.';
    END IF;
    IF EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = embedding AND a.attnotnull) THEN
        RAISE EXCEPTION 'column % of % is NOT NULL, and a row has no vector before its text is embedded', quote_ident(embedding), owner
            USING ERRCODE = 'not_null_violation', HINT = 'ALTER TABLE ... ALTER COLUMN ... DROP NOT NULL.';
    END IF;
    IF EXISTS (SELECT FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zt\_pgmrl\_%'
               WHERE g.tgrelid = owner AND NOT g.tgisinternal
               AND starts_with(encode(g.tgargs, 'escape'), replace(embedding, '\', '\\') || '\000')) THEN
        RAISE EXCEPTION 'column % of % is kept by the database itself', quote_ident(embedding), owner
            USING ERRCODE = 'object_in_use', HINT = 'End that first: `pgmrl model keep ... --stop`.';
    END IF;
    IF EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgrelid <> owner AND g.tgparentid = 0
               AND g.tgfoid = to_regprocedure(format('%s.%I()', place, trigger_name))) THEN
        trigger_name := pgmrl.other_name_v1(trigger_name, owner);
    END IF;
    SELECT e.embedder INTO other_model FROM pgmrl.embeddings AS e
    WHERE e.relation = owner AND e.embedding = $3 AND split_part(e.embedder, '?', 1) <> split_part($6, '?', 1) LIMIT 1;
    PERFORM pgmrl.marking_function_v1(owner, trigger_name, embedding, keys, format('marks rows whose %s is to be computed', embedding), notify);
    -- a row that comes with a vector has been embedded by whoever writes it
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT ON %s FOR EACH ROW WHEN (NEW.%I IS NULL) '
                   'EXECUTE FUNCTION %s.%I(%L, %L, %L, %L)',
                   trigger_name, target, embedding, place, trigger_name, embedding, template, embedder,
                   CASE WHEN notify THEN 'notify' ELSE '' END);
    -- The key as well: a row that moves away from its entry would be lost.
    -- Not IS DISTINCT FROM: not every type has the operator, and pg_restore would not find all of them.
    SELECT array_agg(DISTINCT w.name) INTO watched FROM unnest(columns || keys) AS w (name);
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER UPDATE %s ON %s FOR EACH ROW '
                   'WHEN (record_image_ne(ROW(%s), ROW(%s)) AND (NEW.%I IS NULL OR record_image_eq(ROW(OLD.%I), ROW(NEW.%I)))) '
                   'EXECUTE FUNCTION %s.%I(%L, %L, %L, %L)',
                   trigger_name || '_u',
                   CASE WHEN pgmrl.rewriting_triggers_v1(owner, watched) IS NULL
                        THEN 'OF ' || (SELECT string_agg(quote_ident(w), ', ') FROM unnest(watched) AS w) END,
                   target,
                   (SELECT string_agg(format('OLD.%I', w), ', ') FROM unnest(watched) AS w),
                   (SELECT string_agg(format('NEW.%I', w), ', ') FROM unnest(watched) AS w),
                   embedding, embedding, embedding, place, trigger_name, embedding, template, embedder,
                   CASE WHEN notify THEN 'notify' ELSE '' END);
    -- An UPDATE that moves a row to another partition is a DELETE and an INSERT to AFTER triggers, and the row has a vector.
    SELECT array_agg(a.attname::text) INTO parts
    FROM pg_partition_tree(owner) AS t
    JOIN pg_partitioned_table AS d ON d.partrelid = t.relid
    CROSS JOIN LATERAL unnest(d.partattrs::int2[]) AS k (attnum)
    JOIN pg_attribute AS a ON a.attrelid = t.relid AND a.attnum = k.attnum;
    IF parts IS NOT NULL THEN
        EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE UPDATE OF %s ON %s FOR EACH ROW '
                       'WHEN (record_image_ne(ROW(%s), ROW(%s)) AND (NEW.%I IS NULL OR record_image_eq(ROW(OLD.%I), ROW(NEW.%I)))) '
                       'EXECUTE FUNCTION %s.%I(%L, %L, %L, %L)',
                       trigger_name || '_m', (SELECT string_agg(DISTINCT quote_ident(p), ', ') FROM unnest(parts) AS p), target,
                       (SELECT string_agg(format('OLD.%I', p), ', ') FROM unnest(parts) AS p),
                       (SELECT string_agg(format('NEW.%I', p), ', ') FROM unnest(parts) AS p),
                       embedding, embedding, embedding, place, trigger_name, embedding, template, embedder,
                       CASE WHEN notify THEN 'notify' ELSE '' END);
    END IF;
    IF other_model IS NOT NULL THEN  -- nobody writes one now: the triggers have locked the table
        EXECUTE format('SELECT EXISTS (SELECT FROM %s AS t WHERE t.%I IS NOT NULL)', target, embedding) INTO has_vectors;
        IF has_vectors THEN
            RAISE EXCEPTION 'column % of % holds vectors of %, with which those of % cannot be compared', quote_ident(embedding), owner, other_model, embedder
                USING ERRCODE = 'object_in_use',
                      HINT = 'Give the other model a column of its own (`pgmrl embed ... --install --to ...`), or set this one to NULL in every '
                             'row first. If both names are of one model, drop the triggers first.';
        END IF;
    END IF;
    -- what kept it before, under the table's or the column's name of then
    FOR earlier IN
        SELECT e.function FROM pgmrl.embeddings AS e WHERE e.relation = owner AND e.embedding = $3
          AND e.function <> to_regprocedure(format('%s.%I()', place, trigger_name))
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', earlier);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmrl.keep_embedding_v1(regclass, text, text, text[], text, text, boolean)
    IS 'Installs the triggers that mark rows whose text is to be embedded';

CREATE FUNCTION pgmrl.queue_rows_v1(owner regclass, entry text, missing text) RETURNS bigint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET DateStyle = 'ISO, YMD'
SET IntervalStyle = postgres
SET extra_float_digits = 1
SET bytea_output = hex
AS $$
DECLARE
    queued bigint;
BEGIN
    IF row_security_active(owner) THEN
        RAISE EXCEPTION 'row-level security may hide rows of % from %', owner, current_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'Mark them as a role with BYPASSRLS, or while the table has no '
                                                              'FORCE ROW LEVEL SECURITY.';
    END IF;
    EXECUTE format('INSERT INTO pgmrl.embedding_queue (relation, embedding, key) SELECT $1, $2, ARRAY[%s] FROM %s AS t WHERE %s',
                   (SELECT string_agg(format('t.%I::text', a.attname), ', ' ORDER BY k.n) FROM pg_index AS x
                    CROSS JOIN LATERAL unnest(x.indkey[0:x.indnkeyatts - 1]) WITH ORDINALITY AS k (attnum, n)
                    JOIN pg_attribute AS a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
                    WHERE x.indrelid = owner AND x.indisprimary),
                   (SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname)
                    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner),
                   CASE WHEN missing IS NULL THEN 'true' ELSE format('t.%I IS NULL', missing) END)
    USING owner, entry;
    GET DIAGNOSTICS queued = ROW_COUNT;
    PERFORM pg_notify('pgmrl_embed', '');
    RETURN queued;
END $$;
COMMENT ON FUNCTION pgmrl.queue_rows_v1(regclass, text, text)
    IS 'Marks the rows of a table in the queue: those where a column is NULL, or all of them';

CREATE FUNCTION pgmrl.queue_embeddings_v1(owner regclass, embedding text, everything boolean) RETURNS bigint
LANGUAGE sql
SET search_path = pg_catalog, pg_temp
AS $$ SELECT pgmrl.queue_rows_v1($1, $2, CASE WHEN $3 THEN NULL ELSE $2 END) $$;
COMMENT ON FUNCTION pgmrl.queue_embeddings_v1(regclass, text, boolean)
    IS 'Marks the rows of a table that have no vector, or all of them';

-- The queue is emptied only by those who may: for others the entries stay, which mean nothing without the triggers.
CREATE FUNCTION pgmrl.drop_embedding_v1(owner regclass, embedding text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept_by regprocedure;
BEGIN
    FOR kept_by IN SELECT e.function FROM pgmrl.embeddings AS e WHERE e.relation = owner AND e.embedding = $2 LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', kept_by);
    END LOOP;
    IF has_table_privilege('pgmrl.embedding_queue', 'SELECT') AND has_table_privilege('pgmrl.embedding_queue', 'DELETE') THEN
        DELETE FROM pgmrl.embedding_queue AS q WHERE q.relation = owner AND q.embedding = $2
            OR NOT EXISTS (SELECT FROM pg_class AS c WHERE c.oid = q.relation);
    END IF;
END $$;
COMMENT ON FUNCTION pgmrl.drop_embedding_v1(regclass, text) IS 'Removes the triggers that mark rows to be embedded';
