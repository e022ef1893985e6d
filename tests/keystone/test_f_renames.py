"""F: a column gets another name (Queens' 036), and a wider type with it (Pike's 023, Rocky's 046, Stein's 054).

036 made the new column, dropped the old one and copied nothing, since the table was held to be empty. The password took
three releases: new nodes wrote a second hash for the old ones if a switch in their configuration said so.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contraflow import ChangeType, RenameColumn
from contraflow.expressions import length
from tests.keystone.stage import codes, key, staged
from tests.servers.shared import Database


def credentials(flag: str) -> sa.Table:
    return sa.Table(
        "application_credential",
        sa.MetaData(),
        key(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column(flag, sa.Boolean),
    )


def passwords(column: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        "password",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("local_user_id", sa.Integer, nullable=False),
        column,
    )


def test_a_rename_keeps_what_stands_in_the_column(database: Database) -> None:
    before, after = credentials("allow_application_credential_creation"), credentials("unrestricted")
    flag = before.c.allow_application_credential_creation
    rename = RenameColumn(table=before.name, old=flag.name, new="unrestricted")
    with staged(database, before.metadata, rename) as stage:
        stage.send(
            before.insert().values({"id": "1", "name": "a", flag.name: True}),
            before.insert().values({"id": "2", "name": "b", flag.name: False}),
        )
        stage.there_and_back(before.name)
        stage.run.upgrade()
        stage.send(
            before.insert().values({"id": "3", "name": "c", flag.name: True}),
            after.insert().values(id="4", name="d", unrestricted=True),
            after.update().where(after.c.id == "1").values(unrestricted=False),
            before.update().where(before.c.id == "2").values({flag.name: True}),
        )
        wanted = [("1", False), ("2", True), ("3", True), ("4", True)]
        assert stage.read(sa.select(before.c.id, flag).order_by(before.c.id)) == wanted
        assert stage.read(sa.select(after.c.id, after.c.unrestricted).order_by(after.c.id)) == wanted
        stage.run.verify()
        stage.contract(after.metadata)
        assert stage.read(sa.select(after.c.id, after.c.unrestricted).order_by(after.c.id)) == wanted


OLD = passwords(sa.Column("password", sa.String(128)))
NEW = passwords(sa.Column("password_hash", sa.String(255)))


def test_a_rename_that_widens_is_one_upgrade(database: Database) -> None:
    old, new = OLD.c, NEW.c
    # A hash that is too long for the old release must not be cut: it would be the hash of nothing.
    widen = ChangeType(
        table="password",
        column="password",
        new=sa.Column("password_hash", sa.String(255)),
        forward=lambda row: row.password,
        backward=lambda row: sa.case((length(row.password_hash) <= 128, row.password_hash), else_=None),
    )
    long = "$scrypt$" + "s" * 200
    with staged(database, OLD.metadata, widen) as stage:
        stage.send(OLD.insert().values(id=1, local_user_id=1, password="$6$one"))
        stage.there_and_back("password")
        stage.run.upgrade()
        stage.send(
            OLD.insert().values(id=2, local_user_id=2, password="$6$two"),
            NEW.insert().values(id=3, local_user_id=3, password_hash="$2b$three"),
            NEW.insert().values(id=4, local_user_id=4, password_hash=long),
            NEW.update().where(new.id == 1).values(password_hash="$2b$one"),
            # Unrelated: nothing of the long hash is lost.
            OLD.update().where(old.id == 4).values(local_user_id=5),
        )
        assert stage.read(sa.select(old.id, old.password).order_by(old.id)) == [
            (1, "$2b$one"),
            (2, "$6$two"),
            (3, "$2b$three"),
            (4, None),
        ]
        wanted = [(1, "$2b$one"), (2, "$6$two"), (3, "$2b$three"), (4, long)]
        assert stage.read(sa.select(new.id, new.password_hash).order_by(new.id)) == wanted
        stage.run.verify()
        stage.contract(NEW.metadata)
        assert stage.read(sa.select(new.id, new.password_hash).order_by(new.id)) == wanted


def test_a_hash_that_does_not_fit_is_asked_about(database: Database) -> None:
    """The historical columns had 128 and 255 characters, and nothing said what an old node reads of a long one."""
    copy = ChangeType(
        table="password",
        column="password",
        new=sa.Column("password_hash", sa.String(255)),
        forward=lambda row: row.password,
        backward=lambda row: row.password_hash,
    )
    with staged(database, OLD.metadata, copy) as stage:
        assert codes(stage.run.check()) == ["CF107"]
