-- Triggers that keep a plain short column in step, whoever writes: for a rotation, and for a prefix that was added online.
-- The trigger's arguments say which columns and which rule ('prefix' or a rotation's id): the catalogue is the truth.
-- An UPDATE of a row that a backfill has not reached yet fills it, so that a row whose key moves from the part still to be
-- filled into the part already filled is not lost.
CREATE FUNCTION pgmrl.sync_short_v1(
    owner regclass, trigger_name text, full_column text, short_column text, rule text, metric text, expression text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, {vector}, pg_temp
AS $$
DECLARE
    place text;
    target text;
BEGIN
    IF rule <> 'prefix' THEN
        PERFORM FROM pgmrl.rotations AS r WHERE r.id = rule;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'rotation % is not installed', rule
                USING ERRCODE = 'undefined_object', HINT = 'Install it with `pgmrl fit-rotation` or the migration that carries its file.';
        END IF;
    END IF;
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place, target
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner;
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql '
                   'SET search_path = pg_catalog, {vector}, pg_temp AS %L',
                   place, trigger_name,
                   format(E'BEGIN\n    NEW.%I := %s;\n    RETURN NEW;\nEND', short_column, expression));
    EXECUTE format('COMMENT ON FUNCTION %s.%I() IS %L', place, trigger_name,
                   format('pgmrl: keeps %s in step with %s', short_column, full_column));
    -- A loader that computed the short vectors by the same rule names it in pgmrl.computed_by. A row that comes without
    -- one all the same was written by something else: a trigger of the application's, for example.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT ON %s FOR EACH ROW '
                   'WHEN ((NEW.%I IS NULL AND NEW.%I IS NOT NULL) '
                   'OR current_setting(''pgmrl.computed_by'', true) IS DISTINCT FROM %L) '
                   'EXECUTE FUNCTION %s.%I(%L, %L, %L, %L)',
                   trigger_name, target, short_column, full_column, rule, place, trigger_name, full_column, short_column, rule, metric);
    -- A backfill ('backfill <rule>') answers for the short vector of the full one it read: where another trigger of the
    -- application's changes that in the same statement, it is computed once more.
    -- Not UPDATE OF: that would miss a vector changed by another trigger.
    -- Not IS DISTINCT FROM: pg_restore has an empty search_path and would not find the vectors' operator.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE UPDATE ON %s FOR EACH ROW '
                   'WHEN ((NEW.%I IS NULL AND NEW.%I IS NOT NULL) '
                   'OR (record_image_ne(ROW(OLD.%I, OLD.%I), ROW(NEW.%I, NEW.%I)) '
                   'AND (record_image_eq(ROW(OLD.%I), ROW(NEW.%I)) '
                   'OR coalesce(current_setting(''pgmrl.computed_by'', true), '''') NOT IN (%L, '
                   'CASE WHEN record_image_eq(ROW(OLD.%I), ROW(NEW.%I)) THEN %L ELSE %L END)))) '
                   'EXECUTE FUNCTION %s.%I(%L, %L, %L, %L)',
                   trigger_name || '_u', target, short_column, full_column,
                   full_column, short_column, full_column, short_column,
                   short_column, short_column, rule, full_column, full_column, 'backfill ' || rule, rule,
                   place, trigger_name, full_column, short_column, rule, metric);
END $$;
COMMENT ON FUNCTION pgmrl.sync_short_v1(regclass, text, text, text, text, text, text)
    IS 'Installs the triggers that keep a plain short column in step';
