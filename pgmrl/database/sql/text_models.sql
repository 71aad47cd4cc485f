-- Static models: a text's vector is the mean of its tokens' vectors, so that a table of tokens is the whole model. The
-- tokens are found by byte-pair encoding without a pre-tokenizer, as the tokenizer.json of Llama 2 describes it.
CREATE TABLE pgmrl.models (
    name text PRIMARY KEY CHECK (name ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$'),
    hash text NOT NULL,
    dims integer NOT NULL,
    tokens integer NOT NULL,
    space text NOT NULL,
    pieces text NOT NULL,
    letters integer[] NOT NULL,
    special text[] NOT NULL,
    unknown text,
    installed_at timestamptz NOT NULL DEFAULT now(),
    installed_by text NOT NULL DEFAULT current_user
);
COMMENT ON TABLE pgmrl.models IS 'Models that embed text in this database, filled by `pgmrl model install`; see pgmrl.embed_text';
COMMENT ON COLUMN pgmrl.models.hash IS 'Of tokens, vectors and merges: what pgmrl.model_hash_v1 computes from the tables';
COMMENT ON COLUMN pgmrl.models.space IS 'The normaliser: stands for each space, and before the text';
COMMENT ON COLUMN pgmrl.models.pieces IS 'A regular expression of what is encoded by itself: words with the spaces before them, and signs';
COMMENT ON COLUMN pgmrl.models.letters IS 'The tokens of the characters 1 to 127, which need no look-up';
COMMENT ON COLUMN pgmrl.models.special IS 'Tokens that are found in a text before all others';
COMMENT ON COLUMN pgmrl.models.unknown IS 'The special token that has no part in a vector';

CREATE TABLE pgmrl.tokens (
    model text COLLATE "C" NOT NULL REFERENCES pgmrl.models (name) ON DELETE CASCADE,
    id integer NOT NULL,
    token text COLLATE "C" NOT NULL,
    whole boolean NOT NULL,
    vector {vector}.halfvec NOT NULL,
    -- numbers and tokens before the model, which is the same in all rows and would only be compared
    PRIMARY KEY (id, model),
    UNIQUE (token, model)
);
COMMENT ON TABLE pgmrl.tokens IS 'The vocabulary of each model';
COMMENT ON COLUMN pgmrl.tokens.whole IS 'Whether the token''s text is encoded as this token: usual words need one look-up and no merges';

CREATE TABLE pgmrl.merges (
    model text COLLATE "C" NOT NULL REFERENCES pgmrl.models (name) ON DELETE CASCADE,
    left_id integer NOT NULL,
    right_id integer NOT NULL,
    rank integer NOT NULL,
    merged_id integer NOT NULL,
    PRIMARY KEY (left_id, right_id, model)
);
COMMENT ON TABLE pgmrl.merges IS 'Which two neighbouring tokens become one; the smallest rank first';

CREATE TABLE pgmrl.joints (
    model text COLLATE "C" NOT NULL REFERENCES pgmrl.models (name) ON DELETE CASCADE,
    letters text COLLATE "C" NOT NULL,
    PRIMARY KEY (letters, model)
);
COMMENT ON TABLE pgmrl.joints IS 'The two characters at the joint of each merge: between any other two a text can be cut before it is encoded';
-- A model is no secret of its database: whoever embeds a text reads it with his own rights.
GRANT SELECT ON pgmrl.models, pgmrl.tokens, pgmrl.merges, pgmrl.joints TO PUBLIC;

CREATE FUNCTION pgmrl.model_hash_v1(model text) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- halfvec_send begins with two 16-bit integers (dimensions, unused), then the values, most significant byte first
    SELECT left(encode(sha256(
        (SELECT string_agg(convert_to(format(E'%s %s %s\n', t.id, t.whole::integer, t.token), 'UTF8')
                           || substring({vector}.halfvec_send(t.vector) FROM 5), ''::bytea ORDER BY t.id)
         FROM pgmrl.tokens AS t WHERE t.model = $1)
        || coalesce((SELECT convert_to(string_agg(format(E'%s %s %s\n', m.left_id, m.right_id, m.merged_id), '' ORDER BY m.rank), 'UTF8')
                     FROM pgmrl.merges AS m WHERE m.model = $1), '')
        || coalesce((SELECT convert_to(string_agg(j.letters, E'\n' ORDER BY j.letters), 'UTF8') FROM pgmrl.joints AS j WHERE j.model = $1), '')
        || coalesce((SELECT convert_to(concat_ws(E'\n', m.space, m.pieces, array_to_string(m.letters, ' '), array_to_string(m.special, E'\n'), m.unknown), 'UTF8')
                     FROM pgmrl.models AS m WHERE m.name = $1), '')), 'hex'), 16)
$$;
COMMENT ON FUNCTION pgmrl.model_hash_v1(text) IS 'The hash that a model has by what is stored of it';

CREATE FUNCTION pgmrl.guard_model_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    users text;
BEGIN
    IF TG_OP = 'DELETE' THEN
        SELECT string_agg(u.title, ', ' ORDER BY u.title) INTO users FROM (
            SELECT format('the functions %s.%s_…', s.function_schema, s.marker ->> 'name') AS title
            FROM pgmrl.function_sets AS s WHERE s.marker ->> 'model' = OLD.name
            UNION ALL
            SELECT 'the trigger that keeps ' || g.tgrelid::regclass
            FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname LIKE 'zt\_pgmrl\_%'
            WHERE NOT g.tgisinternal AND (string_to_array(replace(encode(g.tgargs, 'escape'), '\000', E'\x01'), E'\x01'))[2] = OLD.name
        ) AS u;
        IF users IS NULL THEN
            RETURN OLD;
        END IF;
        RAISE EXCEPTION 'the model % is in use by %', OLD.name, users
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop the functions (`pgmrl functions drop`) and end the keeping '
                                                                    '(`pgmrl model keep ... --stop`) first.';
    END IF;
    RAISE EXCEPTION 'a model cannot be changed'
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Remove it, or install the other one under another name.';
END $$;
COMMENT ON FUNCTION pgmrl.guard_model_v1() IS 'Refuses changes to models, and the removal of one in use';
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON pgmrl.models
    FOR EACH ROW EXECUTE FUNCTION pgmrl.guard_model_v1();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON pgmrl.models
    FOR EACH STATEMENT EXECUTE FUNCTION pgmrl.guard_model_v1();

-- All pieces of a text in one statement: to begin one takes as long as a usual word does. What a step has is kept to the
-- end of its statement, so that a long piece has one of its own. Each look-up is a sub-SELECT: never a scan of all merges.
CREATE FUNCTION pgmrl.byte_pairs_v1(model text, pieces text[], cut boolean) RETURNS TABLE (piece text, ids integer[])
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    chunk text[];
    longest text;
    letters integer[];
BEGIN
    SELECT u.s INTO longest FROM unnest($2) AS u (s) ORDER BY length(u.s) DESC LIMIT 1;
    IF $3 AND length(longest) > 40 THEN
        RETURN QUERY SELECT l.piece, l.ids FROM pgmrl.long_pieces_v1(
            $1, ARRAY(SELECT DISTINCT u.s FROM unnest($2) AS u (s) WHERE length(u.s) > 40)) AS l;
    ELSIF length(longest) > 1000 THEN
        RAISE EXCEPTION 'a word has % characters: %…', length(longest), left(longest, 20)
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Put spaces into it, or leave it out: at most 1000 can be encoded.';
    END IF;
    SELECT m.letters INTO letters FROM pgmrl.models AS m WHERE m.name = $1;
    FOR chunk IN
        SELECT array_agg(d.s)
        FROM (SELECT u.s, row_number() OVER () AS n FROM unnest($2) AS u (s) WHERE length(u.s) <= 40 OR NOT $3 GROUP BY u.s) AS d
        GROUP BY CASE WHEN length(d.s) > 40 THEN d.n ELSE 0 END, d.n / 100
    LOOP
        RETURN QUERY
        WITH RECURSIVE spelled AS MATERIALIZED (
            SELECT c.s, ARRAY(SELECT CASE WHEN ascii(l.letter) < 128 THEN letters[ascii(l.letter)] ELSE (
                                  SELECT t.id FROM pgmrl.tokens AS t WHERE t.token = l.letter AND t.model = $1) END
                              FROM string_to_table(c.s, NULL) WITH ORDINALITY AS l (letter, n) ORDER BY l.n) AS tokens
            FROM unnest(chunk) AS c (s)
        ), begun AS MATERIALIZED (
            SELECT l.s, CASE WHEN array_position(l.tokens, NULL) IS NULL THEN l.tokens ELSE ARRAY(
                -- a character that is no token: its bytes
                SELECT coalesce(l.tokens[c.n], (SELECT t.id FROM pgmrl.tokens AS t WHERE t.model = $1 AND t.token = format(
                    '<0x%s>', upper(encode(substring(convert_to(c.letter, 'UTF8') FROM b.n FOR 1), 'hex')))))
                FROM string_to_table(l.s, NULL) WITH ORDINALITY AS c (letter, n) CROSS JOIN LATERAL generate_series(
                    1, CASE WHEN l.tokens[c.n] IS NULL THEN octet_length(c.letter) ELSE 1 END) AS b (n)
                ORDER BY c.n, b.n) END AS tokens
            FROM spelled AS l
        ), merged (s, tokens, merges, best) AS (
            -- of each two neighbours the rank and what they become, in one number; NULL where they are not merged
            SELECT i.s, i.tokens, i.merges, (SELECT min(u.v) FROM unnest(i.merges) AS u (v))
            FROM (SELECT b.s, b.tokens, ARRAY(
                      SELECT (SELECT m.rank::bigint << 32 | m.merged_id FROM pgmrl.merges AS m
                              WHERE m.left_id = p.left_id AND m.right_id = p.right_id AND m.model = $1)
                      FROM unnest(b.tokens[1:cardinality(b.tokens) - 1], b.tokens[2:]) WITH ORDINALITY AS p (left_id, right_id, n)
                      ORDER BY p.n) AS merges
                  FROM begun AS b OFFSET 0) AS i
            UNION ALL
            -- the first of the smallest rank: two tokens become one, and only its neighbours are looked up again
            SELECT i.s, i.tokens, i.merges, (SELECT min(u.v) FROM unnest(i.merges) AS u (v))
            FROM (SELECT o.s, o.tokens[1:o.n - 1] || o.merged_id || o.tokens[o.n + 2:] AS tokens,
                      o.merges[1:o.n - 2]
                      || CASE WHEN o.n > 1 THEN ARRAY[(
                          SELECT m.rank::bigint << 32 | m.merged_id FROM pgmrl.merges AS m
                          WHERE m.left_id = o.tokens[o.n - 1] AND m.right_id = o.merged_id AND m.model = $1)] END
                      || CASE WHEN o.n < cardinality(o.merges) THEN ARRAY[(
                          SELECT m.rank::bigint << 32 | m.merged_id FROM pgmrl.merges AS m
                          WHERE m.left_id = o.merged_id AND m.right_id = o.tokens[o.n + 2] AND m.model = $1)] END
                      || o.merges[o.n + 2:] AS merges
                  FROM (SELECT r.s, r.tokens, r.merges, array_position(r.merges, r.best) AS n,
                            (r.best & 4294967295)::integer AS merged_id
                        FROM merged AS r WHERE r.best IS NOT NULL OFFSET 0) AS o OFFSET 0) AS i
        )
        SELECT e.s, e.tokens FROM merged AS e WHERE e.best IS NULL;
    END LOOP;
END $$;
COMMENT ON FUNCTION pgmrl.byte_pairs_v1(text, text[], boolean)
    IS 'The tokens of parts of a text that are no tokens themselves, by merges; long ones may be cut first';

-- Nested loops off, here and below: how many pieces a text has is known to nobody, and a long one would be joined with
-- itself. What is off costs so much before PostgreSQL 18 that everything would be compiled. Generic plans where it
-- begins: short arrays make others look cheaper, and each text would be planned anew, which takes as long as to embed it.
CREATE FUNCTION pgmrl.long_pieces_v1(model text, pieces text[]) RETURNS TABLE (piece text, ids integer[])
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 10000 ROWS 10
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET jit = off
AS $$
BEGIN
    RETURN QUERY
    WITH parts AS MATERIALIZED (
        -- from here on by number: a long one is not copied for each of its letters
        SELECT u.part, u.number FROM unnest($2) WITH ORDINALITY AS u (part, number)
    ), letters AS (
        SELECT p.number, s.letter, s.n, lag(s.letter) OVER (PARTITION BY p.number ORDER BY s.n) || s.letter AS pair
        FROM parts AS p CROSS JOIN LATERAL string_to_table(p.part, NULL) WITH ORDINALITY AS s (letter, n)
    ), segments AS MATERIALIZED (
        SELECT c.number, c.place, string_agg(c.letter, '' ORDER BY c.n) COLLATE "C" AS segment
        FROM (SELECT l.number, l.letter, l.n, count(*) FILTER (WHERE l.cut) OVER (PARTITION BY l.number ORDER BY l.n) AS place
              FROM (SELECT l.number, l.letter, l.n,
                        (SELECT true FROM pgmrl.joints AS j WHERE j.letters = l.pair AND j.model = $1) IS NULL AS cut
                    FROM letters AS l) AS l) AS c
        GROUP BY c.number, c.place
    ), distinct_segments AS MATERIALIZED (
        SELECT d.segment, (SELECT t.id FROM pgmrl.tokens AS t WHERE t.token = d.segment AND t.model = $1 AND t.whole) AS id
        FROM (SELECT DISTINCT s.segment FROM segments AS s) AS d
    ), encoded AS MATERIALIZED (
        SELECT d.segment, ARRAY[d.id] AS tokens FROM distinct_segments AS d WHERE d.id IS NOT NULL
        UNION ALL
        SELECT b.piece COLLATE "C", b.ids
        FROM pgmrl.byte_pairs_v1($1, ARRAY(SELECT d.segment FROM distinct_segments AS d WHERE d.id IS NULL), false) AS b
    )
    SELECT p.part, a.tokens
    FROM parts AS p JOIN (
        SELECT s.number, array_agg(u.id ORDER BY s.place, u.place) AS tokens
        FROM segments AS s JOIN encoded AS e ON e.segment = s.segment CROSS JOIN LATERAL unnest(e.tokens) WITH ORDINALITY AS u (id, place)
        GROUP BY s.number
    ) AS a ON a.number = p.number;
END $$;
COMMENT ON FUNCTION pgmrl.long_pieces_v1(text, text[]) IS 'The same of long parts, which are cut first where no merge joins two characters';

CREATE FUNCTION pgmrl.model_v1(model text, words text) RETURNS pgmrl.models
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    installed pgmrl.models;
BEGIN
    SELECT m.* INTO installed FROM pgmrl.models AS m WHERE m.name = $1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no model % in this database', quote_literal(left($1, 60))
            USING ERRCODE = 'undefined_object', HINT = 'SELECT name FROM pgmrl.models lists them; `pgmrl model install` adds one.';
    ELSIF octet_length($2) > 1048576 THEN
        RAISE EXCEPTION 'the text has % bytes', octet_length($2)
            USING ERRCODE = 'program_limit_exceeded', HINT = 'At most 1048576 can be embedded: left(text, 100000) is the begin of one.';
    END IF;
    RETURN installed;
END $$;
COMMENT ON FUNCTION pgmrl.model_v1(text, text) IS 'What is known of a model that a text can be embedded with';

CREATE FUNCTION pgmrl.token_ids_v1(model text, words text) RETURNS integer[]
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    installed pgmrl.models := pgmrl.model_v1($1, $2);
    special_token text;
    pieces text[];
    ids integer[];
BEGIN
    IF $2 = '' THEN
        RETURN '{}';
    END IF;
    FOREACH special_token IN ARRAY installed.special LOOP
        IF strpos($2, special_token) > 0 THEN
            -- each part is a text of its own
            RETURN ARRAY(SELECT u.id
                         FROM string_to_table($2, special_token) WITH ORDINALITY AS p (part, n)
                         CROSS JOIN LATERAL unnest(
                             ARRAY(SELECT t.id FROM pgmrl.tokens AS t WHERE t.model = $1 AND t.token = special_token
                                   AND p.n > 1 AND t.token IS DISTINCT FROM installed.unknown)
                             || pgmrl.token_ids_v1($1, p.part)) WITH ORDINALITY AS u (id, place)
                         ORDER BY p.n, u.place);
        END IF;
    END LOOP;
    SELECT array_agg(p.piece ORDER BY p.n), array_agg(p.id ORDER BY p.n) INTO pieces, ids
    FROM (SELECT m.piece[1] COLLATE "C" AS piece, m.n,
              (SELECT t.id FROM pgmrl.tokens AS t WHERE t.token = m.piece[1] AND t.model = $1 AND t.whole) AS id
          FROM regexp_matches((installed.space || replace($2, ' ', installed.space)) COLLATE "C", installed.pieces, 'g')
              WITH ORDINALITY AS m (piece, n) OFFSET 0) AS p;
    RETURN ARRAY(
        SELECT u.id
        FROM unnest(pieces, ids) WITH ORDINALITY AS p (piece, id, n)
        -- not called where there are none
        LEFT JOIN pgmrl.byte_pairs_v1($1, (SELECT array_agg(r.piece) FROM unnest(pieces, ids) AS r (piece, id) WHERE r.id IS NULL), true) AS b
            ON b.piece = p.piece
        CROSS JOIN LATERAL unnest(coalesce(b.ids, ARRAY[p.id])) WITH ORDINALITY AS u (id, place)
        ORDER BY p.n, u.place);
END $$;
COMMENT ON FUNCTION pgmrl.token_ids_v1(text, text) IS 'The tokens of a text, in order';

-- Not immutable: it reads the model, which a restore loads when it likes. pgmrl.keep_text does the work of a generated column.
-- The order of the tokens means nothing here: a usual word is one look-up, which has its vector.
CREATE FUNCTION pgmrl.embed_text(model text, words text) RETURNS {vector}.vector
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE COST 5000
SET search_path = pg_catalog, pg_temp
SET enable_nestloop = off
SET jit = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    installed pgmrl.models := pgmrl.model_v1($1, $2);
    total {vector}.vector;
    pieces text[];
    ids integer[];
BEGIN
    IF EXISTS (SELECT FROM unnest(installed.special) AS s (token) WHERE strpos($2, s.token) > 0) OR $2 = '' THEN
        ids := pgmrl.token_ids_v1($1, $2);
    ELSE
        SELECT {vector}.sum(p.vector), array_agg(p.piece) FILTER (WHERE p.vector IS NULL) INTO total, pieces
        FROM (SELECT m.piece[1] COLLATE "C" AS piece, (SELECT t.vector::{vector}.vector FROM pgmrl.tokens AS t
                                                       WHERE t.token = m.piece[1] AND t.model = $1 AND t.whole) AS vector
              FROM regexp_matches((installed.space || replace($2, ' ', installed.space)) COLLATE "C", installed.pieces, 'g')
                  AS m (piece) OFFSET 0) AS p;
        IF pieces IS NOT NULL THEN
            ids := ARRAY(SELECT u.id FROM unnest(pieces) AS p (piece) JOIN pgmrl.byte_pairs_v1($1, pieces, true) AS b ON b.piece = p.piece
                         CROSS JOIN LATERAL unnest(b.ids) AS u (id));
        END IF;
    END IF;
    IF ids IS NOT NULL THEN
        SELECT {vector}.sum(a.vector) INTO total
        FROM (SELECT total AS vector
              UNION ALL
              SELECT (SELECT t.vector::{vector}.vector FROM pgmrl.tokens AS t WHERE t.id = u.id AND t.model = $1)
              FROM unnest(ids) AS u (id)) AS a;
    END IF;
    -- of the mean's direction
    IF total IS NULL OR {vector}.vector_norm(total) = 0 THEN
        RAISE EXCEPTION 'the text %has a zero vector: no token of the model % is in it', CASE WHEN $2 = '' THEN 'is empty and ' ELSE '' END, $1
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use other words. A row without text has no vector: leave it NULL.';
    END IF;
    RETURN {vector}.l2_normalize(total);
END $$;
COMMENT ON FUNCTION pgmrl.embed_text(text, text) IS 'The vector of a text, of unit length, by a model of pgmrl.models';

CREATE FUNCTION pgmrl.embed_question_v1(model text, words text) RETURNS {vector}.vector
LANGUAGE plpgsql STABLE PARALLEL SAFE COST 5000
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF $2 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'words is NULL', HINT = 'Give words to look for.';
    ELSIF btrim($2, E' \t\r\n') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'words is empty', HINT = 'Give words to look for.';
    END IF;
    RETURN pgmrl.embed_text($1, $2);
END $$;
COMMENT ON FUNCTION pgmrl.embed_question_v1(text, text) IS 'The vector of a question; an error where there is none';
