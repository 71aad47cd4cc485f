-- What 0003 made. Functions in an application's schema call it: they must go first.
DO $$
DECLARE
    made text := (SELECT string_agg(DISTINCT s.function_schema || '.' || (s.marker ->> 'name') || '_…', ', ') FROM pgmrl.function_sets AS s);
BEGIN
    IF made IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl 0003 is in use by the functions %', made
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop them first (op.drop_functions, or `pgmrl functions drop`).';
    END IF;
END $$;
DROP FUNCTION pgmrl.prepare_functions_v1(text, jsonb);
DROP FUNCTION pgmrl.drop_functions_v1(text, text);
DROP FUNCTION pgmrl.functions_of_v1(oid);
DROP FUNCTION pgmrl.views_of_v1(oid);
DROP FUNCTION pgmrl.gave_up_v1(text, bigint);
DROP FUNCTION pgmrl.query_v1(text, text, text);
DROP VIEW pgmrl.functions;
DROP VIEW pgmrl.function_sets;
DROP FUNCTION pgmrl.marker_v1(text);
DROP TABLE pgmrl.queries;
