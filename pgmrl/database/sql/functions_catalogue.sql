-- What a worker's first line says. Whoever may create functions can write such a line: one that is wrong is none.
-- It catches errors, which begins a subtransaction, so it is not parallel-safe.
CREATE FUNCTION pgmrl.marker_v1(source text) RETURNS jsonb
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    said jsonb;
    kind text;
BEGIN
    said := substring(source FROM E'^\n-- pgmrl functions (\\{[^\n]*\\})\n');
    FOREACH kind IN ARRAY ARRAY['filters', 'functions', 'workers', 'results', 'views', 'grant_to', 'keys', 'types'] LOOP
        IF jsonb_typeof(said -> kind) IS DISTINCT FROM 'array' THEN
            RETURN NULL;
        END IF;
    END LOOP;
    FOREACH kind IN ARRAY ARRAY['name', 'schema', 'table', 'column', 'short', 'rule', 'metric', 'full', 'type', 'signature'] LOOP
        IF jsonb_typeof(said -> kind) IS DISTINCT FROM 'string' THEN
            RETURN NULL;
        END IF;
    END LOOP;
    FOREACH kind IN ARRAY ARRAY['side', 'group_by', 'words', 'config', 'model'] LOOP
        IF coalesce(jsonb_typeof(said -> kind), 'null') NOT IN ('string', 'null') THEN
            RETURN NULL;
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM unnest(ARRAY['filters', 'functions', 'workers', 'results', 'views', 'grant_to']) AS list,
                      jsonb_array_elements(said -> list) AS part WHERE jsonb_typeof(part) <> 'string')
        OR EXISTS (SELECT FROM unnest(ARRAY['keys', 'types']) AS list, jsonb_array_elements(said -> list) AS part
                   WHERE jsonb_typeof(part -> 0) IS DISTINCT FROM 'string' OR jsonb_typeof(part -> 1) IS DISTINCT FROM 'string') THEN
        RETURN NULL;
    END IF;
    RETURN CASE WHEN jsonb_typeof(said -> 'version') = 'number' AND said ->> 'version' ~ '^[0-9]{1,6}$' THEN said END;
EXCEPTION WHEN data_exception THEN
    RETURN NULL;
END $$;

COMMENT ON FUNCTION pgmrl.marker_v1(text) IS 'The declaration in a function''s text; NULL where there is none';

-- The sets of SQL functions that pgmrl made in this database: their worker says in its first line what they are for.
CREATE VIEW pgmrl.function_sets AS
SELECT p.oid AS worker, n.nspname AS function_schema, said.marker,
    ARRAY(
        SELECT t.oid FROM pg_type AS t
        WHERE t.typnamespace = n.oid AND t.typowner = p.proowner AND said.marker -> 'results' ? t.typname
    ) AS result_types
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
CROSS JOIN LATERAL (
    SELECT CASE WHEN p.prosrc LIKE E'\n-- pgmrl functions {%}\n%' THEN pgmrl.marker_v1(p.prosrc) END AS marker
    OFFSET 0  -- read once a set: without it, once for every function of the database that is compared with the set
) AS said
WHERE said.marker IS NOT NULL;
COMMENT ON VIEW pgmrl.function_sets IS 'Sets of SQL functions for searching, one row a column; see pgmrl.functions';

CREATE VIEW pgmrl.functions AS
SELECT
    s.function_schema::text,
    p.proname::text AS function_name,
    pg_get_function_arguments(p.oid) AS arguments,
    obj_description(p.oid, 'pg_proc') AS description,
    s.marker ->> 'schema' AS table_schema,
    s.marker ->> 'table' AS table_name,
    s.marker ->> 'column' AS full_column,
    s.marker ->> 'short' AS short_column,
    ARRAY(SELECT jsonb_array_elements_text(s.marker -> 'filters')) AS filters,
    (s.marker ->> 'version')::integer AS version,
    has_function_privilege(p.oid, 'EXECUTE') AS callable
FROM pgmrl.function_sets AS s
JOIN pg_namespace AS n ON n.nspname = s.function_schema
JOIN pg_proc AS p ON p.pronamespace = n.oid AND s.marker -> 'functions' ? p.proname
    AND (p.prorettype = ANY (s.result_types) OR p.prosrc LIKE E'\n-- pgmrl%');
COMMENT ON VIEW pgmrl.functions IS 'Every SQL function that pgmrl made in this database, with its arguments and what it searches';
GRANT SELECT ON pgmrl.function_sets, pgmrl.functions TO PUBLIC;

