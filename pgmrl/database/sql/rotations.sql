-- The learned axes. A rotation is named by a hash of its axes and can neither be changed nor, while a short column
-- depends on it, be removed: stale axes are impossible.
CREATE TABLE pgmrl.rotations (
    id text PRIMARY KEY CHECK (id ~ '^r[0-9a-f]{12}$'),
    dims integer NOT NULL,
    axes integer NOT NULL,
    installed_at timestamptz NOT NULL DEFAULT now(),
    CHECK (axes BETWEEN 1 AND dims)
);

-- One row an axis, in half precision: a row of 3,072 full-precision numbers would not fit a page.
CREATE TABLE pgmrl.axes (
    rotation_id text NOT NULL REFERENCES pgmrl.rotations (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
    n integer NOT NULL,
    axis {vector}.halfvec NOT NULL,
    PRIMARY KEY (rotation_id, n)
);
ALTER TABLE pgmrl.axes ALTER COLUMN axis SET STORAGE MAIN;

COMMENT ON TABLE pgmrl.rotations IS 'Rotations by id; the id is a hash of the axes';
COMMENT ON TABLE pgmrl.axes IS 'Axes of the rotations, most important first; insert them before their rotation';
GRANT SELECT ON pgmrl.rotations, pgmrl.axes TO PUBLIC;

CREATE FUNCTION pgmrl.rotation_id_v1(rotation text) RETURNS text
LANGUAGE sql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
    -- halfvec_send begins with two 16-bit integers (dimensions, unused), then the values, most significant byte first
    SELECT 'r' || left(encode(sha256(
        convert_to(format(E'pgmrl rotation %s x %s\n', count(*), max({vector}.vector_dims(a.axis))), 'UTF8')
        || string_agg(substring({vector}.halfvec_send(a.axis) FROM 5), ''::bytea ORDER BY a.n)), 'hex'), 12)
    FROM pgmrl.axes AS a
    WHERE a.rotation_id = rotation
$$;
COMMENT ON FUNCTION pgmrl.rotation_id_v1(text) IS 'The id that the stored axes of a rotation have by their content';

CREATE FUNCTION pgmrl.seal_rotation_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    computed text := pgmrl.rotation_id_v1(NEW.id);
    stored integer;
    widths integer[];
BEGIN
    IF computed IS DISTINCT FROM NEW.id THEN
        RAISE EXCEPTION 'the axes of rotation % have the hash %', NEW.id, coalesce(computed, '(there are none)')
            USING ERRCODE = 'data_corrupted', HINT = 'Insert the axes of that rotation first, from the file it is saved in.';
    END IF;
    SELECT count(*), array_agg(DISTINCT {vector}.vector_dims(a.axis)) INTO stored, widths
    FROM pgmrl.axes AS a WHERE a.rotation_id = NEW.id;
    IF stored <> NEW.axes OR widths <> ARRAY[NEW.dims] THEN
        RAISE EXCEPTION 'rotation % has % axes of % dimensions', NEW.id, stored, widths
            USING ERRCODE = 'data_corrupted', HINT = 'Give the same numbers as its file.';
    END IF;
    RETURN NULL;
END $$;
COMMENT ON FUNCTION pgmrl.seal_rotation_v1() IS 'Refuses a rotation whose axes are not those its id names';

CREATE FUNCTION pgmrl.guard_rotation_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'DELETE' THEN
        IF EXISTS (SELECT FROM pg_trigger AS t WHERE position(convert_to(OLD.id, 'UTF8') IN t.tgargs) > 0) THEN
            RAISE EXCEPTION 'rotation % is in use by a short column', OLD.id
                USING ERRCODE = 'dependent_objects_still_exist', HINT = 'Drop that column first: SELECT * FROM pgmrl.columns.';
        END IF;
        RETURN OLD;
    END IF;
    RAISE EXCEPTION 'a rotation cannot be changed'
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fit a new one: it has its own id and its own short column.';
END $$;
COMMENT ON FUNCTION pgmrl.guard_rotation_v1() IS 'Refuses changes to rotations, and the removal of one in use';

CREATE FUNCTION pgmrl.guard_axes_v1() RETURNS trigger
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        IF EXISTS (SELECT FROM pgmrl.axes AS a WHERE a.rotation_id = NEW.rotation_id AND a.n = NEW.n
                   AND a.axis OPERATOR({vector}.=) NEW.axis) THEN
            RETURN NULL;  -- somebody else installed the same rotation at the same time
        END IF;
        IF NOT EXISTS (SELECT FROM pgmrl.rotations AS r WHERE r.id = NEW.rotation_id) THEN
            RETURN NEW;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        IF NOT EXISTS (SELECT FROM pgmrl.rotations AS r WHERE r.id = OLD.rotation_id) THEN
            RETURN OLD;  -- the rotation itself was removed
        END IF;
    END IF;
    RAISE EXCEPTION 'the axes of a rotation cannot be changed'
        USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Fit a new one: it has its own id and its own short column.';
END $$;
COMMENT ON FUNCTION pgmrl.guard_axes_v1() IS 'Refuses changes to the axes of an installed rotation';

CREATE TRIGGER seal AFTER INSERT ON pgmrl.rotations
    FOR EACH ROW EXECUTE FUNCTION pgmrl.seal_rotation_v1();
CREATE TRIGGER guard BEFORE UPDATE OR DELETE ON pgmrl.rotations
    FOR EACH ROW EXECUTE FUNCTION pgmrl.guard_rotation_v1();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON pgmrl.rotations
    FOR EACH STATEMENT EXECUTE FUNCTION pgmrl.guard_rotation_v1();
CREATE TRIGGER guard BEFORE INSERT OR UPDATE OR DELETE ON pgmrl.axes
    FOR EACH ROW EXECUTE FUNCTION pgmrl.guard_axes_v1();
CREATE TRIGGER guard_truncate BEFORE TRUNCATE ON pgmrl.axes
    FOR EACH STATEMENT EXECUTE FUNCTION pgmrl.guard_axes_v1();
