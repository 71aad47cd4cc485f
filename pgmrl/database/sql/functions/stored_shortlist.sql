    IF {shortlist} IS NULL THEN
        -- what `pgmrl tune --apply` chose, in proportion for more rows than it is for
        {stored} INTO shortlist_size, ef_search;
    END IF;
{usual}
