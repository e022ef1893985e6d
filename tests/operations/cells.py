"""How each operation is carried out on each server, told from what is planned: the table in docs/operations.md.

``python -m tests.operations.cells`` prints it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence

import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddColumn,
    AddCompanion,
    AddEnumValues,
    AddExclusion,
    AddForeignKey,
    AddPrimaryKey,
    AddSurrogateKey,
    AddUnique,
    ChangeComment,
    ChangeDefault,
    ChangeType,
    CopyColumn,
    CopyTable,
    CreateIndex,
    CreateTable,
    Declared,
    DropCheck,
    DropColumn,
    DropExclusion,
    DropForeignKey,
    DropIndex,
    DropPrimaryKey,
    DropTable,
    DropUnique,
    KeyReference,
    Lens,
    LoosenNotNull,
    MergeTables,
    MoveColumns,
    Opaque,
    OpaqueColumns,
    ReferColumns,
    RenameColumn,
    RenameTable,
    ReplaceKey,
    Source,
    SplitTable,
    TightenNotNull,
    TransformColumns,
    Upgrade,
    WidenColumn,
)
from contraflow.dialects import Adapter, Profile, Statement, for_profile
from contraflow.expressions import concat, length, lower, upper
from contraflow.operations.base import Operation, TableName
from contraflow.operations.held import EXCLUSIONS
from contraflow.operations.planning import plan
from contraflow.steps import (
    AddAlias,
    AllowNull,
    Backfill,
    BackfillCopy,
    BackfillPair,
    Block,
    BuildConstraint,
    BuildIndex,
    ChangeKey,
    EnforceNotNull,
    ExtendEnums,
    Hold,
    NumberColumn,
    Online,
    Phases,
    SetComments,
    Step,
    WidenColumns,
)
from tests.upgrades import upgrade_of

PROFILES = (
    Profile(product="postgresql", version=(18, 0)),
    Profile(product="cockroachdb", version=(25, 4, 0)),
    Profile(product="mysql", version=(9, 7, 0)),
    Profile(product="mariadb", version=(10, 11, 0)),
    Profile(product="mariadb", version=(10, 11, 0), settings={"wsrep_on": "ON"}),
    Profile(product="sqlite", version=(3, 40, 0)),
)
TITLES: Mapping[str, str] = {
    "postgresql": "PostgreSQL",
    "cockroachdb": "CockroachDB",
    "mysql": "MySQL",
    "mariadb": "MariaDB",
    "galera": "Galera",
    "sqlite": "SQLite",
}


def server(profile: Profile) -> str:
    """The key of the profile's server in :data:`TITLES`."""
    return "galera" if profile.settings.get("wsrep_on") == "ON" else profile.product


EXAMPLES: Sequence[Operation] = (
    RenameColumn(table="users", old="city", new="town"),
    TransformColumns(
        table="users",
        columns=[sa.Column("address", sa.String(200))],
        lens=Lens(
            old=["city", "street"],
            new=["address"],
            forward=lambda row: {"address": concat(row.city, " ", row.street)},
        ),
    ),
    ChangeType(
        table="users",
        column="city",
        new=sa.Column("town", sa.String(90)),
        forward=lambda row: lower(row.city),
        backward=lambda row: upper(row.town),
        lossy=True,
    ),
    AddColumn(table="users", column=sa.Column("locale", sa.String(9), nullable=False, server_default="en")),
    DropColumn(table="users", column="street"),
    ChangeDefault(table="users", column="street", default="", omitted="old"),
    ChangeComment(table="users", column="street", comment="and number"),
    OpaqueColumns(
        table="users",
        columns=[sa.Column("sealed", sa.Text)],
        lens=Opaque(old=["street"], new=["sealed"], forward=dict, backward=dict),
    ),
    WidenColumn(table="users", column="city", type=sa.String(63), replans=True),
    WidenColumn(table="users", column="realm", type=sa.BigInteger, replans=True),
    AddEnumValues(table="users", column="state", values=["suspended"]),
    CreateTable(
        definition=sa.Table(
            "orders",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), index=True),
        )
    ),
    DropTable(table="users"),
    RenameTable(table="users", new="people"),
    MoveColumns(table="users", to="places", on={"id": "user_id"}, columns=["street"]),
    CopyColumn(
        table="users",
        column=sa.Column("country", sa.String(60)),
        sources=[Source(table="realms", column="country", on={"realm": "id"})],
        scans=True,
    ),
    CopyTable(table="mails", to="letters"),
    SplitTable(table="mails", matching="read", others="unread", reads=["seen"], where=lambda row: row.seen > 0),
    MergeTables(
        matching="read",
        others="unread",
        to="mails",
        reads=["seen"],
        where=lambda row: row.seen > 0,
        values={"read": {"seen": 1}, "unread": {"seen": 0}},
    ),
    ReferColumns(
        table="users",
        columns={"city": "name"},
        column=sa.Column("town_id", sa.Integer, nullable=False),
        to="towns",
        key="id",
        create=True,
        scans=True,
    ),
    AddCompanion(
        table="users",
        column=sa.Column("home_id", sa.Integer, nullable=False),
        to="towns",
        key="id",
        columns={"mail": "name"},
    ),
    CreateIndex(table="users", name="ix_users_street", columns=["street"]),
    CreateIndex(table="users", name="ix_users_lower", columns=[sa.text("lower(street)")]),
    CreateIndex(table="users", name="ix_users_some", columns=["street"], where=sa.text("realm = 1")),
    DropIndex(table="users", name="ix_users_zone"),
    AddUnique(table="users", name="uq_users_street", columns=["street"]),
    DropUnique(table="users", columns=["mail"]),
    AddPrimaryKey(table="users", columns=["mail"]),
    DropPrimaryKey(table="users"),
    AddSurrogateKey(table="users", column=sa.Column("number", sa.Integer, sa.Identity()), unique="uq_users_id"),
    ReplaceKey(
        table="groups",
        old="id",
        column=sa.Column("uid", sa.Uuid()),
        references=[KeyReference(table="users", old="group", new="group_uid", name="fk_users_uid", scans=True)],
    ),
    AddForeignKey(table="users", name="fk_users_realm", columns=["realm"], target="realms", target_columns=["id"]),
    DropForeignKey(table="users", columns=["group"]),
    AddCheck(table="users", name="ck_users_street", columns=["street"], condition=lambda row: length(row.street) > 0),
    DropCheck(table="users", name="ck_users_zone"),
    AddExclusion(table="users", name="ex_users_realm", elements=[("realm", "=")], blocks=True),
    DropExclusion(table="users", name="ex_users_state"),
    TightenNotNull(table="users", column="street"),
    LoosenNotNull(table="users", column="city"),
)


