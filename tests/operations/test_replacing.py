"""A numbered key is replaced by a UUID, with the foreign keys that refer to it."""

from __future__ import annotations

import uuid

import sqlalchemy as sa

from contraflow import KeyReference, ReplaceKey
from tests.keystone.stage import staged
from tests.servers.shared import Database


def shop(*, new: bool) -> sa.MetaData:
    metadata = sa.MetaData()

    def refers(column: str, uid: str, name: str, *, nullable: bool, ondelete: str) -> list[sa.schema.SchemaItem]:
        mine = sa.Column(uid, sa.Uuid(), nullable=nullable) if new else sa.Column(column, sa.Integer, nullable=nullable)
        target = "users.uid" if new else "users.id"
        return [
            mine,
            sa.Index(f"ix_{name}_{mine.name}", mine.name),
            sa.ForeignKeyConstraint([mine.name], [target], name=f"fk_{name}_{mine.name}", ondelete=ondelete),
        ]

    key = sa.Column("uid", sa.Uuid(), primary_key=True) if new else sa.Column("id", sa.Integer, primary_key=True)
    sa.Table("users", metadata, key, sa.Column("name", sa.String(40), nullable=False))
    sa.Table(
        "orders",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("what", sa.String(40)),
        *refers("user_id", "user_uid", "orders", nullable=False, ondelete="CASCADE"),
        *refers("agent_id", "agent_uid", "agents", nullable=True, ondelete="SET NULL"),
    )
    return metadata


OLD, NEW = shop(new=False), shop(new=True)
REPLACE = ReplaceKey(
    table="users",
    old="id",
    column=sa.Column("uid", sa.Uuid()),
    references=[
        KeyReference(
            table="orders", old="user_id", new="user_uid", name="fk_orders_user_uid", index="ix_orders_user_uid"
        ),
        KeyReference(
            table="orders", old="agent_id", new="agent_uid", name="fk_agents_agent_uid", index="ix_agents_agent_uid"
        ),
    ],
)


def test_both_releases_refer_in_their_own_way(database: Database) -> None:
    old_users, old_orders = OLD.tables["users"], OLD.tables["orders"]
    users, orders = NEW.tables["users"], NEW.tables["orders"]
    with staged(database, OLD, REPLACE) as stage:
        stage.send(
            old_users.insert().values(name="ada"),
            old_users.insert().values(name="bob"),
            old_orders.insert().values(id=1, what="a", user_id=1, agent_id=2),
            old_orders.insert().values(id=2, what="b", user_id=2),
        )
        print(stage.run.check())
        stage.there_and_back("users", "orders")
        stage.run.expand()
        stage.send(old_orders.insert().values(id=3, what="c", user_id=1, agent_id=1))
        stage.run.upgrade()
        known = dict(stage.read(sa.select(users.c.name, users.c.uid)))
        eve = uuid.uuid4()
        stage.send(
            users.insert().values(uid=eve, name="eve"),
            orders.insert().values(id=4, what="d", user_uid=eve, agent_uid=known["ada"]),
            old_users.insert().values(name="kim"),
            orders.update().where(orders.c.id == 2).values(agent_uid=eve),
        )
        ids = dict(stage.read(sa.select(old_users.c.name, old_users.c.id)))
        found = stage.read(
            sa.select(old_orders.c.id, old_orders.c.user_id, old_orders.c.agent_id).order_by(old_orders.c.id)
        )
        assert found == [
            (1, ids["ada"], ids["bob"]),
            (2, ids["bob"], ids["eve"]),
            (3, ids["ada"], ids["ada"]),
            (4, ids["eve"], ids["ada"]),
        ]
        stage.run.verify()
        stage.contract(NEW)
