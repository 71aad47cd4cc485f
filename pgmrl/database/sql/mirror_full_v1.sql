-- Two full columns of one table that hold the same vectors while an application moves from one to the other: old code
-- writes one, new code the other, and each sees what the other wrote.
CREATE FUNCTION pgmrl.mirror_full_v1(owner regclass, trigger_name text, old_column text, new_column text) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, {vector}, pg_temp
AS $$
DECLARE
    place text;
    target text;
    old_type text;
    new_type text;
    earlier regprocedure;
BEGIN
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place, target
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner;
    SELECT format_type(a.atttypid, a.atttypmod) INTO STRICT old_type
    FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = old_column AND NOT a.attisdropped;
    SELECT format_type(a.atttypid, a.atttypmod) INTO STRICT new_type
    FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = new_column AND NOT a.attisdropped;
    PERFORM pgmrl.refuse_strangers_v1(owner, trigger_name);
    -- Whoever changed one column did not know the other; both changed: the new one is what the newer code wrote. Where a
    -- column was renamed, the record has none of the name in this text: the second trigger's condition knows its name now.
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql '
                   'SET search_path = pg_catalog, {vector}, pg_temp AS %L',
                   place, trigger_name,
                   format(E'DECLARE\n'
                          '    names text[];\n'
                          '    source text;\n'
                          '    target text;\n'
                          'BEGIN\n'
                          '    IF TG_OP = ''INSERT'' THEN\n'
                          '        IF NEW.%2$I IS NULL THEN NEW.%2$I := NEW.%1$I::%4$s; ELSE NEW.%1$I := NEW.%2$I::%3$s; END IF;\n'
                          '    ELSIF record_image_ne(ROW(OLD.%2$I), ROW(NEW.%2$I)) '
                          'AND current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM ''backfill mirror'' THEN\n'
                          '        NEW.%1$I := NEW.%2$I::%3$s;\n'
                          '    ELSE\n'
                          '        NEW.%2$I := NEW.%1$I::%4$s;\n'
                          '    END IF;\n'
                          '    RETURN NEW;\n'
                          'EXCEPTION WHEN undefined_column THEN\n'
                          '    names := pgmrl.watched_columns_v1(TG_RELID, %5$L);\n'
                          '    target := names[2];\n'
                          '    IF (TG_OP = ''INSERT'' AND to_jsonb(NEW) ->> names[2] IS NOT NULL) OR (TG_OP = ''UPDATE'' '
                          'AND to_jsonb(OLD) ->> names[2] IS DISTINCT FROM to_jsonb(NEW) ->> names[2] '
                          'AND current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM ''backfill mirror'') THEN\n'
                          '        target := names[1];\n'
                          '    END IF;\n'
                          '    source := CASE target WHEN names[1] THEN names[2] ELSE names[1] END;\n'
                          '    RETURN jsonb_populate_record(NEW, jsonb_build_object(target, to_jsonb(NEW) ->> source));\n'
                          'END', old_column, new_column, old_type, new_type, trigger_name || '_u'));
    EXECUTE format('COMMENT ON FUNCTION %s.%I() IS %L', place, trigger_name,
                   format('pgmrl: keeps %s and %s the same', old_column, new_column));
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %s.%I(%L, %L)',
                   trigger_name, target, place, trigger_name, old_column, new_column);
    -- While a row has not been copied yet, any update copies it. The backfill itself sets the new column from the old
    -- one: writing that back would change the old one by the rounding. Where another trigger of the application's changes
    -- the old one in the same statement, that is copied. A repair of the old one from the new is not written back either.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE UPDATE ON %s FOR EACH ROW '
                   'WHEN ((record_image_ne(ROW(OLD.%I, OLD.%I), ROW(NEW.%I, NEW.%I)) OR (NEW.%I IS NULL AND NEW.%I IS NOT NULL)) '
                   'AND (current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM ''backfill mirror'' '
                   'OR record_image_ne(ROW(OLD.%I), ROW(NEW.%I))) '
                   'AND current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM ''backfill mirror old'') '
                   'EXECUTE FUNCTION %s.%I(%L, %L)',
                   trigger_name || '_u', target, old_column, new_column, old_column, new_column, new_column, old_column,
                   old_column, old_column, place, trigger_name, old_column, new_column);
    -- what mirrored them before under other names
    FOR earlier IN
        SELECT DISTINCT g.tgfoid FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
        WHERE g.tgrelid = owner AND p.proname LIKE 'zy\_pgmrl\_%' AND g.tgnargs = 2
          AND p.oid <> to_regprocedure(format('%s.%I()', place, trigger_name))
          AND pgmrl.watched_columns_v1(owner, g.tgname) = ARRAY[old_column, new_column]
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', earlier);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmrl.mirror_full_v1(regclass, text, text, text)
    IS 'Installs the triggers that keep two full columns the same while an application moves between them';