def _mails(name: str) -> sa.Table:
    seen = [] if name in ("read", "unread") else [sa.Column("seen", sa.Integer)]
    key = sa.Column("id", sa.Integer, primary_key=True, autoincrement=False)
    return sa.Table(name, sa.MetaData(), key, sa.Column("body", sa.String(60)), *seen)


def _whole_rows(operation: CopyTable | MergeTables | SplitTable, adapter: Adapter) -> Phases:
    """The operation with the tables that come and go."""
    names = [name for _, name in operation.tables]
    old, new = (names[:1], names[1:]) if not isinstance(operation, MergeTables) else (names[1:], names[:1])
    made = {name: _mails(name) for name in names}
    if isinstance(operation, SplitTable):
        for name in new:
            made[name].append_column(sa.Column("seen", sa.Integer))
    operations = (
        *(CreateTable(definition=made[name]) for name in new),
        operation,
        *(DropTable(table=one) for one in old),
    )
    upgrade = upgrade_of(*operations, new="r")
    return plan(upgrade, {(None, name): made[name] for name in old}, write=adapter.condition)


def phases(operation: Operation, adapter: Adapter) -> Phases:
    """The operation alone, planned on a table of people, on the adapter's server."""
    if isinstance(operation, (CopyTable, MergeTables, SplitTable)):
        return _whole_rows(operation, adapter)
    text = sa.String(60)
    table = sa.Table(
        "users",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        *(sa.Column(name, text, nullable=name == "street") for name in ("city", "street", "mail", "zone")),
        *(sa.Column(name, sa.Integer) for name in ("realm", "group")),
        sa.Column("state", sa.String(6) if adapter.product == "sqlite" else sa.Enum("active", name="state")),
        sa.UniqueConstraint("mail", name="uq_users_mail"),
        sa.ForeignKeyConstraint(["group"], ["groups.id"], name="fk_users_group", ondelete="CASCADE"),
        sa.CheckConstraint("zone <> ''", name="ck_users_zone"),
        sa.Index("ix_users_zone", "zone"),
        info={EXCLUSIONS: {"ex_users_state": ("EXCLUDE (state WITH =)", ("state",))}},
    )
    places = sa.Table(
        "places",
        sa.MetaData(),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("street", text),
    )
    towns = sa.Table(
        "towns",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("name", text, nullable=False, unique=True),
    )
    before: Sequence[Operation] = ()
    if isinstance(operation, MoveColumns):
        before = (CreateTable(definition=places),)
    elif isinstance(operation, AddPrimaryKey):
        before = (DropPrimaryKey(table="users"),)
    elif isinstance(operation, (AddCompanion, ReferColumns)):
        before = (CreateTable(definition=towns),)
    change = Declared(revision="r", operations=(*before, operation))
    realms = sa.Table(
        "realms", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True), sa.Column("country", text)
    )
    tables: dict[TableName, sa.Table] = {(None, "users"): table}
    if isinstance(operation, CopyColumn):
        tables[None, "realms"] = realms
    elif isinstance(operation, ReplaceKey):
        tables[None, "groups"] = sa.Table("groups", sa.MetaData(), sa.Column("id", sa.Integer, primary_key=True))
    return plan(Upgrade(old=None, new="r", changes=(change,)), tables, write=adapter.condition)


