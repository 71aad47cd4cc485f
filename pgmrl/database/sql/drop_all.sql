-- Everything of pgmrl's but the schema itself, in which Alembic keeps its version.
-- A function's body is plain text to the server, which would let its parts be dropped under it: look first.
DO $$
DECLARE
    synced text := (SELECT string_agg(DISTINCT g.tgrelid::regclass::text, ', ')
                    FROM pg_trigger AS g JOIN pg_proc AS p ON p.oid = g.tgfoid AND p.proname ~ '^z[zt]_pgmrl_');
    installed text := (SELECT string_agg(DISTINCT s.function_schema || '.' || (s.marker ->> 'name') || '_…', ', ')
                       FROM pgmrl.function_sets AS s);
    chunked text := (SELECT string_agg(DISTINCT t.relation::text, ', ') FROM pgmrl.chunk_tables AS t);
    embedded text := (SELECT string_agg(DISTINCT e.relation::text, ', ') FROM pgmrl.embeddings AS e);
BEGIN
    IF installed IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl is in use by the functions %', installed
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop them first (op.drop_functions, or `pgmrl functions drop`).';
    ELSIF embedded IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl is in use by the embeddings of %', embedded
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop their triggers first (op.drop_embedding, or `pgmrl embed --drop`).';
    ELSIF chunked IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl is in use by the chunks of %', chunked
            USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop their triggers first (op.drop_chunks, or `pgmrl chunk --drop`).';
    ELSIF synced IS NOT NULL THEN
        RAISE EXCEPTION 'pgmrl is in use by the triggers of %', synced
            USING ERRCODE = 'dependent_objects_still_exist',
                  HINT = 'Drop the short columns there that triggers keep in step (op.drop_short), and the side tables, first; '
                         'where a trigger embeds text, SELECT pgmrl.keep_text(table, column, NULL).';
    END IF;
END $$;
DROP FUNCTION pgmrl.drop_embedding_v1(regclass, text);
DROP FUNCTION pgmrl.queue_embeddings_v1(regclass, text, boolean);
DROP FUNCTION pgmrl.keep_embedding_v1(regclass, text, text, text[], text, text, boolean);
DROP FUNCTION pgmrl.rewriting_triggers_v1(regclass, text[]);
DROP FUNCTION pgmrl.marking_function_v1(regclass, text, text, text[], text, boolean);
DROP FUNCTION pgmrl.queue_rows_v1(regclass, text, text);
DROP VIEW pgmrl.parked_embeddings;
DROP VIEW pgmrl.embedding_status;
DROP VIEW pgmrl.embeddings;
DROP FUNCTION pgmrl.drop_chunks_v1(regclass);
DROP FUNCTION pgmrl.queue_chunks_v1(regclass);
DROP FUNCTION pgmrl.keep_chunks_v1(regclass, text, text[], text, text, integer, integer, boolean);
DROP FUNCTION pgmrl.end_chunks_v1(regclass, regclass, regprocedure, text);
DROP FUNCTION pgmrl.chunk_parent_v1(regclass);
DROP VIEW pgmrl.chunk_tables;
DROP TABLE pgmrl.embedding_queue;
DROP FUNCTION pgmrl.keep_text(regclass, text, text, text);
DROP FUNCTION pgmrl.embed_question_v1(text, text);
DROP FUNCTION pgmrl.embed_text(text, text);
DROP FUNCTION pgmrl.token_ids_v1(text, text);
DROP FUNCTION pgmrl.long_pieces_v1(text, text[]);
DROP FUNCTION pgmrl.byte_pairs_v1(text, text[], boolean);
DROP FUNCTION pgmrl.model_hash_v1(text);
DROP FUNCTION pgmrl.model_v1(text, text);
DROP TABLE pgmrl.joints, pgmrl.merges, pgmrl.tokens, pgmrl.models;
DROP FUNCTION pgmrl.guard_model_v1();
DROP VIEW pgmrl.health;
DROP TABLE pgmrl.recall_history;
DROP TABLE pgmrl.settings;
DROP FUNCTION pgmrl.prepare_functions_v1(text, jsonb);
DROP FUNCTION pgmrl.drop_functions_v1(text, text);
DROP FUNCTION pgmrl.functions_of_v1(oid);
DROP FUNCTION pgmrl.views_of_v1(oid);
DROP FUNCTION pgmrl.gave_up_v1(text, bigint);
DROP VIEW pgmrl.functions;
DROP VIEW pgmrl.function_sets;
DROP FUNCTION pgmrl.marker_v1(text);
DROP FUNCTION pgmrl.ask_v1(text, text, text, text);
DROP FUNCTION pgmrl.question_channel_v1(regclass, text, text);
DROP TABLE pgmrl.questions;
DROP FUNCTION pgmrl.query_v1(text, text, text);
DROP TABLE pgmrl.queries;
DROP VIEW pgmrl.backfill_progress;
DROP TABLE pgmrl.backfill_ranges;
DROP TABLE pgmrl.backfills;
DROP VIEW pgmrl.columns;
DROP FUNCTION pgmrl.other_name_v1(text, regclass);
DROP FUNCTION pgmrl.refuse_strangers_v1(regclass, text);
DROP FUNCTION pgmrl.owns_v1(oid);
DROP FUNCTION pgmrl.mirror_full_v1(regclass, text, text, text);
DROP FUNCTION pgmrl.sync_side_v1(regclass, regclass, text, text[], text);
DROP FUNCTION pgmrl.sync_short_v1(regclass, text, text, text, text, text, text);
DROP FUNCTION pgmrl.watched_columns_v1(oid, name);
DROP FUNCTION pgmrl.rotate_v1({vector}.halfvec, text, integer);
DROP FUNCTION pgmrl.rotate_v1({vector}.vector, text, integer);
DROP TABLE pgmrl.axes;
DROP TABLE pgmrl.rotations;
DROP FUNCTION pgmrl.guard_axes_v1();
DROP FUNCTION pgmrl.guard_rotation_v1();
DROP FUNCTION pgmrl.seal_rotation_v1();
DROP FUNCTION pgmrl.rotation_id_v1(text);
