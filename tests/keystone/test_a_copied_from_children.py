"""A: a user's domain, copied from the child tables to the parent (Ocata's 014).

Historically six triggers a dialect, which were not equivalent: MySQL's and SQLite's copied an update only where
``domain_id <> NEW.domain_id``, which is not true while the parent's column is NULL.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contraflow import AddForeignKey, AddUnique, CopyColumn, DropForeignKey, Source
from contraflow.operations.base import Operation
from tests.keystone.stage import Stage, key, staged
from tests.servers.shared import Database


def domain(*, nullable: bool = False) -> sa.Column[str]:
    return sa.Column("domain_id", sa.String(64), nullable=nullable)


def tables(*columns: sa.Column[Any], composite: bool = False) -> sa.MetaData:
    metadata = sa.MetaData()
    owned = (["user_id", "domain_id"], ["user.id", "user.domain_id"]) if composite else (["user_id"], ["user.id"])
    actions: dict[str, Any] = {"ondelete": "CASCADE", "onupdate": "CASCADE" if composite else None}
    unique = [sa.UniqueConstraint("id", "domain_id", name="ixu_user_id_domain_id")] if composite else []
    sa.Table("user", metadata, key(), sa.Column("enabled", sa.Boolean), *columns, *unique)
    sa.Table(
        "local_user",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        domain(),
        sa.Column("name", sa.String(255), nullable=False),
        sa.UniqueConstraint("user_id", name="ixu_local_user_user_id"),
        sa.UniqueConstraint("domain_id", "name", name="ixu_local_user_domain_id_name"),
        sa.ForeignKeyConstraint(
            *owned, name="local_user_user_id_domain_id_fkey" if composite else "fk_local", **actions
        ),
    )
    sa.Table(
        "nonlocal_user",
        metadata,
        sa.Column("domain_id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.UniqueConstraint("user_id", name="ixu_nonlocal_user_user_id"),
        sa.ForeignKeyConstraint(
            *owned, name="nonlocal_user_user_id_domain_id_fkey" if composite else "fk_nonlocal", **actions
        ),
    )
    return metadata


OLD = tables()
NEW = tables(domain(nullable=False), composite=True)
USER, LOCAL, NONLOCAL = (NEW.tables[name] for name in ("user", "local_user", "nonlocal_user"))
OLD_USER = OLD.tables["user"]
CHILDREN = ("local_user", "nonlocal_user")


def copied(*, nullable: bool = False) -> CopyColumn:
    return CopyColumn(
        table="user",
        column=domain(nullable=nullable),
        sources=[Source(table=name, column="domain_id", on={"id": "user_id"}) for name in CHILDREN],
    )


OPERATIONS: tuple[Operation, ...] = (
    copied(),
    AddUnique(table="user", name="ixu_user_id_domain_id", columns=["id", "domain_id"]),
    *(
        operation
        for name in CHILDREN
        for operation in (
            DropForeignKey(table=name, columns=["user_id"]),
            AddForeignKey(
                table=name,
                name=f"{name}_user_id_domain_id_fkey",
                columns=["user_id", "domain_id"],
                target="user",
                target_columns=["id", "domain_id"],
                ondelete="CASCADE",
                onupdate="CASCADE",
            ),
        )
    ),
)


def old_local(user: str, domain_id: str) -> list[sa.Insert]:
    """The old release creates a user, who has a domain in a child table only."""
    return [
        OLD_USER.insert().values(id=user, enabled=True),
        LOCAL.insert().values(user_id=user, domain_id=domain_id, name=f"name of {user}"),
    ]


def old_nonlocal(user: str, domain_id: str) -> list[sa.Insert]:
    return [
        OLD_USER.insert().values(id=user),
        NONLOCAL.insert().values(user_id=user, domain_id=domain_id, name=f"name of {user}"),
    ]


def domains(stage: Stage) -> dict[str, str | None]:
    return dict(stage.read(sa.select(USER.c.id, USER.c.domain_id)))


def test_the_parent_has_the_childrens_domain(database: Database) -> None:
    with staged(database, OLD, *OPERATIONS) as stage:
        stage.send(*old_local("1", "d"), *old_nonlocal("2", "e"))
        stage.there_and_back("user", *CHILDREN)
        stage.run.expand()
        stage.send(*old_local("3", "d"), *old_nonlocal("4", "e"))
        # Of a row that was not filled yet: where the historical triggers of MySQL and SQLite copied nothing.
        stage.send(LOCAL.update().where(LOCAL.c.user_id == "1").values(domain_id="of an update"))
        assert domains(stage) == {"1": "of an update", "2": None, "3": "d", "4": "e"}
        stage.run.migrate()
        stage.run.verify()
        stage.send(
            # The new release knows the parent's column, and writes both.
            USER.insert().values(id="5", enabled=True, domain_id="n"),
            LOCAL.insert().values(user_id="5", domain_id="n", name="new"),
            NONLOCAL.update().where(NONLOCAL.c.user_id == "4").values(domain_id="moved"),
            OLD_USER.update().where(OLD_USER.c.id == "3").values(enabled=False),
            LOCAL.update().where(LOCAL.c.user_id == "3").values(name="another"),
            # A user who is not local any more keeps the domain, which may not be NULL.
            NONLOCAL.delete().where(NONLOCAL.c.user_id == "2"),
            OLD_USER.delete().where(OLD_USER.c.id == "1"),
        )
        wanted = {"2": "e", "3": "d", "4": "moved", "5": "n"}
        assert domains(stage) == wanted
        stage.run.verify()
        stage.contract(NEW)
        assert domains(stage) == wanted


def test_what_the_new_release_wrote_stays_until_a_child_says_something_else(database: Database) -> None:
    with staged(database, OLD, copied(nullable=True)) as stage:
        stage.send(*old_local("1", "d"), *old_local("2", "d"), *old_local("3", "d"))
        stage.run.upgrade()
        mine = {"1": "mine", "2": "mine", "3": None}
        stage.send(*(USER.update().where(USER.c.id == name).values(domain_id=value) for name, value in mine.items()))
        stage.send(
            LOCAL.update().values(name=LOCAL.c.name + "!"),
            OLD_USER.update().values(enabled=False),
            LOCAL.update().where(LOCAL.c.user_id == "1").values(domain_id="d"),
        )
        assert domains(stage) == mine
        # The other child is not asked while the first one has a value.
        stage.send(NONLOCAL.insert().values(user_id="1", domain_id="x", name="x"))
        assert domains(stage) == mine
        stage.send(LOCAL.update().where(LOCAL.c.user_id == "2").values(domain_id="theirs"))
        assert domains(stage) == {"1": "mine", "2": "theirs", "3": None}
        stage.send(LOCAL.delete().where(LOCAL.c.user_id == "1"))
        stage.send(LOCAL.delete().where(LOCAL.c.user_id == "2"))
        assert domains(stage) == {"1": "x", "2": None, "3": None}
        stage.run.verify()
        stage.run.rollback()
        assert stage.read(sa.select(OLD_USER.c.id).order_by(OLD_USER.c.id)) == [("1",), ("2",), ("3",)]


def test_a_user_without_a_domain_is_shown_before_the_column_is_not_null(database: Database) -> None:
    with staged(database, OLD, *OPERATIONS) as stage:
        stage.send(*old_local("1", "d"), OLD_USER.insert().values(id="2"))
        stage.run.expand()
        stage.run.migrate()
        assert "CF013" in stage.refused("verify")
        stage.send(NONLOCAL.insert().values(user_id="2", domain_id="e", name="late"))
        stage.run.verify()
        stage.contract(NEW)
        assert domains(stage) == {"1": "d", "2": "e"}
