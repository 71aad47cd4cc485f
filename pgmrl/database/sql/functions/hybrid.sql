-- pgmrl hybrid
-- $1 query, $2 words, $3 k, $4 shortlist, $5 match, $6 fusion, $7 words_weight, $8 exact, then the filters.
DECLARE
    size bigint := $4;
    kept text := '';
    asked tsquery;
    part text;
BEGIN
{usual}
    IF $2 IS NULL OR btrim($2, E' \t\r\n') = '' THEN
        RAISE EXCEPTION USING ERRCODE = CASE WHEN $2 IS NULL THEN '22004' ELSE '22023' END,
            MESSAGE = CASE WHEN $2 IS NULL THEN 'words is NULL' ELSE 'words is empty' END,
            HINT = {no_words_hint};
    ELSIF length($2) > {text_limit} THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value',
            MESSAGE = format('words has %s characters', length($2)), HINT = 'Give at most {text_limit}.';
{sizes}
    ELSIF $5 IS NULL OR $5 NOT IN ('any', 'all', 'web') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'match is ' || coalesce(quote_literal($5), 'NULL'),
            HINT = 'Give ''any'' or ''all'' of the words, or ''web'' for "quotes", or and -.';
    ELSIF $6 IS NULL OR $6 NOT IN ('rrf', 'weighted') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'fusion is ' || coalesce(quote_literal($6), 'NULL'),
            HINT = 'Give ''rrf'' (by ranks) or ''weighted'' (by values).';
    ELSIF $7 IS NULL OR NOT ($7 >= 0 AND $7 < 'Infinity') THEN
        RAISE EXCEPTION USING ERRCODE = 'invalid_parameter_value', MESSAGE = 'words_weight is ' || coalesce($7::text, 'NULL'),
            HINT = 'Give 1 where words count as much as the vector, more or less where they do not.';
    END IF;
{conditions}
    -- the parser makes lexemes of whatever the text holds, so that no text is syntax
    asked := CASE $5
        WHEN 'web' THEN websearch_to_tsquery({config}::regconfig, $2)
        WHEN 'all' THEN plainto_tsquery({config}::regconfig, $2)
        ELSE replace(plainto_tsquery({config}::regconfig, $2)::text, ' & ', ' | ')::tsquery
    END;
    IF querytree(asked) IN ('', 'T') THEN  -- words that are only excluded are no reason to return a row
        kept := kept || ' AND false';
    END IF;
    part := CASE $6
        WHEN 'rrf' THEN '1.0::double precision / ({rrf} + rank)'
        ELSE 'coalesce((value - min(value) OVER ()) / nullif(max(value) OVER () - min(value) OVER (), 0), 1)'
    END;
    RETURN QUERY EXECUTE {near} || size || ', ' || size || {nearer} || {worded} || kept || {listed} || size
        || {fused_near} || part || {fused_words} || part || {fused} || $3 || {result}
        USING $1, asked, $3, $7, $8{passed};
END
