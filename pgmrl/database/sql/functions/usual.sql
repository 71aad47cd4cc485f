    IF {shortlist} IS NULL THEN
        -- what `pgmrl tune --apply` chose, in proportion for more rows than it is for
        SELECT ceil(s.shortlist * greatest(s.k, {rows}) / s.k), ceil(s.ef_search * greatest(s.k, {rows}) / s.k) INTO size, effort
        FROM pgmrl.settings AS s
        WHERE s.relation = pg_catalog.to_regclass({table}) AND s.full_column = {full} AND s.short_column = {short};
        size := least({most}, coalesce(size, {wanted}));
    END IF;
