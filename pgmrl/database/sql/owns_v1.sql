-- CREATE OR REPLACE keeps the owner, who could then rewrite what runs with the rights of others.
CREATE FUNCTION pgmrl.owns_v1(owner oid) RETURNS boolean
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- not pg_has_role, which says yes to every superuser; what a superuser owns, nobody else can have changed
    WITH RECURSIVE roles (id) AS (
        SELECT r.oid FROM pg_roles AS r WHERE r.rolname = current_user
        UNION
        SELECT m.roleid FROM pg_auth_members AS m JOIN roles ON roles.id = m.member
    )
    SELECT EXISTS (SELECT FROM roles WHERE roles.id = $1)
        OR EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = $1 AND r.rolsuper)
$$;
COMMENT ON FUNCTION pgmrl.owns_v1(oid) IS 'Whether an object of this role is the current role''s own, or a superuser''s';

CREATE FUNCTION pgmrl.refuse_strangers_v1(owner regclass, function_name text) RETURNS void
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    stranger text;
BEGIN
    SELECT format('function %s belongs to %I', p.oid::regprocedure, pg_get_userbyid(p.proowner)) INTO stranger
    FROM pg_class AS c JOIN pg_proc AS p ON p.pronamespace = c.relnamespace
    WHERE c.oid = $1 AND p.proname = $2 AND p.proowner <> c.relowner AND NOT pgmrl.owns_v1(p.proowner)
    LIMIT 1;
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION '%, not to % or the owner of %', stranger, quote_ident(current_user), $1
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'It would run with the rights of whoever writes a row. Read it, then drop it or ALTER FUNCTION ... OWNER TO.';
    END IF;
END $$;
COMMENT ON FUNCTION pgmrl.refuse_strangers_v1(regclass, text)
    IS 'Refuses a trigger function that is there and belongs to a stranger';

CREATE FUNCTION pgmrl.other_name_v1(usual text, relation regclass) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- at most 57 bytes: the server would cut off what is added to it
    SELECT format('%s_%s_%s', left(usual, 16), left(encode(sha256(convert_to(usual, 'UTF8')), 'hex'), 8), relation::oid)
$$;
COMMENT ON FUNCTION pgmrl.other_name_v1(text, regclass)
    IS 'The name of a table''s trigger where the usual one is another table''s, as of one that was renamed';
