"""Search: from a Select to a Select that runs as one statement, in every shape a search can have."""
