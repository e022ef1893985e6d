"""Upgrades that are put under load: which tables each release has, and how their rows correspond."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from contraflow import (
    AddColumn,
    AddCompanion,
    AddSurrogateKey,
    ChangeComment,
    ChangeDefault,
    ChangeType,
    CopyColumn,
    CopyTable,
    CreateIndex,
    CreateTable,
    DropColumn,
    DropIndex,
    DropTable,
    KeyReference,
    Lens,
    MergeTables,
    MoveColumns,
    Opaque,
    OpaqueColumns,
    OpaqueWriter,
    ReferColumns,
    RenameColumn,
    RenameTable,
    ReplaceKey,
    Source,
    SplitTable,
    TightenNotNull,
    TransformColumns,
    Upgrade,
)
from contraflow.expressions import after, before, concat, mod, recode, substr, trim
from contraflow.operations.base import Operation
from tests.operations.lives import LIVES, TABLE, Life, create, send
from tests.upgrades import upgrade_of


@dataclass(frozen=True, kw_only=True)
class Part:
    """Columns of a release's row that stand in one table."""

    table: str
    key: str = "id"
    columns: Mapping[str, sa.Column[Any]]
    """Without the key."""
    odd: str | None = None
    """The table in which the rows with odd keys stand, if not in the same one."""

    @property
    def tables(self) -> list[str]:
        """All that have rows of it."""
        return [self.table, self.odd] if self.odd else [self.table]

    def of(self, key: int) -> str:
        """The table in which the row stands."""
        return self.tables[key % len(self.tables)]


@dataclass(frozen=True, kw_only=True)
class Course:
    """An upgrade as its releases see it: a row of either may stand in several tables, the first of which is never
    without it.
    """

    name: str
    upgrade: Upgrade
    create: Callable[[sa.Engine], None]
    """Makes the old release's tables, and what stands in them before."""
    old: Sequence[Part]
    new: Sequence[Part]
    same: Mapping[str, str]
    """The old release's columns to those of the new one which are their copies, or the same."""
    images: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    """For columns that are no plain copies: what the other release reads, the same way in both directions."""
    given: frozenset[str] = frozenset()
    """Columns that no release leaves NULL any more: nothing would fill them."""
    draws: Mapping[str, Callable[[int], Any]] = field(default_factory=dict)
    """For columns that cannot hold just any value: one for a writer's number."""
    labels: Sequence[str] = ()
    """The values of an enumerated column that both releases know: others may stand from contract on. Without them, each
    release writes those of its own column."""
    whole: bool = False
    """A column follows another: an update writes all columns, so that the writer knows what it will read."""
    opaque: Callable[[], OpaqueWriter] | None = None
    """How the new release writes where no trigger could follow it."""

    def parts(self, release: str) -> Sequence[Part]:
        """The tables of the release."""
        return self.old if release == "old" else self.new

    def columns(self, release: str) -> dict[str, sa.Column[Any]]:
        """The columns of the release."""
        return {name: column for part in self.parts(release) for name, column in part.columns.items()}

    def names(self, release: str, shape: str) -> dict[str, str]:
        """What the release's writers know, as names of theirs to names in the other shape.

        A NULL that the upgrade (or its rollback) fills is not what its writer wrote.
        """
        theirs = self.columns(release)
        if release == shape:
            return {name: name for name in theirs}
        there = self.columns(shape)
        across = self.same if release == "old" else {new: old for old, new in self.same.items()}
        return {mine: other for mine, other in across.items() if there[other].nullable or not theirs[mine].nullable}


def course_of(life: Life) -> Course:
    """A life's."""
    old, new = (_columns(items) for items in (life.old, life.new))
    renamed = {operation.old: operation.new for operation in life.operations if isinstance(operation, RenameColumn)}

    def make(engine: sa.Engine) -> None:
        create(engine, life.old, life.parents)
        send(engine, life.seed)

    return Course(
        name=life.name,
        upgrade=life.upgrade,
        create=make,
        old=[Part(table=TABLE, columns=old)],
        new=[Part(table=TABLE, columns=new)],
        same={name: renamed.get(name, name) for name in old if renamed.get(name, name) in new},
        given=frozenset(
            operation.column
            for operation in life.operations
            if isinstance(operation, TightenNotNull) and operation.fill is None
        ),
        labels=next((column.type.enums for column in old.values() if isinstance(column.type, sa.types.Enum)), ()),
        whole=any(
            isinstance(operation, (AddColumn, DropColumn)) and operation.keep == "track"
            for operation in life.operations
        ),
    )