-- Only what the worker's owner owns: a line that somebody else wrote gives them no power over other people's things.
CREATE FUNCTION pgmrl.functions_of_v1(worker oid) RETURNS SETOF oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT p.oid
    FROM pgmrl.function_sets AS s
    JOIN pg_proc AS w ON w.oid = s.worker
    JOIN pg_proc AS p ON p.pronamespace = w.pronamespace AND p.proowner = w.proowner
    WHERE s.worker = $1 AND ((s.marker -> 'functions') || (s.marker -> 'workers')) ? p.proname
        AND (p.prorettype = ANY (s.result_types) OR p.prosrc LIKE E'\n-- pgmrl%')
    -- what is called comes after what calls it
    ORDER BY s.marker -> 'workers' ? p.proname, p.prosrc LIKE E'\n-- pgmrl%'
$$;
COMMENT ON FUNCTION pgmrl.functions_of_v1(oid) IS 'The functions of a set, by its worker';

CREATE FUNCTION pgmrl.views_of_v1(worker oid) RETURNS SETOF oid
LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
    SELECT c.oid
    FROM pgmrl.function_sets AS s
    JOIN pg_proc AS w ON w.oid = s.worker
    JOIN pg_class AS c ON c.relnamespace = w.pronamespace AND c.relowner = w.proowner
    WHERE s.worker = $1 AND s.marker -> 'views' ? c.relname AND c.relkind IN ('v', 'm')
    ORDER BY c.relkind  -- what is stored reads the other
$$;
COMMENT ON FUNCTION pgmrl.views_of_v1(oid) IS 'The views of a set, by its worker';

