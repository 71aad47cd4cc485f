-- Shortlist through the short index, exact order by the full vectors. Arguments by number: names may be a column's.
-- $1 query, $2 k, $3 shortlist, $4 exact, {option}then the key of a row to leave out, then the filters.
DECLARE
    size bigint := $3;
    effort bigint;
    short_query {short_type};
    kept text := '';
    -- one text each, so that the plan is made for these numbers and filters
    candidates text := {candidates};
    scans bigint := pg_catalog.pg_stat_get_xact_numscans(pg_catalog.to_regclass({index}));
    old_ef text := pg_catalog.current_setting('hnsw.ef_search', true);
    old_scan text := pg_catalog.current_setting('hnsw.iterative_scan', true);
    old_tuples text := pg_catalog.current_setting('hnsw.max_scan_tuples', true);
    old_memory text := pg_catalog.current_setting('hnsw.scan_mem_multiplier', true);
    unused text;
    missing boolean := $4;
    hits record;  -- its fields have the key's types, also those that the fixed search_path hides
BEGIN
{usual}
    IF $1 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'query is NULL',
            HINT = {query_hint};
    ELSIF {vector}.vector_dims($1) <> {dims} THEN
        RAISE EXCEPTION USING ERRCODE = 'data_exception',
            MESSAGE = format({dims_message}, {vector}.vector_dims($1)), HINT = {query_hint};
{sizes}
    ELSIF $4 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'exact is NULL', HINT = 'Give true or false.';
{zero_full}
{checks}
    END IF;
{conditions}
    candidates := candidates || kept;
    IF NOT $4 THEN
        short_query := {short_query};
{zero_short}
        unused := pg_catalog.set_config('hnsw.ef_search', least(coalesce(effort, size), {ef_limit})::text, true);
        unused := pg_catalog.set_config('hnsw.iterative_scan', 'relaxed_order', true);
        IF size > {ef_limit} THEN
            unused := pg_catalog.set_config('hnsw.max_scan_tuples', greatest({scan_tuples}, 4 * size)::text, true);
            unused := pg_catalog.set_config('hnsw.scan_mem_multiplier', '8', true);
        END IF;
        EXECUTE 'WITH RECURSIVE shortlist AS MATERIALIZED (' || candidates || {nearest} || size || ')' || {tail}
            INTO hits USING $1, short_query{passed};
        -- the settings of whoever called, also within a longer transaction; an error rolls them back
        unused := pg_catalog.set_config('hnsw.ef_search', coalesce(old_ef, '40'), true);
        unused := pg_catalog.set_config('hnsw.iterative_scan', coalesce(old_scan, 'off'), true);
        IF size > {ef_limit} THEN
            unused := pg_catalog.set_config('hnsw.max_scan_tuples', coalesce(old_tuples, '20000'), true);
            unused := pg_catalog.set_config('hnsw.scan_mem_multiplier', coalesce(old_memory, '1'), true);
        END IF;
        missing := {incomplete};
    END IF;
    -- An index scan gives up after so many rows that the filters do not let through. Then every row they leave is read,
    -- so that none is missing; where the planner read them all in the first place, nothing is.
    IF missing THEN
        EXECUTE 'WITH RECURSIVE shortlist AS ' || {exactly} || {tail}
            INTO hits USING $1, short_query{passed};
    END IF;
    RETURN QUERY SELECT {results}, d.distance, {similarity}, d.place::integer, $2, {returned}
        FROM ROWS FROM (unnest(hits.distance), {unnested}) WITH ORDINALITY AS d (distance, {unnested_names}, place);
END
