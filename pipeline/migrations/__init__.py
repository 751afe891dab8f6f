"""The tables from one version to the next, by Alembic.

To change them: change ``pipeline.tables``, and add ``versions/vNNNN_what.py`` whose ``down_revision`` is the last one.
A version that was released is never edited, and imports nothing of ours: it says what was true then.
"""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection

from pipeline.errors import EngineError

HERE = Path(__file__).parent


def upgrade(connection: Connection) -> None:
    """Bring the tables up to date within the connection's transaction. Blocks: reads the versions' files.

    Raises EngineError for a database that a newer release has changed.
    """
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(HERE).replace("%", "%%"))
    _refuse_newer(connection, ScriptDirectory.from_config(config))
    command.upgrade(config, "head")


def _refuse_newer(connection: Connection, script: ScriptDirectory) -> None:
    known = {revision.revision for revision in script.walk_revisions()}
    for version in MigrationContext.configure(connection).get_current_heads():
        if version not in known:
            raise EngineError(
                f"the database is newer than this release (its tables are of version {version:.64}, known here is "
                f"{script.get_current_head()}): upgrade vocal-node, or set VOCAL_DATABASE_URL to another database"
            )
