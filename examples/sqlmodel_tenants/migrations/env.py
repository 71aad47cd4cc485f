"""Alembic's environment for a schema per tenant: `alembic -x tenant=acme upgrade head`.

After "Rudimental Schema-Level Multi Tenancy" of Alembic's cookbook. Connects past PgBouncer, as the tables' owner.
"""

import os
from logging.config import fileConfig

from alembic import context
from models import SQLModel
from sqlalchemy import create_engine, pool
from sqlalchemy.schema import CreateSchema

if context.config.config_file_name is not None:
    fileConfig(context.config.config_file_name)
tenant = context.get_x_argument(as_dictionary=True)["tenant"]
engine = create_engine(os.environ["OWNER_DATABASE_URL"], poolclass=pool.NullPool)
with engine.connect() as connection:
    schema = engine.dialect.identifier_preparer.quote(tenant)
    connection.execute(CreateSchema(tenant, if_not_exists=True))
    connection.exec_driver_sql(f"GRANT USAGE ON SCHEMA {schema} TO notes_app")
    connection.exec_driver_sql(f"SET search_path TO {schema}, public")
    connection.commit()
    connection.dialect.default_schema_name = tenant
    context.configure(
        connection=connection,
        target_metadata=SQLModel.metadata,
        autogenerate_plugins=["alembic.autogenerate.*", "pgmrl"],
    )
    with context.begin_transaction():
        context.run_migrations()
