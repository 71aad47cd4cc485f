-- pgmrl's own schema. Reading it is open to every role: a trigger runs with the rights of whoever writes the row.
CREATE SCHEMA IF NOT EXISTS pgmrl;
GRANT USAGE ON SCHEMA pgmrl TO PUBLIC;
COMMENT ON SCHEMA pgmrl IS 'Two-stage (Matryoshka) vector search: rotations and the functions that shorten vectors';
