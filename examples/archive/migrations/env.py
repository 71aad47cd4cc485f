"""Alembic's environment of the archive, whose table is always in use."""

import os
from logging.config import fileConfig

from alembic import context
from models import Base
from sqlalchemy import create_engine, pool

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name)
url = os.environ["DATABASE_URL"]
if context.is_offline_mode():
    context.configure(url=url, target_metadata=Base.metadata, literal_binds=True, dialect_opts={"paramstyle": "named"})
    with context.begin_transaction():
        context.run_migrations()
else:
    with create_engine(url, poolclass=pool.NullPool).connect() as connection:
        context.configure(
            connection=connection,
            target_metadata=Base.metadata,
            autogenerate_plugins=["alembic.autogenerate.*", "pgmrl"],
            pgmrl_online=True,  # tables that exist are in use: no step may stop them
            transaction_per_migration=True,
        )
        with context.begin_transaction():
            context.run_migrations()
