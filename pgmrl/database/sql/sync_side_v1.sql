-- A side table holds a copy of the vector and its short one, for those who must not touch the application's table.
CREATE FUNCTION pgmrl.sync_side_v1(
    owner regclass, side regclass, trigger_name text, key_columns text[], full_column text
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, {vector}, pg_temp
AS $$
DECLARE
    place text;
    source text;
    target text;
    listed text := (SELECT string_agg(quote_ident(k), ', ') FROM unnest(key_columns || full_column) AS k);
    given text := (SELECT string_agg('NEW.' || quote_ident(k), ', ') FROM unnest(key_columns || full_column) AS k);
    keys text := (SELECT string_agg(quote_ident(k), ', ') FROM unnest(key_columns) AS k);
BEGIN
    IF row_security_active(owner) THEN
        RAISE EXCEPTION 'row-level security may hide rows of % from %', owner, current_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'Copy them as a role with BYPASSRLS, or while the table has no '
                                                              'FORCE ROW LEVEL SECURITY.';
    END IF;
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO place, source
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = owner;
    SELECT quote_ident(n.nspname) || '.' || quote_ident(c.relname) INTO target
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = side;
    PERFORM pgmrl.refuse_strangers_v1(owner, trigger_name);
    IF EXISTS (SELECT FROM pg_class AS s JOIN pg_class AS c ON c.oid = owner
               WHERE s.oid = side AND s.relowner <> c.relowner AND NOT pgmrl.owns_v1(s.relowner)) THEN
        RAISE EXCEPTION 'side table % belongs to %, not to % or the owner of %', side,
            (SELECT pg_get_userbyid(s.relowner) FROM pg_class AS s WHERE s.oid = side), quote_ident(current_user), owner
            USING ERRCODE = 'insufficient_privilege', HINT = 'Everybody''s vectors would be copied into it: drop it first.';
    END IF;
    -- A table that was renamed keeps the function of its old name.
    IF EXISTS (SELECT FROM pg_trigger AS g WHERE g.tgrelid <> owner AND g.tgparentid = 0
               AND g.tgfoid = to_regprocedure(format('%s.%I()', place, trigger_name))) THEN
        RAISE EXCEPTION 'function %.% copies the vectors of another table', place, quote_ident(trigger_name)
            USING ERRCODE = 'duplicate_function', HINT = 'Rename it (ALTER FUNCTION ... RENAME TO ...), or the side table.';
    END IF;
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql '
                   'SET search_path = pg_catalog, pg_temp AS %L',
                   place, trigger_name,
                   format(E'BEGIN\n    INSERT INTO %s (%s) VALUES (%s)\n    ON CONFLICT (%s) DO UPDATE SET %I = EXCLUDED.%I;\n'
                          '    RETURN NULL;\nEND', target, listed, given, keys, full_column, full_column));
    EXECUTE format('COMMENT ON FUNCTION %s.%I() IS %L', place, trigger_name, format('pgmrl: copies %s into %s', full_column, target));
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %s.%I(%L)',
                   trigger_name, source, place, trigger_name, target);
    -- Not IS DISTINCT FROM: pg_restore has an empty search_path and would not find the vectors' operator.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER UPDATE ON %s FOR EACH ROW '
                   'WHEN (record_image_ne(ROW(OLD.%I), ROW(NEW.%I))) EXECUTE FUNCTION %s.%I(%L)',
                   trigger_name || '_u', source, full_column, full_column, place, trigger_name, target);
    EXECUTE format('INSERT INTO %s (%s) SELECT %s FROM %s ON CONFLICT DO NOTHING', target, listed, listed, source);
END $$;
COMMENT ON FUNCTION pgmrl.sync_side_v1(regclass, regclass, text, text[], text)
    IS 'Installs the triggers that copy a vector into its side table, and copies what is there';
