-- The sets of SQL functions that pgmrl made in this database: their worker says in its first line what they are for.
CREATE VIEW pgmrl.function_sets AS
SELECT p.oid AS worker, n.nspname AS function_schema, said.marker, t.oid AS result_type
FROM pg_proc AS p
JOIN pg_namespace AS n ON n.oid = p.pronamespace
JOIN pg_type AS t ON t.oid = p.prorettype
JOIN pg_language AS l ON l.oid = p.prolang AND l.lanname = 'plpgsql'
CROSS JOIN LATERAL (
    SELECT CASE WHEN p.prosrc LIKE E'\n-- pgmrl functions {%}\n%'
        THEN substring(p.prosrc FROM E'^\n-- pgmrl functions (\\{[^\n]*\\})\n')::jsonb END AS marker
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
    AND (p.prorettype = s.result_type OR p.prosrc LIKE E'\n-- pgmrl%');
COMMENT ON VIEW pgmrl.functions IS 'Every SQL function that pgmrl made in this database, with its arguments and what it searches';
GRANT SELECT ON pgmrl.function_sets, pgmrl.functions TO PUBLIC;

-- Before functions are made: nothing of somebody else's may stand there, and of an earlier set goes what cannot be replaced.
CREATE FUNCTION pgmrl.prepare_functions_v1(place text, result text, said jsonb) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old jsonb;
    owner text;
    other text;
BEGIN
    IF to_regnamespace(quote_ident(place)) IS NULL THEN
        RAISE EXCEPTION 'there is no schema %', quote_ident(place)
            USING ERRCODE = 'invalid_schema_name', HINT = 'Create it, or install the functions in another one.';
    END IF;
    SELECT s.marker INTO old FROM pgmrl.function_sets AS s
    WHERE s.function_schema = place AND s.marker ->> 'name' = said ->> 'name';
    owner := concat_ws('.', old ->> 'schema', old ->> 'table', old ->> 'column');
    IF old IS NOT NULL AND owner <> concat_ws('.', said ->> 'schema', said ->> 'table', said ->> 'column') THEN
        RAISE EXCEPTION 'functions named %_… search % already', said ->> 'name', owner
            USING ERRCODE = 'duplicate_function', HINT = 'Give these ones another name.';
    END IF;
    SELECT p.oid::regprocedure::text INTO other
    FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE n.nspname = place AND ((said -> 'functions') || (said -> 'workers')) ? p.proname
      AND NOT coalesce(((old -> 'functions') || (old -> 'workers')) ? p.proname, false);
    IF other IS NOT NULL THEN
        RAISE EXCEPTION 'there is a function % that pgmrl did not make', other
            USING ERRCODE = 'duplicate_function', HINT = 'Give the functions another name, or rename that one.';
    END IF;
    IF old IS NULL AND to_regclass(quote_ident(place) || '.' || quote_ident(result)) IS NOT NULL THEN
        RAISE EXCEPTION 'there is a table or type %.% that pgmrl did not make', quote_ident(place), quote_ident(result)
            USING ERRCODE = 'duplicate_object', HINT = 'Give the functions another name, or rename that one.';
    END IF;
    -- other arguments, results or version: they cannot be replaced in place
    IF old ->> 'signature' <> said ->> 'signature' OR old ->> 'version' <> said ->> 'version'
        OR old -> 'functions' <> said -> 'functions' OR old -> 'views' <> said -> 'views' THEN
        PERFORM pgmrl.drop_functions_v1(place, said ->> 'name');
    END IF;
END $$;
COMMENT ON FUNCTION pgmrl.prepare_functions_v1(text, text, jsonb)
    IS 'Makes room for a set of functions, or says what is in the way';

CREATE FUNCTION pgmrl.drop_functions_v1(place text, set_name text) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    old record;
    one record;
BEGIN
    SELECT s.* INTO old FROM pgmrl.function_sets AS s
    WHERE s.function_schema = place AND s.marker ->> 'name' = set_name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    FOR one IN
        SELECT c.relkind, c.relname
        FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
        WHERE n.nspname = place AND old.marker -> 'views' ? c.relname AND c.relkind IN ('v', 'm')
        ORDER BY c.relkind  -- what is stored reads the other
    LOOP
        EXECUTE format('DROP %s %I.%I', CASE one.relkind WHEN 'm' THEN 'MATERIALIZED VIEW' ELSE 'VIEW' END, place, one.relname);
    END LOOP;
    FOR one IN
        SELECT p.oid::regprocedure AS called
        FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = place AND ((old.marker -> 'functions') || (old.marker -> 'workers')) ? p.proname
          AND (p.prorettype = old.result_type OR p.prosrc LIKE E'\n-- pgmrl%')
        -- what is called goes after what calls it
        ORDER BY old.marker -> 'workers' ? p.proname, p.prosrc LIKE E'\n-- pgmrl%'
    LOOP
        EXECUTE 'DROP FUNCTION ' || one.called;
    END LOOP;
    EXECUTE 'DROP TYPE ' || old.result_type::regtype;
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
