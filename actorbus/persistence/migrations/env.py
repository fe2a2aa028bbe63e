"""Run by Alembic: migrates over the connection that ``upgrade`` was given."""

from __future__ import annotations

from alembic import context

from actorbus.persistence.migrations import VERSION_TABLE
from actorbus.persistence.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
context.run_migrations()
