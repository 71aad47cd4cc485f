-- A trigger's function is plain text to the server, which would let its parts be dropped under it: look first.
DO $$
DECLARE
    kept text := (SELECT string_agg(DISTINCT g.tgrelid::regclass::text, ', ')
                  FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zz\_pgmrl\_%');
BEGIN
    IF kept IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl is in use by %', kept
            USING ERRCODE = 'dependent_objects_still_exist',
                  HINT = 'Drop the rotated short columns and side tables there first.';
    END IF;
END $$;
DROP VIEW pgmrl.columns;
DROP FUNCTION pgmrl.keep_side_v1(regclass, regclass, text, text[], text);
DROP FUNCTION pgmrl.keep_short_v1(regclass, text, text, text, text, text, text);
DROP FUNCTION pgmrl.rotate_v1({vector}.halfvec, text, integer);
DROP FUNCTION pgmrl.rotate_v1({vector}.vector, text, integer);
DROP TABLE pgmrl.axes;
DROP TABLE pgmrl.rotations;
DROP FUNCTION pgmrl.guard_axes_v1();
DROP FUNCTION pgmrl.guard_rotation_v1();
DROP FUNCTION pgmrl.seal_rotation_v1();
DROP FUNCTION pgmrl.rotation_id_v1(text);
