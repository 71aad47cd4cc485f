    ELSIF {k} IS NULL OR {k} NOT BETWEEN 1 AND {most} THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = 'k is ' || coalesce({k}::text, 'NULL'), HINT = 'Give 1 to {most} rows to return.';
    ELSIF size < {k} OR size > {most} THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('shortlist is %s, k is %s', size, {k}),
            HINT = {hint};
