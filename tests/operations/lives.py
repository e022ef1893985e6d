"""Upgrades of one table each, and how they are carried through their whole life."""

from __future__ import annotations

import contextlib
import re
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from contraflow import (
    AddCheck,
    AddColumn,
    AddEnumValues,
    AddForeignKey,
    AddPrimaryKey,
    AddSurrogateKey,
    AddUnique,
    ChangeComment,
    ChangeDefault,
    CreateIndex,
    DropCheck,
    DropForeignKey,
    DropIndex,
    DropPrimaryKey,
    DropUnique,
    LoosenNotNull,
    Options,
    RenameColumn,
    Runner,
    TightenNotNull,
    Upgrade,
    WidenColumn,
)
from contraflow.dialects.base import Statement
from contraflow.expressions import contains, trim
from contraflow.operations.base import Operation
from contraflow.operations.constraints import Action
from tests.dialects.support import connected
from tests.servers.shared import Database
from tests.upgrades import upgrade_of

TABLE = "users"


@dataclass(frozen=True, kw_only=True)
class Life:
    """One upgrade of the table ``users``, with statements of both releases that must work while it lasts."""

    name: str
    old: Sequence[sa.schema.SchemaItem]
    new: Sequence[sa.schema.SchemaItem]
    operations: Sequence[Operation]
    seed: Sequence[str]
    old_writes: Sequence[str]
    new_writes: Sequence[str]
    refused: Sequence[str] = ()
    """What the new release is refused once the upgrade is contracted: its constraints stand."""
    mend: Sequence[str] = ()
    """What must be done to the old release's rows before the new constraints can stand."""
    obstacle: str = "CF014: .* rows=2"
    """What ``verify`` says of these rows, as a regular expression over several lines."""
    parents: Sequence[str] = ()
    """Other tables, each of which has the rows 1 to 3 in its one column ``id``."""

    @property
    def upgrade(self) -> Upgrade:
        return upgrade_of(*self.operations)


def _key() -> sa.Column[int]:
    return sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="a\\number")


def _text(name: str, *, nullable: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.String(60), nullable=nullable, comment="it's a text")


def _number(name: str, *, nullable: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=nullable, comment="a\\number")


def _refers(column: str, *, name: str, ondelete: str | None = None) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint([column], ["groups_of_users.id"], name=name, ondelete=ondelete)


def _add_key(column: str, *, name: str, ondelete: Action | None = None) -> AddForeignKey:
    return AddForeignKey(
        table=TABLE, name=name, columns=[column], target="groups_of_users", target_columns=["id"], ondelete=ondelete
    )


