"""Alembic environment of pgmrl's own database objects; `pgmrl upgrade` and `pgmrl.database.upgrade` run it."""

from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine, text

from pgmrl import database
from pgmrl.database.shards import on_this_node

VERSION_TABLE: dict[str, Any] = {"version_table": database.VERSION_TABLE, "version_table_schema": database.SCHEMA}


def offline() -> None:
    """Print the SQL instead of running it (`alembic upgrade head --sql`)."""
    # named: the driver's own style would print every percent sign twice
    style = {"paramstyle": "named"}
    context.configure(dialect_name="postgresql", dialect_opts=style, as_sql=True, literal_binds=True, **VERSION_TABLE)
    with context.begin_transaction():
        for statement in database.create_schema():
            context.execute(statement)
        context.run_migrations()


def online(connection: Connection) -> None:
    """Run on this connection; whoever opened its transaction ends it."""
    with database.pinned(connection), on_this_node(connection):
        for statement in database.create_schema():  # the version table lives in it
            connection.execute(text(statement))
        context.configure(connection=connection, **VERSION_TABLE)
        with context.begin_transaction():
            context.run_migrations()


if context.is_offline_mode():
    offline()
elif (given := context.config.attributes.get("connection")) is not None:
    online(given)
else:
    engine = create_engine(database.sqlalchemy_url(context.config.get_main_option("sqlalchemy.url") or ""))
    with engine.begin() as opened:
        online(opened)
    engine.dispose()
