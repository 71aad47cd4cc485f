        -- planned each time: what is not a literal, or has a plan for no values in particular, does not go to the shards
        EXECUTE {shortlist} || {ranking}
            INTO winners USING $1, short_query{passed};
        -- where a shard is on this node: the settings of whoever called
{restore_settings}
