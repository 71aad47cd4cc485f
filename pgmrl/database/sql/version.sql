-- Whoever runs a migration of an application asks which revision of pgmrl is installed, and may own nothing of it.
GRANT SELECT ON pgmrl.alembic_version TO PUBLIC;
