DECLARE
    stored_vector {vector_type};
BEGIN
    IF {key_is_null} THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = {null_message},
            HINT = 'Give the key of a row.';
    END IF;
    SELECT {full_vector} INTO stored_vector FROM {from_clause} WHERE {same_key};
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = {missing_message},
            HINT = 'Give the key of a row that you may read.';
    ELSIF stored_vector IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = {empty_message},
            HINT = {empty_hint};
    END IF;
    RETURN stored_vector;
END
