"""The journal: what is installed in a database, and how far an upgrade got. Its tables live beside the
application's.

Nothing here commits: every method sends its statements through the connection it is given, inside whatever
transaction the caller has open (none in AUTOCOMMIT). Times are seconds since 1970 by the server's clock.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Profile
from contraflow.engine.report import State
from contraflow.installed import Installed
from contraflow.problems import Problem, ProblemError

__all__ = ["FORMAT", "OPEN", "TRANSITIONS", "Checkpoint", "Entry", "Event", "Journal", "Tables", "after", "values_of"]

FORMAT = 1
"""The version of the journal's meaning. A database whose journal is newer is left alone (``CF003``)."""

OPEN = (State.PENDING, State.EXPANDED, State.MIGRATED, State.VERIFIED)

TRANSITIONS: Mapping[str, Mapping[State, State]] = {
    "expand": {State.PENDING: State.EXPANDED, State.EXPANDED: State.EXPANDED},
    "migrate": {
        State.EXPANDED: State.MIGRATED,
        State.MIGRATED: State.MIGRATED,
        State.VERIFIED: State.VERIFIED,
    },
    "verify": {State.MIGRATED: State.VERIFIED, State.VERIFIED: State.VERIFIED},
    "differ": {State.MIGRATED: State.MIGRATED, State.VERIFIED: State.MIGRATED},
    "contract": {State.MIGRATED: State.CONTRACTED, State.VERIFIED: State.CONTRACTED},
    "rollback": dict.fromkeys(OPEN, State.ROLLED_BACK),
    "grow": {State.PENDING: State.PENDING, State.EXPANDED: State.PENDING},
}
"""Verb (and the two inner events ``differ``: a verification found rows, ``grow``: revisions were added) to
state to next state.
"""


def after(verb: str, state: State) -> State | None:
    """The state that ``verb`` leads to from ``state``, None if it is not possible there."""
    return TRANSITIONS[verb].get(state)