LIVES = (
    Life(
        name="a column under a unique constraint is renamed",
        old=[_key(), _text("mail"), sa.UniqueConstraint("mail", name="uq_users_mail")],
        new=[_key(), _text("email"), sa.UniqueConstraint("email", name="uq_users_email")],
        operations=[
            RenameColumn(table=TABLE, old="mail", new="email"),
            DropUnique(table=TABLE, columns=["mail"]),
            AddUnique(table=TABLE, name="uq_users_email", columns=["email"]),
        ],
        seed=["INSERT INTO users (id, mail) VALUES (1, 'ada'), (2, 'bob')"],
        old_writes=[
            "INSERT INTO users (id, mail) VALUES (10, 'old')",
            "UPDATE users SET mail = 'older' WHERE id = 10",
            "UPDATE users SET mail = 'old' WHERE id = 10",
            "DELETE FROM users WHERE id = 10",
        ],
        new_writes=[
            "INSERT INTO users (id, email) VALUES (20, 'new')",
            "UPDATE users SET email = 'newer' WHERE id = 20",
            "DELETE FROM users WHERE id = 20",
        ],
        refused=["INSERT INTO users (id, email) VALUES (30, 'ada')", "UPDATE users SET email = 'ada' WHERE id = 2"],
    ),
    Life(
        name="a column under a constraint of two is renamed, beside another constraint",
        old=[
            _key(),
            _text("realm"),
            _text("login"),
            sa.Column("badge", sa.Integer, nullable=True),
            sa.UniqueConstraint("realm", "login", name="uq_users_login"),
            sa.UniqueConstraint("badge", name="uq_users_badge"),
        ],
        new=[
            _key(),
            _text("realm"),
            sa.Column("badge", sa.Integer, nullable=True),
            _text("account"),
            sa.UniqueConstraint("realm", "account", name="uq_users_account"),
            sa.UniqueConstraint("badge", name="uq_users_badge"),
        ],
        operations=[
            RenameColumn(table=TABLE, old="login", new="account"),
            DropUnique(table=TABLE, columns=["realm", "login"]),
            AddUnique(table=TABLE, name="uq_users_account", columns=["realm", "account"]),
        ],
        seed=["INSERT INTO users (id, realm, login, badge) VALUES (1, 'a', 'ada', 7), (2, 'b', 'ada', NULL)"],
        old_writes=[
            "INSERT INTO users (id, realm, login) VALUES (10, 'c', 'ada')",
            "DELETE FROM users WHERE id = 10",
        ],
        new_writes=[
            "INSERT INTO users (id, realm, account) VALUES (20, 'c', 'ada')",
            "DELETE FROM users WHERE id = 20",
        ],
        refused=[
            "INSERT INTO users (id, realm, account) VALUES (30, 'b', 'ada')",
            "UPDATE users SET badge = 7 WHERE id = 2",
        ],
    ),
    Life(
        name="a column under indexes is renamed",
        old=[_key(), _text("city"), sa.Index("ix_users_city", "city"), sa.Index("ux_users_city", "city", unique=True)],
        new=[
            _key(),
            _text("town"),
            sa.Index("ix_users_town", "town", "id"),
            sa.Index("ux_users_town", "town", unique=True),
        ],
        operations=[
            RenameColumn(table=TABLE, old="city", new="town"),
            DropIndex(table=TABLE, name="ix_users_city"),
            DropIndex(table=TABLE, name="ux_users_city"),
            CreateIndex(table=TABLE, name="ix_users_town", columns=["town", "id"]),
            CreateIndex(table=TABLE, name="ux_users_town", columns=["town"], unique=True),
        ],
        seed=["INSERT INTO users (id, city) VALUES (1, 'Ulm'), (2, 'Bonn')"],
        old_writes=["INSERT INTO users (id, city) VALUES (10, 'Rom')", "DELETE FROM users WHERE id = 10"],
        new_writes=["INSERT INTO users (id, town) VALUES (20, 'Rom')", "DELETE FROM users WHERE id = 20"],
        refused=["UPDATE users SET town = 'Ulm' WHERE id = 2"],
    ),
    Life(
        name="an index comes, another goes, no column changes",
        old=[_key(), _text("city"), _text("street", nullable=True), sa.Index("ix_users_city", "city")],
        new=[_key(), _text("city"), _text("street", nullable=True), sa.Index("ix_users_street", "street", "city")],
        operations=[
            CreateIndex(table=TABLE, name="ix_users_street", columns=["street", "city"]),
            DropIndex(table=TABLE, name="ix_users_city"),
        ],
        seed=["INSERT INTO users (id, city) VALUES (1, 'Ulm')"],
        old_writes=["UPDATE users SET city = 'Rom' WHERE id = 1"],
        new_writes=["UPDATE users SET street = 'Via' WHERE id = 1"],
    ),
    Life(
        name="a new column is unique that the old release determines",
        old=[_key(), _text("name")],
        new=[_key(), _text("name"), _text("slug"), sa.UniqueConstraint("slug", name="uq_users_slug")],
        operations=[
            AddColumn(
                table=TABLE, column=_text("slug"), reads=["name"], value=lambda row: trim(row["name"]), keep="track"
            ),
            AddUnique(table=TABLE, name="uq_users_slug", columns=["slug"]),
        ],
        seed=["INSERT INTO users (id, name) VALUES (1, 'Ada')"],
        # Alike to the new release, not to the old one: its write must not be refused.
        old_writes=["DELETE FROM users WHERE id = 10", "INSERT INTO users (id, name) VALUES (10, ' Ada')"],
        new_writes=["UPDATE users SET slug = 'Ida' WHERE id = 10", "UPDATE users SET slug = 'Ada' WHERE id = 10"],
        mend=["DELETE FROM users WHERE id = 10"],
        refused=["INSERT INTO users (id, name, slug) VALUES (30, 'Ida', 'Ada')"],
    ),
    Life(
        name="a new column is unique that the old release does not write",
        old=[_key(), _text("name")],
        new=[_key(), _text("name"), _text("token", nullable=True), sa.UniqueConstraint("token", name="uq_users_token")],
        operations=[
            AddColumn(table=TABLE, column=_text("token", nullable=True)),
            AddUnique(table=TABLE, name="uq_users_token", columns=["token"]),
        ],
        seed=["INSERT INTO users (id, name) VALUES (1, 'a'), (2, 'b')"],
        old_writes=["INSERT INTO users (id, name) VALUES (10, 'a')", "DELETE FROM users WHERE id = 10"],
        new_writes=["UPDATE users SET token = 't' WHERE id = 1"],
        refused=["UPDATE users SET token = 't' WHERE id = 2"],
    ),
    Life(
        name="a column gets a wider type",
        old=[_key(), sa.Column("name", sa.String(100), nullable=False), sa.Index("ix_users_name", "name")],
        new=[_key(), sa.Column("name", sa.String(200), nullable=False), sa.Index("ix_users_name", "name")],
        operations=[WidenColumn(table=TABLE, column="name", type=sa.String(200), replans=True)],
        seed=["INSERT INTO users (id, name) VALUES (1, 'Ada')"],
        old_writes=["INSERT INTO users (id, name) VALUES (10, 'old')", "DELETE FROM users WHERE id = 10"],
        new_writes=[f"INSERT INTO users (id, name) VALUES (20, '{'n' * 200}')", "DELETE FROM users WHERE id = 20"],
    ),
    Life(
        name="an enumerated column gets more values",
        old=[_key(), sa.Column("state", sa.Enum("active", "gone", name="state"), nullable=False)],
        new=[_key(), sa.Column("state", sa.Enum("active", "gone", "suspended", name="state"), nullable=False)],
        operations=[AddEnumValues(table=TABLE, column="state", values=["suspended"])],
        seed=["INSERT INTO users (id, state) VALUES (1, 'active')"],
        old_writes=["INSERT INTO users (id, state) VALUES (10, 'gone')", "DELETE FROM users WHERE id = 10"],
        new_writes=["INSERT INTO users (id, state) VALUES (20, 'active')", "DELETE FROM users WHERE id = 20"],
    ),
    Life(
        name="a column gets a wider type by a second column",
        old=[_key(), sa.Column("points", sa.Integer, nullable=False), _text("name", nullable=True)],
        new=[_key(), sa.Column("points", sa.BigInteger, nullable=False), _text("name", nullable=True)],
        operations=[WidenColumn(table=TABLE, column="points", type=sa.BigInteger, replans=True)],
        seed=["INSERT INTO users (id, points) VALUES (1, 7), (2, -1)"],
        old_writes=[
            "INSERT INTO users (id, points) VALUES (10, 5)",
            "UPDATE users SET points = points + 1 WHERE id = 10",
            "DELETE FROM users WHERE id = 10",
        ],
        new_writes=["INSERT INTO users (id, points) VALUES (20, 3000000000)", "DELETE FROM users WHERE id = 20"],
    ),
    Life(
        name="a column under a foreign key is renamed",
        old=[_key(), _number("group_id", nullable=True), _refers("group_id", name="fk_users_group")],
        new=[_key(), _number("team_id", nullable=True), _refers("team_id", name="fk_users_team")],
        operations=[
            RenameColumn(table=TABLE, old="group_id", new="team_id"),
            DropForeignKey(table=TABLE, columns=["group_id"]),
            _add_key("team_id", name="fk_users_team"),
        ],
        parents=["groups_of_users"],
        seed=["INSERT INTO users (id, group_id) VALUES (1, 1), (2, NULL)"],
        old_writes=[
            "INSERT INTO users (id, group_id) VALUES (10, 2)",
            "UPDATE users SET group_id = NULL WHERE id = 10",
            "DELETE FROM users WHERE id = 10",
        ],
        new_writes=[
            "INSERT INTO users (id, team_id) VALUES (20, 3)",
            "UPDATE users SET team_id = 1 WHERE id = 20",
            "DELETE FROM users WHERE id = 20",
        ],
        refused=["INSERT INTO users (id, team_id) VALUES (30, 4)", "UPDATE users SET team_id = 4 WHERE id = 1"],
    ),
    Life(
        name="a foreign key comes that the old release does not keep",
        old=[_key(), _number("group_id", nullable=True)],
        new=[_key(), _number("group_id", nullable=True), _refers("group_id", name="fk_users_group")],
        operations=[_add_key("group_id", name="fk_users_group")],
        parents=["groups_of_users"],
        seed=["INSERT INTO users (id, group_id) VALUES (1, 1), (2, NULL)"],
        old_writes=["DELETE FROM users WHERE id = 10", "INSERT INTO users (id, group_id) VALUES (10, 77)"],
        new_writes=["UPDATE users SET group_id = 3 WHERE id = 1", "UPDATE users SET group_id = 1 WHERE id = 1"],
        mend=["UPDATE users SET group_id = NULL WHERE group_id = 77"],
        obstacle="CF016: .* 1 row of users violates the foreign key fk_users_group.*id=10, group_id=77",
        refused=["UPDATE users SET group_id = 4 WHERE id = 1"],
    ),
    Life(
        name="a foreign key comes over a new column, another goes",
        old=[_key(), _number("group_id"), _refers("group_id", name="fk_users_group")],
        new=[
            _key(),
            _number("group_id"),
            _number("owner_id", nullable=True),
            _refers("owner_id", name="fk_users_owner", ondelete="SET NULL"),
        ],
        operations=[
            AddColumn(table=TABLE, column=_number("owner_id", nullable=True)),
            _add_key("owner_id", name="fk_users_owner", ondelete="SET NULL"),
            DropForeignKey(table=TABLE, columns=["group_id"]),
        ],
        parents=["groups_of_users"],
        seed=["INSERT INTO users (id, group_id) VALUES (1, 1), (2, 2)"],
        old_writes=["INSERT INTO users (id, group_id) VALUES (10, 2)", "DELETE FROM users WHERE id = 10"],
        new_writes=["UPDATE users SET owner_id = 3 WHERE id = 1", "UPDATE users SET owner_id = NULL WHERE id = 1"],
        refused=["UPDATE users SET owner_id = 4 WHERE id = 1"],
    ),
    Life(
        name="a column under a check is renamed",
        old=[_key(), _number("age"), sa.CheckConstraint("age >= 0", name="ck_users_age")],
        new=[_key(), _number("years"), sa.CheckConstraint("years >= 0", name="ck_users_years")],
        operations=[
            RenameColumn(table=TABLE, old="age", new="years"),
            DropCheck(table=TABLE, name="ck_users_age"),
            AddCheck(
                table=TABLE,
                name="ck_users_years",
                columns=["years"],
                condition=lambda row: row["years"] >= 0,
                copies=True,
            ),
        ],
        seed=["INSERT INTO users (id, age) VALUES (1, 0), (2, 90)"],
        old_writes=["INSERT INTO users (id, age) VALUES (10, 1)", "DELETE FROM users WHERE id = 10"],
        new_writes=["INSERT INTO users (id, years) VALUES (20, 1)", "DELETE FROM users WHERE id = 20"],
        refused=["INSERT INTO users (id, years) VALUES (30, -1)"],
    ),
    Life(
        name="a check comes that the old release does not keep, another goes",
        old=[_key(), _text("mail"), _number("age"), sa.CheckConstraint("age < 200", name="ck_users_age")],
        new=[_key(), _text("mail"), _number("age"), sa.CheckConstraint("mail <> ''", name="ck_users_mail")],
        operations=[
            AddCheck(
                table=TABLE,
                name="ck_users_mail",
                columns=["mail"],
                condition=lambda row: contains(row["mail"], "@"),
                copies=True,
            ),
            DropCheck(table=TABLE, name="ck_users_age"),
        ],
        seed=["INSERT INTO users (id, mail, age) VALUES (1, 'a@b', 1)"],
        old_writes=["DELETE FROM users WHERE id > 9", "INSERT INTO users (id, mail, age) VALUES (10, 'ab', 1)"],
        new_writes=["UPDATE users SET mail = 'b@a' WHERE id = 1"],
        mend=["DELETE FROM users WHERE id = 10"],
        obstacle="CF016: .* 1 row of users violates the check constraint ck_users_mail.*id=10, mail='ab'",
        refused=["UPDATE users SET mail = 'ab' WHERE id = 1"],
    ),
    Life(
        name="a column becomes NOT NULL, and gets a value where it has none",
        old=[_key(), _text("city", nullable=True), _text("street", nullable=True)],
        new=[_key(), _text("city"), _text("street", nullable=True)],
        operations=[
            TightenNotNull(
                table=TABLE, column="city", reads=["street"], fill=lambda row: sa.func.coalesce(row["street"], "none")
            )
        ],
        seed=["INSERT INTO users (id, city, street) VALUES (1, NULL, 'Via'), (2, 'Rom', NULL), (3, NULL, NULL)"],
        old_writes=["INSERT INTO users (id, city) VALUES (10, NULL)", "DELETE FROM users WHERE id = 10"],
        new_writes=["UPDATE users SET city = 'Ulm' WHERE id = 2", "UPDATE users SET city = 'Rom' WHERE id = 2"],
        refused=["UPDATE users SET city = NULL WHERE id = 1", "INSERT INTO users (id, city) VALUES (30, NULL)"],
    ),
    Life(
        name="a column becomes NOT NULL",
        old=[_key(), _text("city", nullable=True), sa.Column("born", sa.Integer, nullable=True)],
        new=[_key(), _text("city"), sa.Column("born", sa.Integer, nullable=True)],
        operations=[TightenNotNull(table=TABLE, column="city")],
        seed=["INSERT INTO users (id, city) VALUES (1, 'Rom')"],
        old_writes=["DELETE FROM users WHERE id = 10", "INSERT INTO users (id, born) VALUES (10, 7)"],
        new_writes=["UPDATE users SET city = 'Ulm' WHERE id = 1"],
        mend=["DELETE FROM users WHERE id = 10"],
        obstacle="CF013: .* users.city is NULL in 1 row",
        refused=["UPDATE users SET city = NULL WHERE id = 1"],
    ),
    Life(
        name="a column may hold NULLs",
        old=[_key(), _text("city"), sa.Column("zone", sa.Integer, nullable=False, server_default="7")],
        new=[_key(), _text("city", nullable=True), sa.Column("zone", sa.Integer, server_default="7")],
        operations=[
            LoosenNotNull(table=TABLE, column="city", value=lambda _row: sa.literal("none")),
            LoosenNotNull(table=TABLE, column="zone", value=lambda _row: sa.literal(9)),
        ],
        seed=["INSERT INTO users (id, city) VALUES (1, 'Rom')"],
        old_writes=["INSERT INTO users (id, city) VALUES (10, 'Rom')", "DELETE FROM users WHERE id = 10"],
        new_writes=["UPDATE users SET city = NULL, zone = NULL WHERE id = 1", "DELETE FROM users WHERE id = 20"],
    ),
    Life(
        name="a table without a primary key gets one",
        old=[_number("id", nullable=True), _number("part"), _text("name"), sa.Index("ix_users_name", "name")],
        new=[
            _number("id"),
            _number("part"),
            _text("name"),
            sa.Index("ix_users_name", "name"),
            sa.PrimaryKeyConstraint("id", "part"),
        ],
        operations=[AddPrimaryKey(table=TABLE, columns=["id", "part"])],
        seed=["INSERT INTO users (id, part, name) VALUES (1, 1, 'ada'), (1, 2, 'bob'), (2, 1, 'cyd')"],
        old_writes=[
            "DELETE FROM users WHERE name = 'old'",
            "INSERT INTO users (id, part, name) VALUES (1, 1, 'old'), (NULL, 1, 'old')",
        ],
        new_writes=["UPDATE users SET name = 'dan' WHERE id = 2", "UPDATE users SET name = 'cyd' WHERE id = 2"],
        mend=["DELETE FROM users WHERE name = 'old'"],
        obstacle="CF014: .* rows=2.*CF013: .* users.id is NULL in 1 row",
        refused=[
            "INSERT INTO users (id, part, name) VALUES (1, 2, 'eve')",
            "INSERT INTO users (id, part, name) VALUES (NULL, 7, 'eve')",
        ],
    ),
    Life(
        name="the primary key goes",
        old=[_key(), _text("name"), sa.UniqueConstraint("name", name="uq_users_name")],
        new=[_number("id"), _text("name"), sa.UniqueConstraint("name", name="uq_users_name")],
        operations=[DropPrimaryKey(table=TABLE, copies=True)],
        seed=["INSERT INTO users (id, name) VALUES (1, 'ada')"],
        old_writes=["UPDATE users SET id = 2 WHERE id = 1", "UPDATE users SET id = 1 WHERE id = 2"],
        new_writes=["INSERT INTO users (id, name) VALUES (20, 'new')", "DELETE FROM users WHERE id = 20"],
    ),
    Life(
        name="a table gets a primary key that the server numbers",
        old=[
            sa.Column("code", sa.String(60), primary_key=True, comment="it's a text"),
            _text("name"),
            sa.Index("ix_users_name", "name"),
        ],
        new=[
            _text("code"),
            _text("name"),
            sa.Index("ix_users_name", "name"),
            sa.Column("number", sa.Integer, sa.Identity(), primary_key=True),
            sa.UniqueConstraint("code", name="uq_users_code"),
        ],
        operations=[
            AddSurrogateKey(
                table=TABLE,
                column=sa.Column("number", sa.Integer, sa.Identity()),
                unique="uq_users_code",
                copies=True,
            ),
        ],
        seed=["INSERT INTO users (code, name) VALUES ('a', 'ada'), ('b', 'bob')"],
        old_writes=[
            "INSERT INTO users (code, name) VALUES ('o', 'old')",
            "UPDATE users SET code = 'p' WHERE code = 'o'",
            "DELETE FROM users WHERE code = 'p'",
        ],
        new_writes=[
            "INSERT INTO users (code, name) VALUES ('n', 'new')",
            "UPDATE users SET name = 'x' WHERE code = 'n' AND number > 0",
            "DELETE FROM users WHERE code = 'n' AND number > 0",
        ],
        refused=[
            "INSERT INTO users (code, name) VALUES ('a', 'again')",
            "INSERT INTO users (number, code, name) SELECT min(number), 'z', 'z' FROM users",
        ],
    ),
    Life(
        name="another column is the primary key",
        old=[_key(), _text("badge"), _text("city"), sa.UniqueConstraint("badge", name="uq_users_badge")],
        new=[
            _number("id"),
            _text("badge"),
            _text("town"),
            sa.UniqueConstraint("id", name="uq_users_id"),
            sa.PrimaryKeyConstraint("badge"),
        ],
        operations=[
            RenameColumn(table=TABLE, old="city", new="town"),
            DropPrimaryKey(table=TABLE),
            AddPrimaryKey(table=TABLE, columns=["badge"]),
            DropUnique(table=TABLE, columns=["badge"]),
            AddUnique(table=TABLE, name="uq_users_id", columns=["id"]),
        ],
        seed=["INSERT INTO users (id, badge, city) VALUES (1, 'a', 'Ulm'), (2, 'b', 'Bonn')"],
        old_writes=[
            "INSERT INTO users (id, badge, city) VALUES (10, 'o', 'Rom')",
            "UPDATE users SET badge = 'p' WHERE id = 10",
            "DELETE FROM users WHERE id = 10",
        ],
        new_writes=["INSERT INTO users (id, badge, town) VALUES (20, 'n', 'Rom')", "DELETE FROM users WHERE id = 20"],
        refused=[
            "INSERT INTO users (id, badge, town) VALUES (30, 'a', 'Rom')",
            "INSERT INTO users (id, badge, town) VALUES (1, 'z', 'Rom')",
        ],
    ),
    Life(
        name="comments change, of what stays, of what is renamed, and of what is new",
        old=[_key(), _text("mail"), _number("badge"), _text("note"), _text("fax", nullable=True)],
        new=[
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False, comment="another's \\ key"),
            sa.Column("email", sa.String(60), nullable=False, comment="where to write to"),
            sa.Column("badge", sa.Integer, nullable=False, server_default=sa.text("7")),
            sa.Column("note", sa.String(200), nullable=False, comment="said before"),
            sa.Column("fax", sa.String(60), nullable=False, comment="who has one?"),
            sa.Column("locale", sa.String(60), nullable=True, comment="ü, 100 %"),
        ],
        operations=[
            ChangeComment(table=TABLE, column="id", comment="another's \\ key"),
            ChangeComment(table=TABLE, column="mail", comment="overwritten"),
            RenameColumn(table=TABLE, old="mail", new="email"),
            ChangeComment(table=TABLE, column="email", comment="where to write to"),
            ChangeDefault(table=TABLE, column="badge", default=sa.text("7")),
            ChangeComment(table=TABLE, column="badge", comment=None),
            ChangeComment(table=TABLE, column="note", comment="said before"),
            WidenColumn(table=TABLE, column="note", type=sa.String(200), replans=True),
            TightenNotNull(table=TABLE, column="fax", fill=lambda _row: ""),
            ChangeComment(table=TABLE, column="fax", comment="who has one?"),
            AddColumn(table=TABLE, column=sa.Column("locale", sa.String(60), nullable=True, comment="overwritten")),
            ChangeComment(table=TABLE, column="locale", comment="ü, 100 %"),
            ChangeComment(table=TABLE, comment="Who may log in?"),
            ChangeComment(table=TABLE, comment=""),
        ],
        seed=["INSERT INTO users (id, mail, badge, note) VALUES (1, 'ada', 1, '')"],
        old_writes=[
            "INSERT INTO users (id, mail, badge, note) VALUES (10, 'bob', 2, '')",
            "DELETE FROM users WHERE id = 10",
        ],
        new_writes=[
            "INSERT INTO users (id, email, badge, note, fax) VALUES (20, 'cy', 3, '', '')",
            "DELETE FROM users WHERE id = 20",
        ],
    ),
    Life(
        name="a constraint goes",
        old=[_key(), _text("mail"), sa.UniqueConstraint("mail", name="uq_users_mail")],
        new=[_key(), _text("mail")],
        operations=[DropUnique(table=TABLE, columns=["mail"])],
        seed=["INSERT INTO users (id, mail) VALUES (1, 'ada')"],
        old_writes=["UPDATE users SET mail = 'bob' WHERE id = 1"],
        new_writes=["UPDATE users SET mail = 'ada' WHERE id = 1"],
    ),
)