def _columns(items: Sequence[sa.schema.SchemaItem]) -> dict[str, sa.Column[Any]]:
    """The columns beside the key."""
    unique = {str(name) for item in items if isinstance(item, sa.UniqueConstraint) for name in item._pending_colargs}
    columns = [item for item in items if isinstance(item, sa.Column) and item.name != "id"]
    for column in columns:
        column.info["unique"] = column.name in unique
    return {column.name: column for column in columns}


# --- several tables ---------------------------------------------------------------------------------------------------


def _key(name: str = "id") -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=True, autoincrement=False)


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(60), nullable=nullable)


def _of_user(metadata: sa.MetaData, name: str, *columns: sa.Column[Any]) -> sa.Table:
    """A table of which a row belongs to one user."""
    user = sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    user.autoincrement = False
    return sa.Table(name, metadata, user, *columns)


def _users(*items: sa.schema.SchemaItem) -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table("users", metadata, _key(), *items)
    return metadata


def _parts(metadata: sa.MetaData, *names: str) -> list[Part]:
    found = []
    for name in names or ("users",):
        (key,) = metadata.tables[name].primary_key.columns
        columns = {column.name: column for column in metadata.tables[name].columns if not column.primary_key}
        found.append(Part(table=name, key=key.name, columns=columns))
    return found


def _course(
    name: str,
    operations: Sequence[Operation],
    old: tuple[sa.MetaData, Sequence[str]],
    new: Sequence[Part],
    same: Mapping[str, str] | Sequence[str],
    **more: Any,
) -> Course:
    metadata, tables = old
    return Course(
        name=name,
        upgrade=upgrade_of(*operations),
        create=metadata.create_all,
        old=_parts(metadata, *tables),
        new=new,
        same=same if isinstance(same, Mapping) else {one: one for one in same},
        **more,
    )


def _renamed() -> Course:
    people = sa.MetaData()
    sa.Table("people", people, _key(), _text("mail"), _text("town", nullable=True))
    return _course(
        "a table is renamed, and a column with it",
        [RenameTable(table="users", new="people"), RenameColumn(table="people", old="city", new="town")],
        (_users(_text("mail"), _text("city", nullable=True)), ["users"]),
        _parts(people, "people"),
        {"mail": "mail", "city": "town"},
    )


def _come_and_gone() -> Course:
    old, new = _users(_text("name")), _users(_text("name"))
    _of_user(old, "badges", _text("code", nullable=True))
    notes = _of_user(new, "notes", _text("note"))
    return _course(
        "a table comes, another goes",
        [CreateTable(definition=notes), DropTable(table="badges")],
        (old, ["users", "badges"]),
        _parts(new, "users", "notes"),
        ["name"],
    )


def _split() -> Course:
    old = _users(_text("name"), _text("login"), _text("bio", nullable=True))
    new = _users(_text("name"))
    profiles = _of_user(new, "profiles", _text("login"), _text("bio", nullable=True))
    return _course(
        "a table is split in two",
        [
            CreateTable(definition=profiles),
            MoveColumns(
                table="users", to="profiles", on={"id": "user_id"}, columns=["login", "bio"], missing={"login": ""}
            ),
        ],
        (old, ["users"]),
        _parts(new, "users", "profiles"),
        ["name", "login", "bio"],
    )


def _joined() -> Course:
    old = _users(_text("name"))
    _of_user(old, "profiles", _text("bio", nullable=True), _text("lang", nullable=True))
    new = _users(_text("name"), _text("bio", nullable=True), _text("lang", nullable=True))
    return _course(
        "two tables become one",
        [
            MoveColumns(table="profiles", to="users", on={"user_id": "id"}, columns=["bio", "lang"]),
            DropTable(table="profiles"),
        ],
        (old, ["users", "profiles"]),
        _parts(new),
        ["name", "bio", "lang"],
    )


