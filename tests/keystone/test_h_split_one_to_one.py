"""H: a table is split in two and in three (Mitaka's 091: user into local_user and password).

Historically it was done offline, in one go: there was no moment at which two releases could run.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contraflow import CreateTable, DropUnique, LoosenNotNull, MoveColumns
from tests.keystone.stage import codes, key, staged
from tests.servers.shared import Database


def local_users(*columns: sa.Column[Any]) -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table("user", metadata, key(), sa.Column("enabled", sa.Boolean))
    sa.Table(
        "local_user",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("domain_id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        *columns,
        sa.UniqueConstraint("user_id", name="ixu_local_user_user_id"),
        sa.UniqueConstraint("domain_id", "name", name="ixu_local_user_domain_id_name"),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_local_user_user", ondelete="CASCADE"),
    )
    return metadata


OLD = sa.MetaData()
USERS = sa.Table(
    "user",
    OLD,
    key(),
    sa.Column("enabled", sa.Boolean),
    sa.Column("name", sa.String(255), nullable=False),
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.Column("password", sa.String(128)),
    sa.UniqueConstraint("domain_id", "name", name="ixu_user_name_domain_id"),
)
MIDDLE = local_users(sa.Column("password", sa.String(128)))
NEW = local_users()
PASSWORDS = sa.Table(
    "password",
    NEW,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("local_user_id", sa.Integer, nullable=False),
    sa.Column("password", sa.String(128), nullable=False),
    sa.UniqueConstraint("local_user_id", name="ixu_password_local_user_id"),
    sa.ForeignKeyConstraint(["local_user_id"], ["local_user.id"], name="fk_password_user", ondelete="CASCADE"),
)
LOOSEN = [LoosenNotNull(table="user", column=name) for name in ("name", "domain_id")]
INTO_LOCAL_USER = (
    CreateTable(definition=MIDDLE.tables["local_user"]),
    MoveColumns(table="user", to="local_user", on={"id": "user_id"}, columns=["domain_id", "name", "password"]),
    DropUnique(table="user", columns=["domain_id", "name"]),
)
INTO_PASSWORD = (
    CreateTable(definition=PASSWORDS),
    MoveColumns(table="local_user", to="password", on={"id": "local_user_id"}, columns=["password"]),
)


def test_a_user_becomes_three_rows(database: Database) -> None:
    """Two upgrades: the key by which a password finds its local user is made by the server in the first of them."""
    old, user, local = USERS, MIDDLE.tables["user"], MIDDLE.tables["local_user"]
    with staged(database, OLD, *INTO_LOCAL_USER) as stage:
        # A user without a local one has no name: two of these must not be alike to the old release.
        assert codes(stage.run.check()) == ["CF116"]
    with staged(database, OLD, *LOOSEN, number=2) as stage:
        stage.send(old.insert().values(id="1", enabled=True, name="ada", domain_id="d", password="a"))
        stage.run.run("contract")
    with staged(database, OLD, *INTO_LOCAL_USER, number=3) as stage:
        stage.there_and_back("user")
        stage.run.upgrade()
        stage.send(
            old.insert().values(id="2", enabled=True, name="bob", domain_id="d"),
            old.update().where(old.c.id == "1").values(password="changed"),
            user.insert().values(id="3", enabled=False),
            local.insert().values(user_id="3", domain_id="e", name="ada", password="new"),
            user.insert().values(id="4"),
            user.insert().values(id="5"),  # both come through federation: no name here
            local.update().where(local.c.user_id == "2").values(name="bobby"),
        )
        locals_ = sa.select(local.c.user_id, local.c.domain_id, local.c.name, local.c.password).order_by(
            local.c.user_id
        )
        wanted = [("1", "d", "ada", "changed"), ("2", "d", "bobby", None), ("3", "e", "ada", "new")]
        assert stage.read(locals_) == wanted
        everybody = sa.select(old.c.id, old.c.domain_id, old.c.name, old.c.password).order_by(old.c.id)
        assert stage.read(everybody) == [*wanted, ("4", None, None, None), ("5", None, None, None)]
        stage.run.verify()
        stage.contract(MIDDLE)
    with staged(database, MIDDLE, *INTO_PASSWORD, number=4) as stage:
        stage.there_and_back("local_user")
        stage.run.upgrade()
        ((bob,),) = stage.read(sa.select(local.c.id).where(local.c.user_id == "2"))
        stage.send(
            local.update().where(local.c.user_id == "1").values(password="third"),
            PASSWORDS.insert().values(local_user_id=bob, password="of bob"),
            PASSWORDS.delete().where(PASSWORDS.c.password == "new"),
        )
        assert [row[-1] for row in stage.read(locals_)] == ["third", "of bob", None]
        stage.run.verify()
        stage.contract(NEW)
        joined = sa.select(local.c.user_id, PASSWORDS.c.password).join(
            PASSWORDS, PASSWORDS.c.local_user_id == local.c.id
        )
        assert stage.read(joined.order_by(local.c.user_id)) == [("1", "third"), ("2", "of bob")]
