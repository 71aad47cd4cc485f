"""Changes to tables in use: short locks with retries, backfills as jobs, concurrent index builds that end valid."""