class Killed(BaseException):
    """The runner dies here."""


def dying_after(count: int, *tables: str) -> Callable[[Statement], None]:
    """For a runner that is killed before the statement on one of the tables that follows ``count`` of them.

    MariaDB's ``CREATE TRIGGER IF NOT EXISTS`` of a trigger that stands does not count: it changes nothing, and each run
    sends it anew.
    """
    left = iter(range(count))

    def die(statement: Statement) -> None:
        changes = re.match(r"(?!CREATE TRIGGER IF NOT)(ALTER|DROP|CREATE|UPDATE|INSERT)\b", statement.sql)
        if changes and any(table in statement.sql for table in tables) and next(left, None) is None:
            raise Killed

    return die


def create(engine: sa.Engine, items: Sequence[sa.schema.SchemaItem], parents: Sequence[str] = ()) -> None:
    """Create the table from copies of the items, which can belong to one table only, and its parents."""
    metadata = sa.MetaData()
    others = [
        sa.Table(parent, metadata, sa.Column("id", sa.Integer, primary_key=True, autoincrement=False))
        for parent in parents
    ]
    sa.Table(TABLE, metadata, *(_copy(item) for item in items))
    metadata.create_all(engine)
    with engine.begin() as connection:
        for other in others:
            connection.execute(other.insert(), [{"id": number} for number in (1, 2, 3)])