-- Before functions are made: nothing of somebody else's may stand there, and of an earlier set goes what cannot be replaced.
CREATE FUNCTION pgmrl.prepare_functions_v1(place text, said jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old jsonb;
    old_worker oid;
    owner text;
    other text;
    gone text;
    part oid;
BEGIN
    IF to_regnamespace(quote_ident(place)) IS NULL THEN
        RAISE EXCEPTION 'there is no schema %', quote_ident(place)
            USING ERRCODE = 'invalid_schema_name', HINT = 'Create it, or install the functions in another one.';
    END IF;
    -- a name with a colon is that of a model outside: see pgmrl.ask_v1
    IF NOT EXISTS (SELECT FROM pgmrl.models AS m WHERE m.name = said ->> 'model') AND said ->> 'model' NOT LIKE '%:%' THEN
        RAISE EXCEPTION 'there is no model % in this database', quote_literal(left(said ->> 'model', 60))
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM pgmrl.models lists them; `pgmrl model install` adds one.';
    ELSIF EXISTS (SELECT FROM pgmrl.models AS m WHERE m.name = said ->> 'model'
                  AND said ->> 'full' NOT IN (format('vector(%s)', m.dims), format('halfvec(%s)', m.dims))) THEN
        RAISE EXCEPTION 'the vectors of %.% are %, and those of the model % are others', said ->> 'table', said ->> 'column',
            said ->> 'full', said ->> 'model'
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Name the model that the column was embedded with.';
    END IF;
    SELECT s.marker, s.worker INTO old, old_worker FROM pgmrl.function_sets AS s
    WHERE s.function_schema = place AND s.marker ->> 'name' = said ->> 'name';
    owner := concat_ws('.', old ->> 'schema', old ->> 'table', old ->> 'column');
    IF old IS NOT NULL AND (old -> 'schema', old -> 'table', old -> 'column')
        IS DISTINCT FROM (said -> 'schema', said -> 'table', said -> 'column') THEN
        RAISE EXCEPTION 'functions named %_… search % already', said ->> 'name', owner
            USING ERRCODE = 'duplicate_function', HINT = 'Give these ones another name.';
    END IF;
    SELECT format('%s belongs to %I', o.title, pg_get_userbyid(o.owner)) INTO other
    FROM pg_namespace AS n CROSS JOIN LATERAL (
        SELECT 'function ' || p.oid::regprocedure, p.proowner FROM pg_proc AS p
        WHERE p.pronamespace = n.oid AND ((said -> 'functions') || (said -> 'workers')) ? p.proname
        UNION ALL
        SELECT 'type ' || t.oid::regtype, t.typowner FROM pg_type AS t
        WHERE t.typnamespace = n.oid AND said -> 'results' ? t.typname
        UNION ALL
        SELECT 'view ' || c.oid::regclass, c.relowner FROM pg_class AS c
        WHERE c.relnamespace = n.oid AND said -> 'views' ? c.relname
    ) AS o (title, owner)
    WHERE n.nspname = place AND NOT pgmrl.owns_v1(o.owner)
    LIMIT 1;
    IF other IS NOT NULL THEN
        RAISE EXCEPTION '%, not to % who installs the functions', other, quote_ident(current_user)
            USING ERRCODE = 'duplicate_function',
                  HINT = 'It would keep its owner, who may rewrite what others call. Read it, then drop it, or give the functions '
                         'another name.';
    END IF;
    SELECT p.oid::regprocedure::text INTO other
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = place AND ((said -> 'functions') || (said -> 'workers')) ? p.proname
      AND NOT coalesce(((old -> 'functions') || (old -> 'workers')) ? p.proname, false);
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'there is a function % that pgmrl did not make', other
            USING ERRCODE = 'duplicate_function', HINT = 'Give the functions another name, or rename that one.';
    END IF;
    SELECT format('%I.%I', n.nspname, t.typname) INTO other
    FROM pg_type AS t JOIN pg_namespace AS n ON n.oid = t.typnamespace
    WHERE n.nspname = place AND said -> 'results' ? t.typname AND NOT coalesce(old -> 'results' ? t.typname, false);
    IF other IS NULL THEN
        SELECT c.oid::regclass::text INTO other
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = place AND said -> 'views' ? c.relname
          AND NOT coalesce(old -> 'views' ? c.relname, false);
    END IF;
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'there is a table, view or type % that pgmrl did not make', other
            USING ERRCODE = 'duplicate_object', HINT = 'Give the functions another name, or rename that one.';
    END IF;
    -- other arguments, results or version: they cannot be replaced in place
    IF old ->> 'signature' <> said ->> 'signature' OR old ->> 'version' <> said ->> 'version'
        OR old -> 'functions' <> said -> 'functions' OR old -> 'views' <> said -> 'views' THEN
        PERFORM pgmrl.drop_functions_v1(place, said ->> 'name');
        RETURN;
    END IF;
    FOR gone IN
        SELECT r.rolname FROM pg_roles AS r
        WHERE old -> 'grant_to' ? r.rolname AND NOT said -> 'grant_to' ? r.rolname
    LOOP
        FOR part IN SELECT pgmrl.functions_of_v1(old_worker) LOOP
            EXECUTE format('REVOKE ALL ON FUNCTION %s FROM %I', part::regprocedure, gone);
        END LOOP;
        FOR part IN SELECT pgmrl.views_of_v1(old_worker) LOOP
            EXECUTE format('REVOKE ALL ON %s FROM %I', part::regclass, gone);
        END LOOP;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmrl.prepare_functions_v1(text, jsonb)
    IS 'Makes room for a set of functions, or says what is in the way';

CREATE FUNCTION pgmrl.drop_functions_v1(place text, set_name text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old record;
    part oid;
    kind "char";
BEGIN
    SELECT s.* INTO old FROM pgmrl.function_sets AS s
    WHERE s.function_schema = place AND s.marker ->> 'name' = set_name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOREACH part IN ARRAY ARRAY(SELECT pgmrl.views_of_v1(old.worker)) LOOP
        SELECT c.relkind INTO kind FROM pg_class AS c WHERE c.oid = part;
        EXECUTE format('DROP %s %s', CASE kind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, part::regclass);
    END LOOP;
    FOREACH part IN ARRAY ARRAY(SELECT pgmrl.functions_of_v1(old.worker)) LOOP
        EXECUTE 'DROP FUNCTION ' || part::regprocedure;
    END LOOP;
    FOREACH part IN ARRAY old.result_types LOOP
        EXECUTE 'DROP TYPE ' || part::regtype;
    END LOOP;
    RETURN true;
END $$;
COMMENT ON FUNCTION pgmrl.drop_functions_v1(text, text) IS 'Drops a set of functions with its views; false where there is none';

CREATE FUNCTION pgmrl.gave_up_v1(index_name text, scans_before bigint) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- Only one index that is known, is the column's only one, counts its scans and was not read can be ruled out.
    SELECT NOT coalesce((
        SELECT c.relkind = 'i' AND pg_stat_get_xact_numscans(c.oid) = scans_before AND current_setting('track_counts')::boolean
            AND (SELECT count(*) FROM pg_index AS o WHERE o.indrelid = x.indrelid AND o.indkey[0] = x.indkey[0]) = 1
        FROM pg_class AS c JOIN pg_index AS x ON x.indexrelid = c.oid
        WHERE c.oid = to_regclass(index_name)), false)
$$;
COMMENT ON FUNCTION pgmrl.gave_up_v1(text, bigint)
    IS 'Whether a shortlist may have come from an index scan that gave up before it was full';
