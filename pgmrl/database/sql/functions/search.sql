-- Shortlist through the short index, exact order by the full vectors. Arguments by number: names may be a column's.
-- $1 query, $2 k, $3 shortlist, $4 exact, {option}then the key of a row to leave out, then the filters.
#variable_conflict use_column
<<worker>>
DECLARE
    shortlist_size bigint := $3;
    ef_search bigint;
    short_query {short_type};
    conditions text := '';
    unfiltered text;
    shortlist_text text;
    -- one text each, so that the plan is made for these numbers and filters
    candidates text := {candidates};
{counted}{caller_settings}
    unused text;
    incomplete boolean := $4;
    winners record;  -- its fields have the key's types, also those that the fixed search_path hides
BEGIN
{usual_shortlist}
{checks}
{scale_query}
{conditions}
    candidates := candidates || conditions;
    IF NOT $4 THEN
        short_query := {short_query};
{zero_short}
{scanned}
        incomplete := {incomplete};
    END IF;
    -- An index scan gives up after so many rows that the filters do not let through. Then every row they leave is read,
    -- so that none is missing; where the planner read them all in the first place, nothing is.
    IF incomplete THEN
        EXECUTE 'WITH shortlist AS ' || {exact_shortlist} || {ranking}
            INTO winners USING $1, short_query{passed};
    END IF;
    RETURN QUERY SELECT {results}, d.distance, {similarity}, d.place::integer, $2, {returned}
        FROM ROWS FROM (unnest(winners.distance), {unnested}) WITH ORDINALITY AS d (distance, {unnested_names}, place);
END