def _opaque() -> Course:
    operation = OpaqueColumns(
        table="users",
        columns=[sa.Column("sealed", sa.String(80), nullable=False)],
        lens=Opaque(
            old=["secret"],
            new=["sealed"],
            forward=lambda row: {"sealed": row["secret"][::-1]},
            backward=lambda row: {"secret": row["sealed"][::-1]},
        ),
    )
    return _course(
        "a column that only Python can compute",
        [operation],
        (_users(_text("secret"), _text("note", nullable=True)), ["users"]),
        _parts(_users(sa.Column("sealed", sa.String(80), nullable=False), _text("note", nullable=True))),
        {"secret": "sealed", "note": "note"},
        images={"secret": lambda text: text[::-1], "sealed": lambda text: text[::-1]},
        opaque=lambda: OpaqueWriter(operation),
    )


def _referring() -> Course:
    """The old release knows levels by their numbers, the new one by their keys, which count backwards."""
    number = sa.Column("level", sa.Integer, nullable=False)
    old = _users(_text("name"), number, sa.Index("ix_users_level", "level"))
    sa.Table("levels", old, _key(), sa.Column("number", sa.Integer, nullable=False, unique=True))
    key = sa.Column("level_id", sa.Integer, nullable=False)

    def make(engine: sa.Engine) -> None:
        old.create_all(engine)
        send(engine, ["INSERT INTO levels (id, number) VALUES (1, 3), (2, 2), (3, 1)"])

    course = _course(
        "a natural key becomes a foreign key",
        [
            ReferColumns(table="users", columns={"level": "number"}, column=key._copy(), to="levels", key="id"),
            DropIndex(table="users", name="ix_users_level"),
            CreateIndex(table="users", name="ix_users_level_id", columns=["level_id"]),
        ],
        (old, ["users"]),
        _parts(_users(_text("name"), key)),
        {"name": "name", "level": "level_id"},
        images={"level": lambda number: 4 - number, "level_id": lambda number: 4 - number},
    )
    return replace(course, create=make)


def _companions() -> Course:
    """Each row of the old release gets a row of another table; the new one says by itself to which a row refers."""
    old = _users(_text("name"))
    sa.Table(
        "homes",
        old,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, nullable=False, unique=True),
        _text("street", nullable=True),
    )
    key = sa.Column("home_id", sa.Integer, nullable=False)
    return _course(
        "each row gets a companion",
        [AddCompanion(table="users", column=key._copy(), to="homes", key="id", columns={"id": "user_id"})],
        (old, ["users"]),
        _parts(_users(_text("name"), key)),
        ["name"],
    )


def _copied() -> Course:
    """A user's region is copied from its home. The new release writes both, until the old one is gone."""
    old, new = _users(_text("name")), _users(_text("name"), _text("region", nullable=True))
    for metadata in (old, new):
        _of_user(metadata, "homes", _text("home", nullable=True))
    region = _text("region", nullable=True)
    source = Source(table="homes", column="home", on={"id": "user_id"})
    return _course(
        "a column is copied from another table",
        [CopyColumn(table="users", column=region, sources=[source])],
        (old, ["users", "homes"]),
        _parts(new, "users", "homes"),
        ["name", "home"],
        whole=True,
    )


