"""The checks: each module looks at one kind of thing and returns findings."""