class Tables:
    """The journal's tables, in ``schema``. Plain types only, so that they are alike on every server."""

    def __init__(self, schema: str | None = None) -> None:
        metadata = sa.MetaData(schema=schema)
        # Names and revision ids are compared byte for byte; a case-insensitive default collation must not
        # merge two of them.
        options: dict[str, Any] = {
            f"{product}_{option}": value
            for product in ("mysql", "mariadb")
            for option, value in (("engine", "InnoDB"), ("charset", "utf8mb4"), ("collate", "utf8mb4_bin"))
        }
        long_text = sa.Text(16_000_000).with_variant(sa.Text(), "postgresql", "cockroachdb", "sqlite")
        self.metadata = metadata
        self.journal = sa.Table(
            "contraflow_journal",
            metadata,
            sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("format", sa.Integer, nullable=False),
            sa.Column("library_version", sa.String(64), nullable=False),
            sa.Column("state", sa.String(16), nullable=False),
            sa.Column("pending", sa.String(16)),
            sa.Column("old", sa.String(255)),
            sa.Column("new", sa.String(255), nullable=False),
            sa.Column("revisions", long_text, nullable=False),
            sa.Column("installed", long_text, nullable=False),
            sa.Column("programs", long_text, nullable=False),
            sa.Column("profile", long_text, nullable=False),
            sa.Column("created", sa.Double, nullable=False),
            sa.Column("updated", sa.Double, nullable=False),
            **options,
        )
        self.event = sa.Table(
            "contraflow_event",
            metadata,
            sa.Column(
                "id",
                sa.BigInteger().with_variant(sa.Integer, "sqlite"),
                primary_key=True,
                autoincrement=True,
            ),
            sa.Column("number", sa.Integer, nullable=False),
            sa.Column("at", sa.Double, nullable=False),
            sa.Column("runner", sa.String(64), nullable=False),
            sa.Column("verb", sa.String(16), nullable=False),
            sa.Column("kind", sa.String(16), nullable=False),
            sa.Column("title", sa.String(255), nullable=False),
            sa.Column("statements", sa.Integer),
            sa.Column("tries", sa.Integer),
            sa.Column("seconds", sa.Double),
            sa.Column("stall", sa.Double),
            sa.Column("detail", long_text),
            **options,
        )
        self.checkpoint = sa.Table(
            "contraflow_checkpoint",
            metadata,
            sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("target", sa.String(255), primary_key=True),
            sa.Column("position", long_text),
            sa.Column("done", sa.BigInteger, nullable=False),
            sa.Column("batch", sa.Integer, nullable=False),
            sa.Column("passes", sa.Integer, nullable=False),
            sa.Column("finished", sa.Integer, nullable=False),
            **options,
        )
        self.lease = sa.Table(
            "contraflow_lease",
            metadata,
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            sa.Column("owner", sa.String(64)),
            sa.Column("expires", sa.Double, nullable=False),
            sa.Column("acquired", sa.Double, nullable=False),
            sa.Column("verb", sa.String(16), nullable=False),
            sa.Column("host", sa.String(255), nullable=False),
            sa.Column("boot", sa.String(64), nullable=False),
            sa.Column("namespace", sa.String(64), nullable=False),
            sa.Column("pid", sa.BigInteger, nullable=False),
            sa.Column("started", sa.String(64), nullable=False),
            **options,
        )
        self.node = sa.Table(
            "contraflow_node",
            metadata,
            sa.Column("id", sa.String(64), primary_key=True),
            sa.Column("name", sa.String(255), nullable=False),
            sa.Column("release", sa.String(255), nullable=False),
            sa.Column("host", sa.String(255), nullable=False),
            sa.Column("pid", sa.BigInteger, nullable=False),
            sa.Column("started", sa.Double, nullable=False),
            sa.Column("seen", sa.Double, nullable=False),
            sa.Column("library_version", sa.String(64), nullable=False),
            **options,
        )

    def exist(self, connection: sa.Connection) -> bool:
        """Whether all of the journal's tables stand."""
        inspector = sa.inspect(connection)
        return all(inspector.has_table(table.name, schema=table.schema) for table in self.metadata.tables.values())

    def create(self, connection: sa.Connection) -> None:
        """Create the tables that are missing. Two runners may do so at once.

        ``IF NOT EXISTS`` does not keep two sessions of PostgreSQL from colliding in its catalog (23505 on
        pg_type), so a failure counts only if the table is still missing afterwards.
        """
        if self.exist(connection):
            return
        for table in self.metadata.sorted_tables:
            for attempt in range(3):
                try:
                    connection.execute(sa.schema.CreateTable(table, if_not_exists=True))
                    break
                except sa.exc.DBAPIError:
                    if sa.inspect(connection).has_table(table.name, schema=table.schema):
                        break
                    if attempt == 2:
                        raise


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One revision of an upgrade, as it was when it was expanded."""

    id: str
    fingerprint: str
    doc: str = ""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One upgrade: the row of ``contraflow_journal``."""

    number: int
    state: State
    pending: str | None
    """A verb that was begun and not finished."""
    old: str | None
    new: str
    revisions: tuple[Revision, ...]
    installed: tuple[Installed, ...]
    programs: Mapping[str, Any]
    """The SQL of the data phases, a table each, so that they can be finished without evaluating a lens."""
    profile: Profile
    library: str
    created: float
    updated: float
    format: int = FORMAT

    @property
    def id(self) -> str:
        """``OLD:NEW``, as in :class:`contraflow.operations.planning.Upgrade`."""
        return f"{self.old or 'base'}:{self.new}"

    @property
    def open(self) -> bool:
        """Whether the upgrade is neither contracted nor rolled back."""
        return self.state in OPEN


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that was done: the row of ``contraflow_event``."""

    verb: str
    kind: str
    """``begun``, ``done``, ``failed``, ``forced`` ..."""
    title: str
    at: float
    statements: int | None = None
    tries: int | None = None
    seconds: float | None = None
    stall: float | None = None
    """The longest one try took, waiting for its lock and holding it: what a writer may have waited, in
    seconds.
    """
    detail: str | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """How far the backfill of one table got."""

    target: str
    position: tuple[Any, ...] | None = None
    """The key up to which rows are filled; None at the start of a pass."""
    done: int = 0
    """Rows written so far."""
    batch: int = 0
    """The present batch size; 0 if none was run."""
    passes: int = 0
    """Passes over the table that came to its end."""
    finished: bool = False


@dataclass(frozen=True, kw_only=True)
class Journal:
    """Reads and writes the journal of one database, on behalf of one runner."""

    tables: Tables
    runner: str
    library: str = field(default="")

    # -- upgrades ---

    def entries(self, connection: sa.Connection) -> list[Entry]:
        """All upgrades this database has seen, oldest first. Raises ``CF003`` if a newer Contraflow wrote one
        of them.
        """
        table = self.tables.journal
        newest = connection.execute(
            sa.select(table.c.format, table.c.library_version).order_by(table.c.format.desc()).limit(1)
        ).first()
        if newest is not None and newest.format > FORMAT:
            raise ProblemError(
                Problem(
                    code="CF003",
                    what=f"the journal has format {newest.format}; this Contraflow knows up to {FORMAT}.",
                    why="it cannot know what the newer version installed, and would leave it half removed.",
                    instead=f"pip install 'contraflow>={newest.library_version}', then run the same command again.",
                )
            )
        rows = connection.execute(sa.select(table).order_by(table.c.number)).mappings()
        return [_entry(row) for row in rows]

    def current(self, connection: sa.Connection) -> Entry | None:
        """The open upgrade, else the last one, else None."""
        entries = self.entries(connection)
        return next((entry for entry in entries if entry.open), entries[-1] if entries else None)

    def begin(self, connection: sa.Connection, entry: Entry) -> Entry:
        """Write a new upgrade, with the next free number."""
        table = self.tables.journal
        last = connection.execute(sa.select(sa.func.max(table.c.number))).scalar()
        entry = replace(entry, number=(last or 0) + 1)
        connection.execute(sa.insert(table).values(number=entry.number, created=entry.created, **values_of(entry)))
        return entry

    def save(self, connection: sa.Connection, entry: Entry) -> None:
        """Write the present values of an upgrade's row."""
        table = self.tables.journal
        connection.execute(sa.update(table).where(table.c.number == entry.number).values(**values_of(entry)))

    # -- events ---

    def record(self, connection: sa.Connection, entry: Entry, event: Event) -> None:
        """Append an event."""
        connection.execute(
            sa.insert(self.tables.event).values(
                number=entry.number,
                at=event.at,
                runner=self.runner,
                verb=event.verb,
                kind=event.kind,
                title=event.title[:255],
                statements=event.statements,
                tries=event.tries,
                seconds=event.seconds,
                stall=event.stall,
                detail=event.detail,
            )
        )

    def events(self, connection: sa.Connection, entry: Entry) -> list[Event]:
        """The events of an upgrade, oldest first."""
        table = self.tables.event
        rows = connection.execute(
            sa.select(table).where(table.c.number == entry.number).order_by(table.c.at, table.c.id)
        ).mappings()
        names = ("verb", "kind", "title", "at", "statements", "tries", "seconds", "stall", "detail")
        return [Event(**{name: row[name] for name in names}) for row in rows]

    # -- checkpoints ---

    def checkpoint(self, connection: sa.Connection, entry: Entry, target: str) -> Checkpoint:
        """Where the backfill of a table stands; at its start if it was never begun."""
        table = self.tables.checkpoint
        row = (
            connection.execute(sa.select(table).where(table.c.number == entry.number, table.c.target == target))
            .mappings()
            .first()
        )
        if row is None:
            return Checkpoint(target=target)
        return Checkpoint(
            target=target,
            position=None if row["position"] is None else decode_key(row["position"]),
            done=row["done"],
            batch=row["batch"],
            passes=row["passes"],
            finished=bool(row["finished"]),
        )

    def save_checkpoint(self, connection: sa.Connection, entry: Entry, checkpoint: Checkpoint) -> None:
        """Write a checkpoint, over the one before."""
        table = self.tables.checkpoint
        values = {
            "position": None if checkpoint.position is None else encode_key(checkpoint.position),
            "done": checkpoint.done,
            "batch": checkpoint.batch,
            "passes": checkpoint.passes,
            "finished": int(checkpoint.finished),
        }
        key = (table.c.number == entry.number) & (table.c.target == checkpoint.target)
        if not connection.execute(sa.update(table).where(key).values(**values)).rowcount:
            connection.execute(sa.insert(table).values(number=entry.number, target=checkpoint.target, **values))

    def forget_checkpoints(self, connection: sa.Connection, entry: Entry) -> None:
        """Remove the checkpoints of an upgrade that is over, or starts anew."""
        table = self.tables.checkpoint
        connection.execute(sa.delete(table).where(table.c.number == entry.number))


