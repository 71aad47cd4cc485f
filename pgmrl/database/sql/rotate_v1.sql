-- Inner products with the leading axes of a rotation: the projection that pgmrl/model/shortening.py builds a short vector from.
CREATE FUNCTION pgmrl.rotate_v1(full_vector {vector}.halfvec, rotation text, dims integer) RETURNS {vector}.vector
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    products double precision[];
BEGIN
    SELECT array_agg({vector}.inner_product(a.axis, full_vector) ORDER BY a.n) INTO products
    FROM pgmrl.axes AS a
    WHERE a.rotation_id = rotation AND a.n <= dims;
    IF cardinality(products) IS DISTINCT FROM dims THEN
        RAISE EXCEPTION 'rotation % with % axes is not installed', rotation, dims
            USING ERRCODE = 'undefined_object', HINT = 'Install it with `pgmrl fit-rotation` or the migration that carries its file.';
    END IF;
    RETURN products::real[]::{vector}.vector;
END $$;
COMMENT ON FUNCTION pgmrl.rotate_v1({vector}.halfvec, text, integer)
    IS 'Inner products of a vector with the leading axes of a rotation';

CREATE FUNCTION pgmrl.rotate_v1(full_vector {vector}.vector, rotation text, dims integer) RETURNS {vector}.vector
LANGUAGE plpgsql STABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- a vector in TOAST would be fetched once for every axis: this makes a plain copy
    plain {vector}.vector := {vector}.subvector(full_vector, 1, {vector}.vector_dims(full_vector));
    products double precision[];
BEGIN
    SELECT array_agg({vector}.inner_product(a.axis::{vector}.vector, plain) ORDER BY a.n) INTO products
    FROM pgmrl.axes AS a
    WHERE a.rotation_id = rotation AND a.n <= dims;
    IF cardinality(products) IS DISTINCT FROM dims THEN
        RAISE EXCEPTION 'rotation % with % axes is not installed', rotation, dims
            USING ERRCODE = 'undefined_object', HINT = 'Install it with `pgmrl fit-rotation` or the migration that carries its file.';
    END IF;
    RETURN products::real[]::{vector}.vector;
END $$;
COMMENT ON FUNCTION pgmrl.rotate_v1({vector}.vector, text, integer)
    IS 'Inner products of a vector with the leading axes of a rotation';
