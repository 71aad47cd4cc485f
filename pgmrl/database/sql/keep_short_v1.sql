-- Triggers that keep a rotated short column in step, whoever writes. The trigger's arguments say which columns and
-- which rotation: the catalogue is the truth.
CREATE FUNCTION pgmrl.keep_short_v1(
    owner regclass, keeper text, full_column text, short_column text, rotation text, metric text, expression text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, {vector}, pg_temp
AS $$
DECLARE
    place text;
    target text;
BEGIN
    PERFORM FROM pgmrl.rotations AS r WHERE r.id = rotation;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'rotation % is not installed', rotation
            USING ERRCODE = 'undefined_object', HINT = 'Install it with `pgmrl fit` or the migration that carries its file.';
    END IF;
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place, target
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner;
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql '
                   'SET search_path = pg_catalog, {vector}, pg_temp AS %L',
                   place, keeper,
                   format(E'BEGIN\n    NEW.%I := %s;\n    RETURN NEW;\nEND', short_column, expression));
    EXECUTE format('COMMENT ON FUNCTION %s.%I() IS %L', place, keeper,
                   format('pgmrl: keeps %s in step with %s', short_column, full_column));
    -- A loader that computed the short vectors with the same axes names the rotation in pgmrl.computed_by. A row that
    -- comes without one all the same was written by something else: a trigger of the application's, for example.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT ON %s FOR EACH ROW '
                   'WHEN ((NEW.%I IS NULL AND NEW.%I IS NOT NULL) '
                   'OR current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM %L) '
                   'EXECUTE FUNCTION %s.%I(%L, %L, %L, %L)',
                   keeper, target, short_column, full_column, rotation, place, keeper, full_column, short_column, rotation, metric);
    -- Not UPDATE OF: that would miss a vector changed by another trigger.
    -- Not IS DISTINCT FROM: pg_restore has an empty search_path and would not find the vectors' operator.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE UPDATE ON %s FOR EACH ROW '
                   'WHEN (record_image_ne(ROW(OLD.%I, OLD.%I), ROW(NEW.%I, NEW.%I)) '
                   'AND (record_image_eq(ROW(OLD.%I), ROW(NEW.%I)) '
                   'OR current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM %L)) '
                   'EXECUTE FUNCTION %s.%I(%L, %L, %L, %L)',
                   keeper || '_u', target, full_column, short_column, full_column, short_column,
                   short_column, short_column, rotation, place, keeper, full_column, short_column, rotation, metric);
END $$;
COMMENT ON FUNCTION pgmrl.keep_short_v1(regclass, text, text, text, text, text, text)
    IS 'Installs the triggers that keep a rotated short column in step';
