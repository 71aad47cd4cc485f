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
BEGIN
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place, target
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner;
    SELECT format_type(a.atttypid, a.atttypmod) INTO STRICT old_type
    FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = old_column AND NOT a.attisdropped;
    SELECT format_type(a.atttypid, a.atttypmod) INTO STRICT new_type
    FROM pg_attribute AS a WHERE a.attrelid = owner AND a.attname = new_column AND NOT a.attisdropped;
    -- Whoever changed one column did not know the other; both changed: the new one is what the newer code wrote.
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql '
                   'SET search_path = pg_catalog, {vector}, pg_temp AS %L',
                   place, trigger_name,
                   format(E'BEGIN\n'
                          '    IF TG_OP = ''INSERT'' THEN\n'
                          '        IF NEW.%2$I IS NULL THEN NEW.%2$I := NEW.%1$I::%4$s; ELSE NEW.%1$I := NEW.%2$I::%3$s; END IF;\n'
                          '    ELSIF record_image_ne(ROW(OLD.%2$I), ROW(NEW.%2$I)) '
                          'AND current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM ''backfill mirror'' THEN\n'
                          '        NEW.%1$I := NEW.%2$I::%3$s;\n'
                          '    ELSE\n'
                          '        NEW.%2$I := NEW.%1$I::%4$s;\n'
                          '    END IF;\n'
                          '    RETURN NEW;\nEND', old_column, new_column, old_type, new_type));
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
END $$;
COMMENT ON FUNCTION pgmrl.mirror_full_v1(regclass, text, text, text)
    IS 'Installs the triggers that keep two full columns the same while an application moves between them';
