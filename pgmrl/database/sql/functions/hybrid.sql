-- pgmrl hybrid
-- $1 query, $2 words, $3 k, $4 shortlist, $5 match, $6 fusion, $7 words_weight, $8 exact, then the filters.
DECLARE
    shortlist_size bigint := $4;
    conditions text := '';
    words_query tsquery;
    vector_part text;
    words_part text;
BEGIN
{usual_shortlist}
{checks}
{scale_query}
{conditions}
    words_query := CASE $5
{words_query}
    END;
    conditions := conditions || CASE WHEN {finds_rows} THEN '' ELSE ' AND false' END;
    -- what each list adds to a row's score
    CASE $6
{parts}
    END CASE;
    RETURN QUERY EXECUTE {fused}
        USING $1, words_query, $3, $7, $8{passed};
END
