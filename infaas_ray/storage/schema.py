"""The tables of the metadata database, and how a database of an older version becomes one of this version.

Rule: each version has the statements that lead to it from the one before; they run in one transaction, with the new
number. Values added inside JSON bodies need none, because the domain's dataclasses have defaults for them.
"""

from collections.abc import Mapping

import sqlalchemy as sql
from sqlalchemy.engine import Connection, Engine

from infaas_ray.errors import ConfigError

SCHEMA_VERSION = 4

SCHEMA = sql.MetaData()
STATE = sql.Table(
    "state",
    SCHEMA,
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("value", sql.Integer, nullable=False),
)
ARCHITECTURES = sql.Table(
    "architectures",
    SCHEMA,
    sql.Column("name", sql.String(100), primary_key=True),
    sql.Column("task", sql.String(100), nullable=False, index=True),
    sql.Column("body", sql.Text, nullable=False),
)
VARIANTS = sql.Table(
    "variants",
    SCHEMA,
    sql.Column("name", sql.String(400), primary_key=True),
    sql.Column("architecture", sql.String(100), nullable=False, index=True),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("profile", sql.Text, nullable=False),
    sql.Column("source", sql.String(64), nullable=False),
    sql.Column("recipe", sql.String(200), nullable=False),
    sql.Column("offered", sql.Integer, nullable=False, server_default="1"),
)
FAILURES = sql.Table(
    "failures",
    SCHEMA,
    sql.Column("architecture", sql.String(100), primary_key=True),
    sql.Column("label", sql.String(200), primary_key=True),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("failed_at", sql.String(40), nullable=False),
    sql.Column("source", sql.String(64), nullable=False, server_default=""),
    sql.Column("recipe", sql.String(200), nullable=False, server_default=""),
    sql.Column("refused", sql.Integer, nullable=False, server_default="0"),
)
USAGE = sql.Table(
    "usage",
    SCHEMA,
    sql.Column("hour", sql.String(20), primary_key=True),
    sql.Column("use_case", sql.String(201), primary_key=True),
    sql.Column("variant", sql.String(400), primary_key=True),
    sql.Column("worker_type", sql.String(100), primary_key=True),
    sql.Column("usd", sql.Float, nullable=False),
    sql.Column("rows", sql.BigInteger, nullable=False),
)
PEAKS = sql.Table(
    "peaks",
    SCHEMA,
    sql.Column("hour", sql.String(20), primary_key=True),
    sql.Column("use_case", sql.String(201), primary_key=True),
    sql.Column("peak_qps", sql.Float, nullable=False),
    sql.Column("seconds", sql.Float, nullable=False),
)
SHARES = sql.Table(
    "shares",
    SCHEMA,
    sql.Column("hour", sql.String(20), primary_key=True),
    sql.Column("application", sql.String(64), primary_key=True),
    sql.Column("use_case", sql.String(201), primary_key=True),
    sql.Column("variant", sql.String(400), primary_key=True),
    sql.Column("rows", sql.BigInteger, nullable=False),
)

_STEPS: Mapping[int, tuple[str, ...]] = {
    2: (
        "ALTER TABLE variants ADD COLUMN offered INTEGER DEFAULT 1 NOT NULL",
        "ALTER TABLE failures ADD COLUMN source VARCHAR(64) DEFAULT '' NOT NULL",
        "ALTER TABLE failures ADD COLUMN recipe VARCHAR(200) DEFAULT '' NOT NULL",
        "ALTER TABLE failures ADD COLUMN refused INTEGER DEFAULT 0 NOT NULL",
    ),
    3: (),  # only new tables, which are made where they are missing
    4: (),
}


def prepare(engine: Engine) -> None:
    """Create what is missing, and bring an older database up to this version.

    Raises ConfigError for a database of a version that is not known here.
    """
    with engine.begin() as connection:
        ready = sql.inspect(connection).has_table(STATE.name) and _version(connection) == SCHEMA_VERSION
    if ready:
        return
    with engine.execution_options(writes=True).begin() as connection:
        if not sql.inspect(connection).has_table(STATE.name):
            SCHEMA.create_all(connection)
            start = [("schema_version", SCHEMA_VERSION), ("revision", 0)]
            connection.execute(sql.insert(STATE), [{"key": key, "value": value} for key, value in start])
        _migrate(connection, str(engine.url))


def _migrate(connection: Connection, url: str) -> None:
    version = _version(connection)
    if version is None or not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"the metadata database {url} has schema version {version}, this INFaaS needs "
            f"{SCHEMA_VERSION}: use the INFaaS that wrote it, or give a new database and register the models again"
        )
    SCHEMA.create_all(connection)  # tables that are newer than the database
    for step in range(version + 1, SCHEMA_VERSION + 1):
        for statement in _STEPS[step]:
            connection.exec_driver_sql(statement)
    connection.execute(sql.update(STATE).where(STATE.c.key == "schema_version").values(value=SCHEMA_VERSION))


def _version(connection: Connection) -> int | None:
    found: int | None = connection.execute(
        sql.select(STATE.c.value).where(STATE.c.key == "schema_version")
    ).scalar_one_or_none()
    return found
