-- pgmrl's own schema. Using it is open to every role: a trigger runs with the rights of whoever writes the row.
-- CREATE ... IF NOT EXISTS keeps the owner of what is there, who could then rewrite what others run: refuse a stranger's.
-- Not pg_has_role, which says yes to every superuser.
DO $$
DECLARE
    stranger text;
BEGIN
    WITH RECURSIVE roles (id) AS (
        SELECT r.oid FROM pg_catalog.pg_roles AS r
        WHERE r.rolname OPERATOR(pg_catalog.=) CAST(current_user AS pg_catalog.name)
        UNION
        SELECT m.roleid FROM pg_catalog.pg_auth_members AS m JOIN roles ON roles.id OPERATOR(pg_catalog.=) m.member
    ), objects (title, owner) AS (
        SELECT 'schema pgmrl'::pg_catalog.text, n.nspowner FROM pg_catalog.pg_namespace AS n
        WHERE n.nspname OPERATOR(pg_catalog.=) 'pgmrl'::pg_catalog.name
        UNION ALL
        SELECT pg_catalog.format('%I in schema pgmrl', c.relname), c.relowner FROM pg_catalog.pg_class AS c
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) 'pgmrl'::pg_catalog.name
        UNION ALL
        SELECT pg_catalog.format('function %I in schema pgmrl', p.proname), p.proowner FROM pg_catalog.pg_proc AS p
        JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
        WHERE n.nspname OPERATOR(pg_catalog.=) 'pgmrl'::pg_catalog.name
    )
    SELECT pg_catalog.format('%s belongs to %I', o.title, pg_catalog.pg_get_userbyid(o.owner)) INTO stranger
    FROM objects AS o JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) o.owner
    WHERE NOT r.rolsuper AND NOT EXISTS (SELECT FROM roles WHERE roles.id OPERATOR(pg_catalog.=) o.owner)
    LIMIT 1;
    IF stranger IS NOT NULL THEN
        RAISE EXCEPTION '%, not to %, who installs pgmrl', stranger, pg_catalog.quote_ident(current_user)
            USING ERRCODE = 'insufficient_privilege',
                  HINT = 'Read what is in the schema. Then drop it, ALTER ... OWNER TO, or install as a member of that role.';
    END IF;
END $$;
CREATE SCHEMA IF NOT EXISTS pgmrl;
GRANT USAGE ON SCHEMA pgmrl TO PUBLIC;
COMMENT ON SCHEMA pgmrl IS 'Two-stage (Matryoshka) vector search: rotations and the functions that shorten vectors';
