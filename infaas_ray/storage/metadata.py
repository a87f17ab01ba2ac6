"""What is registered, in SQL: architectures, their variants with profiles, and builds that failed.

Rules: each change is one transaction and raises the revision by one, so whoever polls `revision` misses nothing;
writers take turns; readers never wait. Values are kept as JSON of the domain's dataclasses, with columns of their own
for what is looked up by. The default is a SQLite file (write-ahead log, several processes); any other database that
SQLAlchemy knows goes by its URL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sql
from sqlalchemy.engine import URL, Connection, Engine, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from infaas_ray.domain import Architecture, Profile, Variant
from infaas_ray.errors import AlreadyExists, ConfigError, MissingExtra

SCHEMA_VERSION = 1
_BUSY_TIMEOUT_S = 30.0

_SCHEMA = sql.MetaData()
_STATE = sql.Table(
    "state",
    _SCHEMA,
    sql.Column("key", sql.String(64), primary_key=True),
    sql.Column("value", sql.Integer, nullable=False),
)
_ARCHITECTURES = sql.Table(
    "architectures",
    _SCHEMA,
    sql.Column("name", sql.String(100), primary_key=True),
    sql.Column("task", sql.String(100), nullable=False, index=True),
    sql.Column("body", sql.Text, nullable=False),
)
_VARIANTS = sql.Table(
    "variants",
    _SCHEMA,
    sql.Column("name", sql.String(400), primary_key=True),
    sql.Column("architecture", sql.String(100), nullable=False, index=True),
    sql.Column("body", sql.Text, nullable=False),
    sql.Column("profile", sql.Text, nullable=False),
    sql.Column("source", sql.String(64), nullable=False),
    sql.Column("recipe", sql.String(200), nullable=False),
)
_FAILURES = sql.Table(
    "failures",
    _SCHEMA,
    sql.Column("architecture", sql.String(100), primary_key=True),
    sql.Column("label", sql.String(200), primary_key=True),
    sql.Column("reason", sql.Text, nullable=False),
    sql.Column("failed_at", sql.String(40), nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a variant was made from: the SHA-256 of the source model and the recipe with its settings.

    A variant with an equal origin need not be built again. Both are empty where nobody said.
    """

    source: str = ""
    recipe: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A variant or artifact that could not be made or was refused. `failed_at` is ISO 8601 in UTC."""

    architecture: str
    label: str
    reason: str
    failed_at: str


class Metadata:
    """The metadata database at a SQLAlchemy URL, for example `sqlite:////data/infaas.db`.

    Opening creates what is missing. Raises ConfigError for a malformed URL, a database that cannot be opened, or one
    of another schema version; MissingExtra where the database's driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        try:
            self._prepare()
        except DBAPIError as error:
            self._engine.dispose()
            raise ConfigError(f"cannot open the metadata database {self._engine.url}: {error.orig}") from error
        except ConfigError:
            self._engine.dispose()
            raise

    def add_architecture(self, architecture: Architecture) -> None:
        """Register an architecture; one that is there and equal changes nothing.

        Raises AlreadyExists where the name has another use case or other tensors, where an architecture and a task
        would share a name (queries could then mean either), or where the use case has other tensors already (a query
        to it could then not be answered by either).
        """
        body = _encode(architecture)
        with self._writing() as connection:
            row = connection.execute(
                sql.select(_ARCHITECTURES.c.body).where(_ARCHITECTURES.c.name == architecture.name)
            ).scalar_one_or_none()
            if row is not None:
                _require_equal(architecture, msgspec.json.decode(row, type=Architecture))
                return
            _require_free_names(connection, architecture)
            _require_same_tensors(connection, architecture)
            values = {"name": architecture.name, "task": architecture.use_case.task, "body": body}
            connection.execute(sql.insert(_ARCHITECTURES).values(values))
            _raise_revision(connection)

    def architectures(self) -> dict[str, Architecture]:
        """Every architecture by name, in the order of names."""
        with self._engine.begin() as connection:
            rows = connection.execute(sql.select(_ARCHITECTURES.c.body).order_by(_ARCHITECTURES.c.name)).scalars().all()
        found = [msgspec.json.decode(body, type=Architecture) for body in rows]
        return {architecture.name: architecture for architecture in found}

    def remove_architecture(self, name: str) -> None:
        """Forget an architecture with its variants and failures; artifacts stay. An unknown name changes nothing."""
        with self._writing() as connection:
            removed = connection.execute(sql.delete(_ARCHITECTURES).where(_ARCHITECTURES.c.name == name)).rowcount
            connection.execute(sql.delete(_VARIANTS).where(_VARIANTS.c.architecture == name))
            connection.execute(sql.delete(_FAILURES).where(_FAILURES.c.architecture == name))
            if removed:
                _raise_revision(connection)

    def put_variant(self, variant: Variant, profile: Profile, origin: Origin | None = None) -> None:
        """Add a variant with its profile, or replace the one of that name, and forget a failure under that name.

        Raises ConfigError where the architecture is not registered.
        """
        origin = origin or Origin()
        row = {
            "name": variant.name,
            "architecture": variant.architecture,
            "body": _encode(variant),
            "profile": _encode(profile),
            "source": origin.source,
            "recipe": origin.recipe,
        }
        with self._writing() as connection:
            known = sql.select(_ARCHITECTURES.c.name).where(_ARCHITECTURES.c.name == variant.architecture)
            if connection.execute(known).first() is None:
                raise ConfigError(f"variant {variant.name!r} needs its architecture registered before it")
            connection.execute(sql.delete(_VARIANTS).where(_VARIANTS.c.name == variant.name))
            connection.execute(sql.insert(_VARIANTS).values(row))
            connection.execute(sql.delete(_FAILURES).where(_FAILURES.c.label == variant.name))
            _raise_revision(connection)

    def remove_variant(self, name: str) -> None:
        """Forget a variant; its artifact stays. An unknown name changes nothing."""
        with self._writing() as connection:
            if connection.execute(sql.delete(_VARIANTS).where(_VARIANTS.c.name == name)).rowcount:
                _raise_revision(connection)

    def variants(self, architecture: str | None = None) -> list[tuple[Variant, Profile]]:
        """Every variant with its profile, of one architecture or of all, in the order of names."""
        query = sql.select(_VARIANTS.c.body, _VARIANTS.c.profile).order_by(_VARIANTS.c.name)
        if architecture is not None:
            query = query.where(_VARIANTS.c.architecture == architecture)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [
            (msgspec.json.decode(body, type=Variant), msgspec.json.decode(profile, type=Profile))
            for body, profile in rows
        ]

    def origins(self, architecture: str) -> dict[str, Origin]:
        """What each variant of an architecture was made from, by variant name."""
        query = sql.select(_VARIANTS.c.name, _VARIANTS.c.source, _VARIANTS.c.recipe)
        with self._engine.begin() as connection:
            rows = connection.execute(query.where(_VARIANTS.c.architecture == architecture)).all()
        return {name: Origin(source=source, recipe=recipe) for name, source, recipe in rows}

    def record_failure(self, architecture: str, label: str, reason: str) -> None:
        """Remember why something of an architecture could not be made; the last reason per label is kept."""
        row = {
            "architecture": architecture,
            "label": label,
            "reason": reason,
            "failed_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        with self._writing() as connection:
            _forget_failure(connection, architecture, label)
            connection.execute(sql.insert(_FAILURES).values(row))
            _raise_revision(connection)

    def clear_failure(self, architecture: str, label: str) -> None:
        """Forget a failure, because it is about to be tried again."""
        with self._writing() as connection:
            if _forget_failure(connection, architecture, label):
                _raise_revision(connection)

    def failures(self, architecture: str | None = None) -> list[Failure]:
        """Every recorded failure, of one architecture or of all, in the order of names."""
        query = sql.select(_FAILURES).order_by(_FAILURES.c.architecture, _FAILURES.c.label)
        if architecture is not None:
            query = query.where(_FAILURES.c.architecture == architecture)
        with self._engine.begin() as connection:
            return [Failure(**row) for row in connection.execute(query).mappings()]

    def revision(self) -> int:
        """A number that grows with every change. Cheap: one row by its key."""
        with self._engine.begin() as connection:
            return _state(connection)["revision"]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        """A transaction that holds the one writers' lock from its start, so that checks in it stay true."""
        with self._engine.execution_options(writes=True).begin() as connection:
            connection.execute(sql.select(_STATE.c.value).where(_STATE.c.key == "revision").with_for_update())
            yield connection

    def _prepare(self) -> None:
        if not sql.inspect(self._engine).has_table(_STATE.name):
            with self._engine.execution_options(writes=True).begin() as connection:
                _SCHEMA.create_all(connection)
                if not _state(connection):
                    start = [("schema_version", SCHEMA_VERSION), ("revision", 0)]
                    connection.execute(sql.insert(_STATE), [{"key": key, "value": value} for key, value in start])
        with self._engine.begin() as connection:
            version = _state(connection).get("schema_version")
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"the metadata database {self._engine.url} has schema version {version}, this INFaaS needs "
                f"{SCHEMA_VERSION}: use the INFaaS that wrote it, or give a new database and register the models again"
            )


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        connect_args = {"timeout": _BUSY_TIMEOUT_S} if parsed.get_backend_name() == "sqlite" else {}
        engine = sql.create_engine(parsed, connect_args=connect_args)
    except (ArgumentError, NoSuchModuleError) as error:
        raise ConfigError(f"metadata URL is not a database URL such as sqlite:////data/infaas.db: {error}") from error
    except ModuleNotFoundError as error:
        raise MissingExtra(f"the database driver {error.name!r} is not installed", "postgres") from error
    if engine.dialect.name == "sqlite":
        _make_folder(engine.url)
        sql.event.listen(engine, "connect", _sqlite_connect)
        sql.event.listen(engine, "begin", _sqlite_begin)
    return engine