_SENT = (*(AllowNull, BuildConstraint, BuildIndex, ChangeKey, EnforceNotNull, ExtendEnums, NumberColumn, SetComments),)


def statements(adapter: Adapter, blocks: Sequence[Block]) -> Iterator[Statement]:
    """What is sent for the blocks, on an untouched table."""
    for block in blocks:
        if isinstance(block, Hold):
            yield from adapter.hold(block, None)
        elif adapter.in_hold(block.step):
            yield from adapter.hold(Hold(title="", table=block.table, steps=(block.step,)), None)
        elif isinstance(block.step, _SENT):
            yield from adapter.online(block, None)


def cell(operation: Operation, adapter: Adapter) -> str:
    """How the operation is carried out there."""
    planned = phases(operation, adapter)
    if isinstance(operation, (AddExclusion, DropExclusion)) and not adapter.excludes:
        return "refused"
    if any(isinstance(step, AddAlias) for block in planned.expand if isinstance(block, Hold) for step in block.steps):
        if not adapter.writable_views:
            return "refused"
        sent = " ".join(statement.sql for statement in statements(adapter, planned.expand))
        return "trigger" if " TRIGGER " in sent else "view"
    if planned.installed[0].key is not None:
        return _key_cell(planned, adapter)
    steps = [block.step for block in planned.migrate if isinstance(block, Online)]
    if any(isinstance(step, (BackfillCopy, BackfillPair)) for step in steps):
        return "trigger" if adapter.follows_tables else "refused"
    if any(isinstance(step, Backfill) and step.sync.looks_up for step in steps):
        alone = isinstance(operation, AddCompanion) and adapter.makes_companions
        return "trigger" if alone or adapter.follows_tables else "refused"
    if any(isinstance(step, Backfill) for step in steps):
        return "trigger"
    build = next(
        (
            block
            for block in (*planned.migrate, *planned.contract)
            if isinstance(block, Online)
            and isinstance(block.step, (AllowNull, BuildConstraint, BuildIndex, EnforceNotNull))
        ),
        None,
    )
    fill = next((block.step for block in planned.migrate if isinstance(block, Online) and _is_fill(block.step)), None)
    if isinstance(fill, WidenColumns) and adapter.fill_shadows(fill, None):
        return "trigger, then a swap" if adapter.rebuilds else "refused"
    if any(isinstance(step, WidenColumns) for block in planned.expand for step in getattr(block, "steps", ())):
        return "in place, at expand"
    if build is None:
        is_comment = isinstance(operation, ChangeComment)
        return "nothing to do" if is_comment and not list(statements(adapter, planned.contract)) else "in place"
    if isinstance(build.step, BuildIndex) and adapter.plain_indexes_only and not build.step.index.is_plain:
        return "refused"
    locks = " ".join(statement.lock for statement in statements(adapter, [build]))
    way = "online" if "writers go on" in locks or "online" in locks else "in place, writers wait"
    if isinstance(build.step, AllowNull) and way != "online" and "as long as it takes" not in locks:
        way = "in place"  # one short statement
    return f"{way}, at contract" if build not in planned.migrate else way


def _key_cell(planned: Phases, adapter: Adapter) -> str:
    if not adapter.changes_keys:
        return "refused"
    if any(isinstance(block.step, Backfill) for block in planned.migrate if isinstance(block, Online)):
        return "trigger" if adapter.follows_tables else "refused"
    if planned.installed[0].numbered is not None:
        locks = " ".join(statement.lock for statement in statements(adapter, planned.expand))
        return "in place, writers wait, at expand" if "writers wait" in locks or "copying" in locks else "online"
    blocks = [block for block in planned.contract if isinstance(block, Online)]
    locks = " ".join(statement.lock for statement in statements(adapter, blocks))
    if "writers go on" in locks:
        return "online, at contract"
    return "in place, writers wait" if "copy" in locks or "copied" in locks else "in place"


def _is_fill(step: Step) -> bool:
    return isinstance(step, WidenColumns) and step.stage == "fill"


def title(operation: Operation) -> str:
    """The operation's name, and what tells two examples of one apart."""
    name = f"`{type(operation).__name__}`"
    if isinstance(operation, CreateIndex) and operation.where is not None:
        return f"{name} over a part of the rows"
    if isinstance(operation, CreateIndex) and not isinstance(operation.columns[0], str):
        return f"{name} over an expression"
    return f"{name} to {operation.type}" if isinstance(operation, WidenColumn) else name


def table() -> str:
    """The table, in Markdown."""
    adapters = [for_profile(profile) for profile in PROFILES]
    rows = [
        ["operation", *(TITLES[server(adapter.profile)] for adapter in adapters)],
        ["---"] * (len(adapters) + 1),
        *([title(operation), *(cell(operation, adapter) for adapter in adapters)] for operation in EXAMPLES),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