def _copy(item: Any) -> Any:
    if isinstance(item, sa.Column):
        return item._copy()
    if isinstance(item, sa.PrimaryKeyConstraint):
        return sa.PrimaryKeyConstraint(*map(str, item._pending_colargs))
    if isinstance(item, sa.UniqueConstraint):
        return sa.UniqueConstraint(*map(str, item._pending_colargs), name=item.name)
    if isinstance(item, sa.ForeignKeyConstraint):
        targets = [element.target_fullname for element in item.elements]
        return sa.ForeignKeyConstraint(list(item.column_keys), targets, name=item.name, ondelete=item.ondelete)
    if isinstance(item, sa.CheckConstraint):
        return sa.CheckConstraint(str(item.sqltext), name=item.name)
    return sa.Index(item.name, *(str(part) for part in item.expressions or item._pending_colargs), unique=item.unique)


def send(engine: sa.Engine, statements: Sequence[str]) -> None:
    """Each statement in a transaction of its own."""
    for statement in statements:
        with engine.begin() as connection:
            if engine.dialect.name == "sqlite":
                connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.exec_driver_sql(statement)


def runner(
    database: Database, life: Life, before_statement: Callable[[Statement], None] | None = None
) -> contextlib.AbstractContextManager[Runner]:
    """A runner for the upgrade."""
    return Runner(database.url, life.upgrade, options=Options(lock_timeout=0.3), before_statement=before_statement)


