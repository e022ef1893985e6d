"""I: limits get a primary key that the server numbers, and their old one becomes a unique constraint (Rocky's 047).

It dropped the old key in expand, while the old release ran. On SQLite it made new tables instead, which migrate was to
fill: it compared an engine with the text ``sqlite``, which is never alike, copied nothing; contract dropped the rows.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow import AddSurrogateKey, Fault, classify
from tests.keystone.stage import key, staged
from tests.operations.lives import writing
from tests.servers.shared import Database


def limits(*, new: bool) -> sa.MetaData:
    metadata = sa.MetaData()

    def keys(table: str) -> list[sa.schema.SchemaItem]:
        if not new:
            return [key()]
        return [
            sa.Column("internal_id", sa.Integer, primary_key=True),
            sa.Column("id", sa.String(64), nullable=False),
            sa.UniqueConstraint("id", name=f"uq_{table}_id"),
        ]

    sa.Table(
        "registered_limit",
        metadata,
        *keys("registered_limit"),
        sa.Column("service_id", sa.String(255)),
        sa.Column("resource_name", sa.String(255)),
        sa.Column("default_limit", sa.Integer, nullable=False),
    )
    sa.Table(
        "limit",
        metadata,
        *keys("limit"),
        sa.Column("project_id", sa.String(64)),
        sa.Column("resource_limit", sa.Integer, nullable=False),
        # 048 added it, which refers to the key of before.
        sa.Column("registered_limit_id", sa.String(64)),
        sa.ForeignKeyConstraint(["registered_limit_id"], ["registered_limit.id"], name="fk_limit_registered"),
    )
    return metadata


OLD, NEW = limits(new=False), limits(new=True)
SWAP = [
    AddSurrogateKey(table=table, column=sa.Column("internal_id", sa.Integer), unique=f"uq_{table}_id", copies=True)
    for table in ("registered_limit", "limit")
]


def test_both_releases_write_limits_while_these_get_another_key(database: Database) -> None:
    old_registered, old_limit = OLD.tables["registered_limit"], OLD.tables["limit"]
    registered, limit = NEW.tables["registered_limit"], NEW.tables["limit"]
    with staged(database, OLD, *SWAP) as stage:
        stage.send(
            old_registered.insert().values(id="r1", service_id="nova", resource_name="cores", default_limit=10),
            old_limit.insert().values(id="l1", project_id="p", resource_limit=5, registered_limit_id="r1"),
            old_limit.insert().values(id="l2", project_id="q", resource_limit=6),
        )
        stage.there_and_back("registered_limit", "limit")
        stage.run.upgrade()
        # 047: the old release met a table without its key. Here it finds, changes and makes limits by it.
        stage.send(
            old_limit.insert().values(id="l3", project_id="p", resource_limit=7, registered_limit_id="r1"),
            old_limit.update().where(old_limit.c.id == "l1").values(resource_limit=50),
        )
        with stage.engine.begin() as connection:
            made = connection.execute(limit.insert().values(id="l4", project_id="n", resource_limit=8))
            number = made.inserted_primary_key[0]  # type: ignore[index]
        assert stage.read(sa.select(limit.c.id).where(limit.c.internal_id == number)) == [("l4",)]
        ours = [
            "INSERT INTO registered_limit (id, default_limit) VALUES ('w', 1)",
            "UPDATE registered_limit SET default_limit = 2 WHERE id = 'w'",
            "DELETE FROM registered_limit WHERE id = 'w'",
        ]
        with writing(stage.engine, ours):
            stage.contract(NEW)
        # 047 on SQLite: every row was gone.
        found = stage.read(sa.select(limit.c.id, limit.c.resource_limit).order_by(limit.c.id))
        assert found == [("l1", 50), ("l2", 6), ("l3", 7), ("l4", 8)]
        numbers = [number for (number,) in stage.read(sa.select(limit.c.internal_id))]
        assert len(set(numbers)) == len(numbers) == 4
        stage.send(limit.insert().values(id="l5", resource_limit=9, registered_limit_id="r1"))
        assert stage.read(sa.select(sa.func.max(limit.c.internal_id)))[0][0] > max(numbers)
        for refused, fault in (
            (limit.insert().values(id="l1", resource_limit=1), Fault.DUPLICATE_KEY),
            (limit.insert().values(id="l6", resource_limit=1, registered_limit_id="no"), Fault.FOREIGN_KEY),
            (registered.delete().where(registered.c.id == "r1"), Fault.FOREIGN_KEY),
        ):
            with pytest.raises(sa.exc.DBAPIError) as refusal:
                stage.send(refused)
            assert classify(refusal.value) is fault
