DECLARE
    stored {full};
BEGIN
    IF {unknown} THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = {no_key},
            HINT = 'Give the key of a row.';
    END IF;
    SELECT {stored} INTO stored FROM {source} WHERE {same_key};
    IF NOT FOUND THEN
        RAISE EXCEPTION USING ERRCODE = 'no_data_found', MESSAGE = {missing},
            HINT = 'Give the key of a row that you may read.';
    ELSIF stored IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'null_value_not_allowed', MESSAGE = {empty},
            HINT = {empty_hint};
    END IF;
    RETURN stored;
END