def exact(engine: sa.Engine, table: str = TABLE) -> dict[str, Any]:
    """Everything that the server tells about the table."""
    with connected(engine) as (connection, adapter), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Skipped unsupported reflection of expression-based index")
        found = adapter.find(connection, table, None)
        inspector = sa.inspect(connection)
        details = {name: value for name, value in found.details.items() if name not in ("schema_version", "functions")}
        return {
            "columns": found.columns,
            "triggers": found.triggers,
            "indexes": found.indexes,
            "details": details,
            "shown": sorted(map(str, inspector.get_indexes(table))),
            "unique": sorted(map(str, inspector.get_unique_constraints(table))),
            "keys": sorted(map(str, inspector.get_foreign_keys(table))),
            "checks": sorted(map(str, inspector.get_check_constraints(table))),
        }


def shape(engine: sa.Engine, table: str = TABLE) -> dict[str, Any]:
    """What an application can tell of the table: columns in any order, and what is unique or indexed under a name.

    A unique constraint and a unique index are alike to it.
    """
    inspector = sa.inspect(engine)
    columns = {
        column["name"]: (str(column["type"]), column["nullable"], column["default"], column.get("comment"))
        for column in inspector.get_columns(table)
    }
    indexes = {
        (index["name"], tuple(index["column_names"]), bool(index["unique"])) for index in inspector.get_indexes(table)
    }
    unique = {
        (constraint["name"], tuple(constraint["column_names"]), True)
        for constraint in inspector.get_unique_constraints(table)
    }
    keys = {
        (key["name"], tuple(key["constrained_columns"]), key["referred_table"], str(key["options"]))
        for key in inspector.get_foreign_keys(table)
    }
    checks = {check["name"] for check in inspector.get_check_constraints(table)}
    primary = inspector.get_pk_constraint(table)["constrained_columns"]
    about = inspector.get_table_comment(table)["text"] if inspector.dialect.supports_comments else None
    held = {"primary": primary, "indexes": indexes | unique, "keys": keys, "checks": checks}
    return {"about": about, "columns": columns, **held}


@contextlib.contextmanager
def writing(engine: sa.Engine, statements: Sequence[str]) -> Iterator[None]:
    """The statements again and again beside the block, which fails if one of them does."""
    done = threading.Event()
    errors: list[BaseException] = []

    def work() -> None:
        while not done.is_set() and not errors:
            try:
                send(engine, statements)
            except sa.exc.DBAPIError as error:
                errors.append(error)
            done.wait(0.001)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert errors == []
