-- The view of 0001 takes the rule of a trigger for a rotation: what only 0002 understands must go first.
DO $$
DECLARE
    kept text := (SELECT string_agg(DISTINCT c.table_schema || '.' || c.table_name || '.' || c.short_column, ', ')
                  FROM pgmrl.columns AS c WHERE c.kept_by = 'trigger' AND c.shortening = 'prefix');
BEGIN
    IF kept IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl 0002 is in use by %', kept
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop these short columns first (op.drop_short).';
    END IF;
END $$;
DROP VIEW pgmrl.columns;
DROP TABLE pgmrl.backfill_ranges;
DROP TABLE pgmrl.backfills;
DROP FUNCTION pgmrl.mirror_full_v1(regclass, text, text, text);
DROP FUNCTION pgmrl.keep_short_v2(regclass, text, text, text, text, text, text);