def _transformed() -> Course:
    """A name is split in two, a column goes, another one gets a default, and comments: each release reads its own."""
    old = _users(sa.Column("full_name", sa.String(130), nullable=False), _text("note", nullable=True), _text("fax"))
    new = _users(_text("first"), _text("last"), _text("note", nullable=True))
    return _course(
        "a column is split in two, another goes",
        [
            TransformColumns(
                table="users",
                columns=[
                    sa.Column("first", sa.String(130), nullable=False),
                    sa.Column("last", sa.String(130), nullable=False),
                ],
                lens=Lens(
                    old=["full_name"],
                    new=["first", "last"],
                    forward=lambda row: {
                        "first": before(row.full_name, " "),
                        "last": after(row.full_name, " "),
                    },
                    backward=lambda row: {"full_name": substr(trim(concat(row.first, " ", row.last)), 1, 130)},
                    lossy=True,
                ),
            ),
            DropColumn(table="users", column="fax", value=lambda _row: "none"),
            ChangeDefault(table="users", column="note", default="-", omitted="old"),
            ChangeComment(table="users", column="note", comment="no default yet"),
            ChangeComment(table="users", comment="who may log in"),
        ],
        (old, ["users"]),
        _parts(new),
        ["note"],
    )


def _own_copy() -> Course:
    """The new release has the rows in a table of its own."""
    old, new = _users(_text("name"), _text("note", nullable=True)), sa.MetaData()
    people = sa.Table("people", new, _key(), _text("name"), _text("note", nullable=True))
    return _course(
        "a table is copied, and goes",
        [CreateTable(definition=people), CopyTable(table="users", to="people"), DropTable(table="users")],
        (old, ["users"]),
        _parts(new, "people"),
        ["name", "note"],
    )


def _split_by_rows() -> Course:
    """The new release has a table for rows with even keys, and one for the others."""
    old, new = _users(_text("name"), _text("note", nullable=True)), sa.MetaData()
    tables = [sa.Table(name, new, _key(), _text("name"), _text("note", nullable=True)) for name in ("evens", "odds")]
    (part,) = _parts(new, "evens")
    return _course(
        "a table is split by a condition",
        [
            *(CreateTable(definition=table) for table in tables),
            SplitTable(
                table="users", matching="odds", others="evens", reads=["id"], where=lambda row: mod(row.id, 2) == 1
            ),
            DropTable(table="users"),
        ],
        (old, ["users"]),
        [replace(part, odd="odds")],
        ["name", "note"],
    )


def _merged() -> Course:
    """The old release has a table for rows with odd keys, and one for the others; the new one moves rows by a word."""
    old, new = sa.MetaData(), sa.MetaData()
    for name in ("evens", "odds"):
        sa.Table(name, old, _key(), _text("name"), _text("note", nullable=True))
    kind: sa.Column[str] = sa.Column("kind", sa.Enum("odd", "even", native_enum=False), nullable=False)
    people = sa.Table("people", new, _key(), _text("name"), _text("note", nullable=True), kind)
    course = _course(
        "two tables are merged",
        [
            CreateTable(definition=people),
            MergeTables(
                matching="odds",
                others="evens",
                to="people",
                reads=["kind"],
                where=lambda row: row.kind == "odd",
                values={"odds": {"kind": "odd"}, "evens": {"kind": "even"}},
            ),
            DropTable(table="odds"),
            DropTable(table="evens"),
        ],
        (old, ["evens"]),
        _parts(new, "people"),
        ["name", "note"],
    )
    (part,) = course.old
    return replace(course, old=[replace(part, odd="odds")])


def _recoded(name: str, old: Sequence[str], new: Sequence[str], forward: Mapping[str, str]) -> Course:
    """The values of an enumerated column: ``forward`` from those of the old release to those of the new one."""
    backward = {there: here for here, there in reversed(list(forward.items()))}
    state: sa.Column[str] = sa.Column("state", sa.Enum(*old, name="state"), nullable=False)
    type_ = sa.Enum(*new, name="state_2")
    other: sa.Column[str] = sa.Column("state_2", type_, nullable=False)
    metadata = _users(_text("name"), state)

    def make(engine: sa.Engine) -> None:
        metadata.create_all(engine)
        type_.create(engine)  # an earlier revision's, where it is a type of its own (PostgreSQL)

    course = _course(
        name,
        [
            ChangeType(
                table="users",
                column="state",
                new=other._copy(),
                forward=lambda row: recode(row.state, forward, default=new[0]),
                backward=lambda row: recode(row.state_2, backward, default=old[0]),
                lossy=len(backward) < len(forward),
            )
        ],
        (metadata, ["users"]),
        _parts(_users(_text("name"), other._copy())),
        {"name": "name", "state": "state_2"},
        images={"state": forward.__getitem__, "state_2": backward.__getitem__},
    )
    return replace(course, create=make)


