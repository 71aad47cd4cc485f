-- Questions in words for a model outside the database, asked within one statement of any client, read-only ones too.
-- A table cannot carry them: a row is seen by others when its transaction is over, and the statement waits in it. What
-- everybody sees at once, and what is gone with the transaction whatever becomes of it, are advisory locks: shared ones,
-- which block nobody, spell the question in pg_locks. A worker (`pgmrl query serve`) reads it there and stores the answer.
CREATE TABLE pgmrl.questions (
    relation regclass NOT NULL,
    full_column text NOT NULL,
    model text NOT NULL,
    digest bytea NOT NULL,
    vector {vector}.vector,
    error text,
    answered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (relation, full_column, model, digest),
    CHECK ((vector IS NULL) <> (error IS NULL))
);
COMMENT ON TABLE pgmrl.questions IS 'Vectors of the latest questions that were asked in SQL, by `pgmrl query serve`; seen by those who may read the vectors they are for';
COMMENT ON COLUMN pgmrl.questions.digest IS 'SHA-256 of the question: its words are nobody else''s business';
COMMENT ON COLUMN pgmrl.questions.error IS 'Why the model gave no vector';
ALTER TABLE pgmrl.questions ENABLE ROW LEVEL SECURITY;
CREATE POLICY readers ON pgmrl.questions USING (EXISTS (
    SELECT FROM pg_attribute AS a
    WHERE a.attrelid = relation AND a.attname = full_column AND has_column_privilege(relation, a.attnum, 'SELECT')));
GRANT SELECT ON pgmrl.questions TO PUBLIC;

CREATE FUNCTION pgmrl.question_channel_v1(relation regclass, full_column text, model text) RETURNS integer
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$ SELECT hashtext(format('%s %s %s', $1::oid, $2, $3)) $$;
COMMENT ON FUNCTION pgmrl.question_channel_v1(regclass, text, text) IS 'The number by which askers and workers of a column know each other';

-- The locks' first numbers are those of 1346830336 ("PG" and two bytes) and above: 0 for the channel, 1 for the length in
-- bytes, 2 for the begin of the digest, from 3 on four bytes each. A worker holds the one before.
CREATE FUNCTION pgmrl.ask_v1(table_name text, full_column text, model text, words text) RETURNS {vector}.vector
LANGUAGE plpgsql VOLATILE COST 100000
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    asked_relation regclass := to_regclass($1);
    channel integer := pgmrl.question_channel_v1(to_regclass($1), $2, $3);
    message bytea;
    known {vector}.vector;
    answer pgmrl.questions;
    began timestamptz := clock_timestamp();
    seconds double precision := coalesce(nullif(current_setting('pgmrl.question_seconds', true), ''), '5')::double precision;
    served boolean;
BEGIN
    IF $4 IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = 'words is NULL', HINT = 'Give words to look for.';
    ELSIF btrim($4, E' \t\r\n') = '' THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'words is empty', HINT = 'Give words to look for.';
    ELSIF octet_length(convert_to($4, 'UTF8')) > 1000 THEN
        RAISE EXCEPTION 'the question has % bytes', octet_length(convert_to($4, 'UTF8'))
            USING ERRCODE = 'program_limit_exceeded', HINT = 'At most 1000 can be asked: left(words, 250) is the begin of it.';
    END IF;
    message := convert_to($4, 'UTF8');
    SELECT a.vector INTO known FROM (
        SELECT n.vector, 1 AS place FROM pgmrl.queries AS n
        WHERE n.relation = asked_relation AND n.full_column = $2 AND n.question = $4 AND n.embedder = $3
        UNION ALL
        SELECT q.vector, 2 FROM pgmrl.questions AS q
        WHERE q.relation = asked_relation AND q.full_column = $2 AND q.model = $3 AND q.digest = sha256(message) AND q.error IS NULL
    ) AS a ORDER BY a.place LIMIT 1;
    IF FOUND THEN
        RETURN known;
    END IF;
    SELECT EXISTS (
        SELECT FROM pg_locks AS l
        WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2 AND l.classid = 1346830335::oid AND l.objid::bigint::bit(32) = channel::bit(32)
          AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())) INTO served;
    IF NOT served THEN
        RAISE EXCEPTION 'the question is new, and nobody answers new ones for %.%', $1, $2
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = format('Where the model is: `pgmrl query serve %s.%s --embedder %s`, or store this one question by `pgmrl query add`.', $1, $2, $3);
    ELSIF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the question is new, and a transaction that is % does not see its answer', current_setting('transaction_isolation')
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Ask it in READ COMMITTED, the default.';
    END IF;
    BEGIN  -- with this block its locks end, the transaction goes on
        IF NOT (
            SELECT bool_and(pg_try_advisory_xact_lock_shared(1346830336 + p.n, p.value)) FROM (
                SELECT 0 AS n, channel AS value
                UNION ALL SELECT 1, length(message)
                UNION ALL SELECT 2 + b.n, (
                    SELECT (get_byte(m.four, 0) << 24) | (get_byte(m.four, 1) << 16) | (get_byte(m.four, 2) << 8) | get_byte(m.four, 3)
                    FROM (SELECT CASE b.n WHEN 0 THEN substring(sha256(message) FROM 1 FOR 4)
                                 ELSE substring(message || '\x000000'::bytea FROM 4 * b.n - 3 FOR 4) END AS four) AS m)
                FROM generate_series(0, (length(message) + 3) / 4) AS b (n)
            ) AS p) THEN
            RAISE EXCEPTION 'the question cannot be asked now: another session holds an advisory lock that spells it'
                USING ERRCODE = 'lock_not_available', HINT = 'Ask again.';
        END IF;
        WHILE answer.digest IS NULL AND clock_timestamp() < began + make_interval(secs => least(seconds, 60)) LOOP
            PERFORM pg_sleep(0.005);
            SELECT q.* INTO answer FROM pgmrl.questions AS q
            WHERE q.relation = asked_relation AND q.full_column = $2 AND q.model = $3 AND q.digest = sha256(message)
              AND (q.error IS NULL OR q.answered_at >= began);
        END LOOP;
        RAISE EXCEPTION USING ERRCODE = 'PGM01';
    EXCEPTION WHEN SQLSTATE 'PGM01' THEN
        NULL;
    END;
    IF answer.vector IS NOT NULL THEN
        RETURN answer.vector;
    ELSIF answer.error IS NOT NULL THEN
        RAISE EXCEPTION 'the model % gave no vector: %', $3, answer.error USING ERRCODE = 'external_routine_exception';
    END IF;
    RAISE EXCEPTION 'there was no answer within % seconds', seconds
        USING ERRCODE = 'query_canceled',
              HINT = 'Ask again: it may be there by now. SET pgmrl.question_seconds = 20 waits longer, at most 60.';
END $$;
COMMENT ON FUNCTION pgmrl.ask_v1(text, text, text, text) IS 'The vector of a question by a model outside the database: as it is stored, or from a worker';
