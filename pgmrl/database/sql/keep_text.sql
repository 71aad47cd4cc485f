-- A vector's column that the database fills from a row's text by itself. The trigger's name sorts before those that
-- shorten the vector. Its arguments are the column, the model and the template.
CREATE FUNCTION pgmrl.keep_text(relation regclass, vector_column text, template text, model text DEFAULT 'static') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    place text;
    target text;
    trigger_name text;
    columns text[];
    texts text;
    dims integer;
    missing text;
BEGIN
    SELECT quote_ident(n.nspname), quote_ident(n.nspname) || '.' || quote_ident(c.relname),
        -- longer than the server takes: cut, with what tells it from others
        CASE WHEN octet_length(c.relname || vector_column) <= 50 THEN format('zt_pgmrl_%s_%s', c.relname, vector_column)
            ELSE 'zt_pgmrl_' || md5(format('%s.%s', c.relname, vector_column)) END
        INTO place, target, trigger_name
    FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace WHERE c.oid = $1;
    IF $3 IS NULL THEN
        EXECUTE format('DROP FUNCTION IF EXISTS %s.%I() CASCADE', place, trigger_name);
        RETURN;
    END IF;
    SELECT array_agg(DISTINCT m.part[1]),
        string_agg(CASE WHEN m.part[1] IS NULL THEN quote_literal(m.part[2]) ELSE format('coalesce(NEW.%I::text, %L)', m.part[1], '') END,
                   ' || ' ORDER BY m.n)
        INTO columns, texts
    FROM regexp_matches(template, '\{([^{}]+)\}|([^{}]+)', 'g') WITH ORDINALITY AS m (part, n);
    columns := array_remove(columns, NULL);
    IF coalesce(cardinality(columns), 0) = 0 OR replace(regexp_replace(template, '\{[^{}]+\}', '', 'g'), '{', '}') LIKE '%}%' THEN
        RAISE EXCEPTION 'the template is %', quote_literal(left(template, 100))
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Write columns in braces, such as {title}: {body}.';
    END IF;
    SELECT m.dims INTO dims FROM pgmrl.models AS m WHERE m.name = model;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no model % in this database', quote_literal(left(model, 60))
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM pgmrl.models lists them; `pgmrl model install` adds one.';
    END IF;
    PERFORM FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid AND t.typname IN ('vector', 'halfvec')
    WHERE a.attrelid = $1 AND a.attname = vector_column AND NOT a.attisdropped AND a.attgenerated = '' AND a.atttypmod IN (dims, -1);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'table % has no column % of type vector(%) or halfvec(%)', $1, quote_ident(left(vector_column, 63)), dims, dims
            USING ERRCODE = 'undefined_column', HINT = format('The vectors of the model %s have %s dimensions.', model, dims);
    END IF;
    SELECT n.name INTO missing FROM unnest(columns) AS n (name)
    WHERE NOT EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = $1 AND a.attname = n.name AND a.attnum > 0
                      AND NOT a.attisdropped AND a.attgenerated = '');
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column % that is written', $1, quote_ident(left(missing, 63))
            USING ERRCODE = 'undefined_column', HINT = 'Name columns of the table that the server does not generate.';
    END IF;
    IF EXISTS (SELECT FROM pgmrl.embeddings AS e WHERE e.relation = $1 AND e.embedding = vector_column) THEN
        RAISE EXCEPTION 'column % of % is kept by the workers of `pgmrl embed`', quote_ident(vector_column), $1
            USING ERRCODE = 'object_in_use', HINT = 'End that first: `pgmrl embed ... --drop`.';
    END IF;
    PERFORM pgmrl.refuse_strangers_v1($1, trigger_name);
    EXECUTE format('CREATE OR REPLACE FUNCTION %s.%I() RETURNS trigger LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS %L',
                   place, trigger_name,
                   format(E'DECLARE\n'
                          '    words text;\n'
                          'BEGIN\n'
                          '    words := %1$s;\n'
                          '    IF %2$s THEN\n'
                          '        NEW.%3$I := NULL;\n'
                          '    ELSE\n'
                          '        NEW.%3$I := pgmrl.embed_text(%4$L, words);\n'
                          '    END IF;\n'
                          '    RETURN NEW;\n'
                          'EXCEPTION WHEN undefined_column THEN\n'
                          '    RAISE EXCEPTION ''a column of %% was renamed: %%'', TG_RELID::regclass, SQLERRM\n'
                          '        USING ERRCODE = ''undefined_column'', HINT = ''Call pgmrl.keep_text again with the names that are.'';\n'
                          'END', texts,
                          (SELECT string_agg(format('btrim(coalesce(NEW.%I::text, %L), E'' \t\r\n'') = %L', name, '', ''), ' AND ') FROM unnest(columns) AS name),
                          vector_column, model));
    EXECUTE format('COMMENT ON FUNCTION %s.%I() IS %L', place, trigger_name, format('pgmrl: embeds %s into %s', template, vector_column));
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION %s.%I(%L, %L, %L)',
                   trigger_name, target, place, trigger_name, vector_column, model, template);
    -- Not IS DISTINCT FROM: pg_restore has an empty search_path and would not find the vectors' operator.
    EXECUTE format('CREATE OR REPLACE TRIGGER %I BEFORE UPDATE ON %s FOR EACH ROW '
                   'WHEN (NEW.%I IS NULL OR record_image_ne(ROW(%s), ROW(%s))) EXECUTE FUNCTION %s.%I(%L, %L, %L)',
                   trigger_name || '_u', target, vector_column,
                   (SELECT string_agg(format('OLD.%I', name), ', ') FROM unnest(columns || vector_column) AS name),
                   (SELECT string_agg(format('NEW.%I', name), ', ') FROM unnest(columns || vector_column) AS name),
                   place, trigger_name, vector_column, model, template);
END $$;
COMMENT ON FUNCTION pgmrl.keep_text(regclass, text, text, text)
    IS 'Has a table embed its own text into a column, whoever writes; a NULL template ends it';
