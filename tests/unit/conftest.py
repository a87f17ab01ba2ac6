"""For the unit tests."""

import sqlite3

import sqlalchemy as sql
from sqlalchemy.engine import Engine


@sql.event.listens_for(Engine, "connect")
def _wait_for_no_disk(connection: sqlite3.Connection, _record: object) -> None:
    """What a test writes need not survive a power cut."""
    connection.execute("PRAGMA synchronous=OFF")