class _Teams:
    """The keys of three teams in both releases, as an upgrade gives them; they are known until the next one does."""

    def __init__(self) -> None:
        self.uids: dict[int, str] = {}
        self._engine: sa.Engine | None = None

    def create(self, engine: sa.Engine, tables: sa.MetaData) -> None:
        """Make the old release's tables, and the teams."""
        tables.create_all(engine)
        send(engine, ["INSERT INTO teams (name) VALUES ('a')"] * 3)
        self._engine = engine

    def draw(self, number: int) -> str:
        """The key of one of them in the new release, which alone asks."""
        assert self._engine is not None
        with self._engine.connect() as connection, contextlib.suppress(sa.exc.DBAPIError):  # contracted
            self.uids = {row[0]: row[1] for row in connection.exec_driver_sql("SELECT id, uid FROM teams")}
        return self.uids[number % 3 + 1]

    def number(self, uid: str) -> int:
        """The key in the old release."""
        return next(number for number, known in self.uids.items() if known == uid)


def _replaced() -> Course:
    """The keys of teams and of their users become UUIDs. The releases go on telling users apart by a code."""
    old, teams = sa.MetaData(), _Teams()
    sa.Table("teams", old, sa.Column("id", sa.Integer, primary_key=True), _text("name"))
    sa.Table(
        "users",
        old,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("code", sa.BigInteger, nullable=False, unique=True),
        _text("name"),
        sa.Column("team_id", sa.Integer, sa.ForeignKey("teams.id"), nullable=False, index=True),
    )
    uid = sa.Column("uid", sa.String(36), nullable=False)
    refers = KeyReference(table="users", old="team_id", new="team_uid", name="fk_users_team", index="ix_users_team")
    column = sa.Column("team_uid", sa.String(36), nullable=False)
    course = _course(
        "numbered keys become UUIDs",
        [
            ReplaceKey(table="teams", old="id", column=uid._copy(), references=[refers]),
            ReplaceKey(table="users", old="id", column=uid._copy()),
        ],
        (old, ["users"]),
        [Part(table="users", key="code", columns={"uid": uid, "name": _text("name"), "team_uid": column})],
        {"name": "name", "team_id": "team_uid"},
        images={"team_id": lambda number: teams.uids[number], "team_uid": teams.number},
        draws={"team_uid": teams.draw},
    )
    columns = {name: old.tables["users"].c[name] for name in ("name", "team_id")}
    return replace(
        course,
        create=lambda engine: teams.create(engine, old),
        old=[Part(table="users", key="code", columns=columns)],
    )


def _numbered() -> Course:
    """The server numbers the rows, and the releases go on telling them apart by the key that was."""
    old = sa.MetaData()
    code = sa.Column("code", sa.BigInteger, primary_key=True, autoincrement=False)  # no alias of SQLite's row number
    sa.Table("users", old, code, _text("name"))
    return _course(
        "a table gets a primary key that the server numbers",
        [
            AddSurrogateKey(
                table="users",
                column=sa.Column("number", sa.Integer, sa.Identity()),
                unique="uq_users_code",
                copies=True,
            )
        ],
        (old, ["users"]),
        _parts(old),
        ["name"],
    )


COURSES = (
    *(course_of(life) for life in LIVES if any(getattr(item, "name", None) == "id" for item in life.old)),
    *(_renamed(), _come_and_gone(), _split(), _joined(), _referring(), _companions(), _opaque()),
    *(_copied(), _transformed(), _numbered(), _replaced(), _own_copy(), _split_by_rows(), _merged()),
    _recoded(
        "values of an enumerated column are renamed",
        ["active", "disabled"],
        ["active", "locked"],
        {"active": "active", "disabled": "locked"},
    ),
    _recoded(
        "a value of an enumerated column goes",
        ["active", "disabled", "gone"],
        ["active", "disabled"],
        {"active": "active", "disabled": "disabled", "gone": "disabled"},
    ),
)
