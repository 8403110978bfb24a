"""Alembic's entry: runs the migrations on the connection that the caller gives, inside its transaction."""

from alembic import context

from ingestor.archive import triggers, views
from ingestor.archive.comments import statements
from ingestor.archive.tables import metadata

connection = context.config.attributes.get("connection")
if connection is None:
    raise RuntimeError("migrations run through `ingestor db upgrade`, which serialises them")

context.configure(
    connection=connection,
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=connection.dialect.name == "sqlite",
)
# Batch mode drops triggers silently and fails on views: both go first and come back last.
rights = views.drop(connection)
triggers.drop(connection)
with context.begin_transaction():
    context.run_migrations()
triggers.create(connection)
views.create(connection, rights)
if connection.dialect.name == "postgresql":
    for name in metadata.tables:
        for comment in statements("TABLE", name):
            connection.exec_driver_sql(comment)
