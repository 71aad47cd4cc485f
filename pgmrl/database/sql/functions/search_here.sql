{set_scan}
        IF shortlist_size > {ef_limit} THEN
{set_long_scan}
        END IF;
        IF {plain} THEN
            -- nothing that the best plan would depend on: it is made once for the session
            {static}
                INTO winners;
        ELSE
            IF conditions = unfiltered THEN
                shortlist_text := {shortlist};
            ELSE
                shortlist_text := {filtered_shortlist};
            END IF;
            EXECUTE shortlist_text || {ranking}
                INTO winners USING $1, short_query{passed};
        END IF;
        -- the settings of whoever called, also within a longer transaction; an error rolls them back
{restore_settings}
        IF shortlist_size > {ef_limit} THEN
{restore_long_settings}
        END IF;