def _make_folder(url: URL) -> None:
    if url.database and url.database != ":memory:":
        try:
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot make the folder of the metadata database: {error}") from error


def _sqlite_connect(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # transactions begin where `_sqlite_begin` says, not at the driver's first write
    connection.execute("PRAGMA journal_mode=WAL")


def _sqlite_begin(connection: Connection) -> None:
    # A writer takes the lock at once: a reader that turns writer could fail without ever waiting for the timeout.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _state(connection: Connection) -> dict[str, int]:
    rows = connection.execute(sql.select(_STATE.c.key, _STATE.c.value))
    return {row.key: row.value for row in rows}


def _raise_revision(connection: Connection) -> None:
    connection.execute(sql.update(_STATE).where(_STATE.c.key == "revision").values(value=_STATE.c.value + 1))


def _forget_failure(connection: Connection, architecture: str, label: str) -> int:
    matching = (_FAILURES.c.architecture == architecture) & (_FAILURES.c.label == label)
    return connection.execute(sql.delete(_FAILURES).where(matching)).rowcount


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _require_same_tensors(connection: sql.Connection, architecture: Architecture) -> None:
    bodies = connection.execute(
        sql.select(_ARCHITECTURES.c.body).where(_ARCHITECTURES.c.task == architecture.use_case.task)
    ).scalars()
    for other in (msgspec.json.decode(body, type=Architecture) for body in bodies):
        if other.use_case == architecture.use_case and (other.inputs, other.outputs) != (
            architecture.inputs,
            architecture.outputs,
        ):
            raise AlreadyExists(
                f"use case {other.use_case.name!r} takes and gives {_tensors(other)} (as {other.name!r} does), but "
                f"{architecture.name!r} {_tensors(architecture)}; register it under another dataset"
            )


def _tensors(architecture: Architecture) -> str:
    specs = (*architecture.inputs, *architecture.outputs)
    return ", ".join(f"{x.name} {x.datatype}{list(x.shape)}" for x in specs)


def _require_equal(wanted: Architecture, found: Architecture) -> None:
    if wanted.use_case != found.use_case:
        raise AlreadyExists(
            f"architecture {wanted.name!r} already serves {found.use_case.name}, not {wanted.use_case.name}; "
            "choose another name"
        )
    if wanted != found:
        raise AlreadyExists(
            f"architecture {wanted.name!r} already exists with other inputs or outputs; choose another name, "
            "or remove it first"
        )


def _require_free_names(connection: Connection, architecture: Architecture) -> None:
    task = architecture.use_case.task
    tasks = sql.select(_ARCHITECTURES.c.name).where(_ARCHITECTURES.c.task == architecture.name)
    names = sql.select(_ARCHITECTURES.c.name).where(_ARCHITECTURES.c.name == task)
    if architecture.name == task or connection.execute(tasks).first() is not None:
        raise AlreadyExists(f"{architecture.name!r} is the name of a task; an architecture needs a name of its own")
    if connection.execute(names).first() is not None:
        raise AlreadyExists(f"task {task!r} has the name of an architecture; choose another name for the task")
