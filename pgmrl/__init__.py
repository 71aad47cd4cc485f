"""Two-stage (Matryoshka) vector search in PostgreSQL applications that already exist."""
