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
    full_type text := coalesce((SELECT format_type(a.atttypid, a.atttypmod) FROM pg_attribute AS a WHERE a.attrelid = owner
                                AND a.attname = full_column AND a.attnum > 0 AND NOT a.attisdropped), 'text');
    earlier regprocedure;
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
    -- A table that was renamed keeps the function of its old name, which the next table of that name must not replace.
    IF EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgrelid <> owner AND g.tgparentid = 0
               AND g.tgfoid = to_regprocedure(format('%s.%I()', place, trigger_name))) THEN
        trigger_name := pgmrl.other_name_v1(trigger_name, owner);
    END IF;
    PERFORM pgmrl.refuse_strangers_v1(owner, trigger_name);
    -- Where a column was renamed, the record has none of the name in this text: the condition knows its name now.
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql '
                   'SET search_path = pg_catalog, {vector}, pg_temp AS %L',
                   place, trigger_name,
                   format(CASE WHEN EXISTS (SELECT FROM pg_extension AS e WHERE e.extname = 'citus') THEN
                          -- no EXCEPTION: its savepoint would go to the other nodes in the middle of a COPY to them
                          E'DECLARE\n'
                          '    names text[] := pgmrl.watched_columns_v1(TG_RELID, TG_NAME);\n'
                          '    full_vector %3$s;\n'
                          'BEGIN\n'
                          '    IF names = %5$L::text[] THEN\n'
                          '        NEW.%1$I := %2$s;\n'
                          '        RETURN NEW;\n'
                          '    END IF;\n'
                          '    EXECUTE format(''SELECT ($1).%%I'', names[2]) INTO full_vector USING NEW;\n'
                          '    RETURN jsonb_populate_record(NEW, jsonb_build_object(names[1], (%4$s)::text));\n'
                          'END'
                          ELSE
                          E'DECLARE\n'
                          '    names text[];\n'
                          '    full_vector %3$s;\n'
                          'BEGIN\n'
                          '    NEW.%1$I := %2$s;\n'
                          '    RETURN NEW;\n'
                          'EXCEPTION WHEN undefined_column THEN\n'
                          '    names := pgmrl.watched_columns_v1(TG_RELID, TG_NAME);\n'
                          '    EXECUTE format(''SELECT ($1).%%I'', names[2]) INTO full_vector USING NEW;\n'
                          '    RETURN jsonb_populate_record(NEW, jsonb_build_object(names[1], (%4$s)::text));\n'
                          'END' END, short_column, expression, full_type,
                          replace(replace(expression, 'NEW.' || full_column, 'full_vector'),
                                  'NEW."' || replace(full_column, '"', '""') || '"', 'full_vector'),
                          ARRAY[short_column, full_column]::text));
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
    -- what kept the column before under another name, its own or its table's
    FOR earlier IN
        SELECT DISTINCT g.tgfoid FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid
        WHERE g.tgrelid = owner AND p.proname LIKE 'zz\_pgmrl\_%' AND g.tgnargs = 4
          AND p.oid <> to_regprocedure(format('%s.%I()', place, trigger_name))
          AND (pgmrl.watched_columns_v1(owner, g.tgname))[1] = short_column
    LOOP
        EXECUTE format('DROP FUNCTION %s CASCADE', earlier);
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmrl.sync_short_v1(regclass, text, text, text, text, text, text)
    IS 'Installs the triggers that keep a plain short column in step';
