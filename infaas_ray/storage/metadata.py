"""What is registered, in SQL: architectures, their variants with profiles, and builds that failed.

Rules: each change is one transaction and raises the revision by one, so whoever polls `revision` misses nothing;
writers take turns; readers never wait. Values are kept as JSON of the domain's dataclasses, with columns of their own
for what is looked up by. The default is a SQLite file (write-ahead log, several processes); any other database that
SQLAlchemy knows goes by its URL.
"""

from collections.abc import Collection, Iterator
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
from infaas_ray.storage.schema import ARCHITECTURES, FAILURES, STATE, VARIANTS, prepare

_BUSY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a variant was made from: the SHA-256 of the source model and the recipe with its settings.

    A variant with an equal origin need not be built again. Both are empty where nobody said.
    """

    source: str = ""
    recipe: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A variant or artifact that could not be made, or was `refused`: then the same `origin` need not be tried again.

    `failed_at` is ISO 8601 in UTC.
    """

    architecture: str
    label: str
    reason: str
    failed_at: str
    origin: Origin = Origin()
    refused: bool = False


class Metadata:
    """The metadata database at a SQLAlchemy URL, for example `sqlite:////data/infaas.db`.

    Opening creates what is missing. Raises ConfigError for a malformed URL, a database that cannot be opened, or one
    of another schema version; MissingExtra where the database's driver is not installed.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        try:
            prepare(self._engine)
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
        with self.writing() as connection:
            row = connection.execute(
                sql.select(ARCHITECTURES.c.body).where(ARCHITECTURES.c.name == architecture.name)
            ).scalar_one_or_none()
            if row is not None:
                _require_equal(architecture, msgspec.json.decode(row, type=Architecture))
                return
            _require_free_names(connection, architecture)
            _require_same_tensors(connection, architecture)
            values = {"name": architecture.name, "task": architecture.use_case.task, "body": body}
            connection.execute(sql.insert(ARCHITECTURES).values(values))
            _raise_revision(connection)

    def architectures(self) -> dict[str, Architecture]:
        """Every architecture by name, in the order of names."""
        with self._engine.begin() as connection:
            rows = connection.execute(sql.select(ARCHITECTURES.c.body).order_by(ARCHITECTURES.c.name)).scalars().all()
        found = [msgspec.json.decode(body, type=Architecture) for body in rows]
        return {architecture.name: architecture for architecture in found}

    def remove_architecture(self, name: str) -> None:
        """Forget an architecture with its variants and failures; artifacts stay. An unknown name changes nothing."""
        with self.writing() as connection:
            removed = connection.execute(sql.delete(ARCHITECTURES).where(ARCHITECTURES.c.name == name)).rowcount
            connection.execute(sql.delete(VARIANTS).where(VARIANTS.c.architecture == name))
            connection.execute(sql.delete(FAILURES).where(FAILURES.c.architecture == name))
            if removed:
                _raise_revision(connection)

    def put_variant(
        self, variant: Variant, profile: Profile, origin: Origin | None = None, *, offered: bool = True
    ) -> None:
        """Add a variant with its profile, or replace the one of that name, and forget a failure under that name.

        One that is not `offered` is kept for planning and for whoever names it.

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
            "offered": int(offered),
        }
        with self.writing() as connection:
            known = sql.select(ARCHITECTURES.c.name).where(ARCHITECTURES.c.name == variant.architecture)
            if connection.execute(known).first() is None:
                raise ConfigError(f"variant {variant.name!r} needs its architecture registered before it")
            connection.execute(sql.delete(VARIANTS).where(VARIANTS.c.name == variant.name))
            connection.execute(sql.insert(VARIANTS).values(row))
            connection.execute(sql.delete(FAILURES).where(FAILURES.c.label == variant.name))
            _raise_revision(connection)

    def remove_variant(self, name: str) -> None:
        """Forget a variant; its artifact stays. An unknown name changes nothing."""
        with self.writing() as connection:
            if connection.execute(sql.delete(VARIANTS).where(VARIANTS.c.name == name)).rowcount:
                _raise_revision(connection)

    def variants(
        self, architecture: str | None = None, *, offered: bool | None = None
    ) -> list[tuple[Variant, Profile]]:
        """Variants with their profiles, of one architecture or of all, in the order of names.

        `offered` chooses those that are (True) or are not (False); None gives both.
        """
        query = sql.select(VARIANTS.c.body, VARIANTS.c.profile).order_by(VARIANTS.c.name)
        if architecture is not None:
            query = query.where(VARIANTS.c.architecture == architecture)
        if offered is not None:
            query = query.where(VARIANTS.c.offered == int(offered))
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [
            (msgspec.json.decode(body, type=Variant), msgspec.json.decode(profile, type=Profile))
            for body, profile in rows
        ]

    def offer(self, architecture: str, names: Collection[str]) -> None:
        """Offer exactly these variants of an architecture; its others are kept and not offered."""
        query = sql.select(VARIANTS.c.name, VARIANTS.c.offered).where(VARIANTS.c.architecture == architecture)
        with self.writing() as connection:
            wrong = [name for name, offered in connection.execute(query) if bool(offered) != (name in names)]
            for name in wrong:
                change = sql.update(VARIANTS).where(VARIANTS.c.name == name)
                connection.execute(change.values(offered=int(name in names)))
            if wrong:
                _raise_revision(connection)

    def origins(self, architecture: str) -> dict[str, Origin]:
        """What each variant of an architecture was made from, by variant name."""
        query = sql.select(VARIANTS.c.name, VARIANTS.c.source, VARIANTS.c.recipe)
        with self._engine.begin() as connection:
            rows = connection.execute(query.where(VARIANTS.c.architecture == architecture)).all()
        return {name: Origin(source=source, recipe=recipe) for name, source, recipe in rows}

    def record_failure(
        self, architecture: str, label: str, reason: str, origin: Origin | None = None, *, refused: bool = False
    ) -> None:
        """Remember why something of an architecture could not be made; the last reason per label is kept.

        `refused` says that trying again with this origin is of no use.
        """
        origin = origin or Origin()
        row = {
            "architecture": architecture,
            "label": label,
            "reason": reason,
            "failed_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "source": origin.source,
            "recipe": origin.recipe,
            "refused": int(refused),
        }
        with self.writing() as connection:
            _forget_failure(connection, architecture, label)
            connection.execute(sql.insert(FAILURES).values(row))
            _raise_revision(connection)

    def clear_failure(self, architecture: str, label: str) -> None:
        """Forget a failure, because it is about to be tried again."""
        with self.writing() as connection:
            if _forget_failure(connection, architecture, label):
                _raise_revision(connection)

    def failures(self, architecture: str | None = None) -> list[Failure]:
        """Every recorded failure, of one architecture or of all, in the order of names."""
        query = sql.select(FAILURES).order_by(FAILURES.c.architecture, FAILURES.c.label)
        if architecture is not None:
            query = query.where(FAILURES.c.architecture == architecture)
        with self._engine.begin() as connection:
            rows = connection.execute(query).all()
        return [
            Failure(
                architecture=x.architecture,
                label=x.label,
                reason=x.reason,
                failed_at=x.failed_at,
                origin=Origin(source=x.source, recipe=x.recipe),
                refused=bool(x.refused),
            )
            for x in rows
        ]

    def revision(self) -> int:
        """A number that grows with every change. Cheap: one row by its key."""
        with self._engine.begin() as connection:
            return _state(connection)["revision"]

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that only reads."""
        with self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that holds the one writers' lock from its start, so that checks in it stay true."""
        with self._engine.execution_options(writes=True).begin() as connection:
            connection.execute(sql.select(STATE.c.value).where(STATE.c.key == "revision").with_for_update())
            yield connection


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
    rows = connection.execute(sql.select(STATE.c.key, STATE.c.value))
    return {row.key: row.value for row in rows}


def _raise_revision(connection: Connection) -> None:
    connection.execute(sql.update(STATE).where(STATE.c.key == "revision").values(value=STATE.c.value + 1))


def _forget_failure(connection: Connection, architecture: str, label: str) -> int:
    matching = (FAILURES.c.architecture == architecture) & (FAILURES.c.label == label)
    return connection.execute(sql.delete(FAILURES).where(matching)).rowcount


def _encode(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _require_same_tensors(connection: Connection, architecture: Architecture) -> None:
    bodies = connection.execute(
        sql.select(ARCHITECTURES.c.body).where(ARCHITECTURES.c.task == architecture.use_case.task)
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
    tasks = sql.select(ARCHITECTURES.c.name).where(ARCHITECTURES.c.task == architecture.name)
    names = sql.select(ARCHITECTURES.c.name).where(ARCHITECTURES.c.name == task)
    if architecture.name == task or connection.execute(tasks).first() is not None:
        raise AlreadyExists(f"{architecture.name!r} is the name of a task; an architecture needs a name of its own")
    if connection.execute(names).first() is not None:
        raise AlreadyExists(f"task {task!r} has the name of an architecture; choose another name for the task")
