"""Run migrations on the connection that ``sigra.store.migrate`` opened."""

from alembic import context

from sigra.store.migrate import VERSION_TABLE
from sigra.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