def values_of(entry: Entry) -> dict[str, Any]:
    """The columns of the upgrade's row, but for its number and when it was created."""
    return {
        "format": entry.format,
        "library_version": entry.library,
        "state": entry.state.value,
        "pending": entry.pending,
        "old": entry.old,
        "new": entry.new,
        "revisions": json.dumps(
            [{"id": item.id, "fingerprint": item.fingerprint, "doc": item.doc} for item in entry.revisions]
        ),
        "installed": json.dumps([item.as_dict() for item in entry.installed]),
        "programs": json.dumps(entry.programs),
        "profile": json.dumps(entry.profile.as_dict()),
        "updated": entry.updated,
    }


def _entry(row: sa.RowMapping) -> Entry:
    return Entry(
        number=row["number"],
        format=row["format"],
        library=row["library_version"],
        state=State(row["state"]),
        pending=row["pending"],
        old=row["old"],
        new=row["new"],
        revisions=tuple(
            Revision(id=item["id"], fingerprint=item["fingerprint"], doc=item.get("doc", ""))
            for item in json.loads(row["revisions"])
        ),
        installed=tuple(map(Installed.from_dict, json.loads(row["installed"]))),
        programs=json.loads(row["programs"]),
        profile=Profile.from_dict(json.loads(row["profile"])),
        created=row["created"],
        updated=row["updated"],
    )


# -- keys ---

# How a key's value is written down, by its tag. Whatever a driver returns for a column of a primary key must
# come back as the same
# value of the same type, or the next range would begin elsewhere.
_ENCODERS: Sequence[tuple[str, type, Any, Any]] = (
    ("bytes", bytes, lambda value: base64.b64encode(value).decode("ascii"), base64.b64decode),
    ("decimal", decimal.Decimal, str, decimal.Decimal),
    ("uuid", uuid.UUID, str, uuid.UUID),
    ("datetime", dt.datetime, lambda value: value.isoformat(), dt.datetime.fromisoformat),
    ("date", dt.date, lambda value: value.isoformat(), dt.date.fromisoformat),
    ("time", dt.time, lambda value: value.isoformat(), dt.time.fromisoformat),
    (
        "timedelta",
        dt.timedelta,
        lambda value: [value.days, value.seconds, value.microseconds],
        lambda parts: dt.timedelta(*parts),
    ),
    ("float", float, lambda value: value.hex(), float.fromhex),
)


def encode_key(key: Sequence[Any]) -> str:
    """A key's values as text, readable again by :func:`decode_key`. Raises TypeError for a type that no key
    column returns.
    """
    return json.dumps([_encode(value) for value in key])


def _encode(value: Any) -> Any:
    if isinstance(value, (memoryview, bytearray)):
        value = bytes(value)
    if value is None or isinstance(value, (str, int)):  # bool is an int to every server
        return value
    for tag, type_, encode, _decode in _ENCODERS:
        if isinstance(value, type_):
            return {tag: encode(value)}
    raise TypeError(f"a key of type {type(value).__name__} cannot be written to the journal")


def decode_key(text: str) -> tuple[Any, ...]:
    """The key that :func:`encode_key` was called on."""
    decoders = {tag: decode for tag, _type, _encode, decode in _ENCODERS}
    values: list[Any] = []
    for item in json.loads(text):
        if isinstance(item, dict):
            ((tag, value),) = item.items()
            values.append(decoders[tag](value))
        else:
            values.append(item)
    return tuple(values)
