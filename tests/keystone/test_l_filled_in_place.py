"""L: a column becomes NOT NULL, and rows without a value get one (Newton's 002 and 004).

Both dropped the column in contract and added it again: every value was lost, the age of all passwords began anew, and
between the two statements the new release, which was running, met a table without the column.
"""

from __future__ import annotations

import datetime as dt

import pytest
import sqlalchemy as sa

from contraflow import Fault, TightenNotNull, classify
from contraflow.expressions import utcnow
from tests.keystone.stage import NOON, staged
from tests.operations.lives import writing
from tests.servers.shared import Database


def passwords(*, nullable: bool) -> sa.Table:
    return sa.Table(
        "password",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("local_user_id", sa.Integer, nullable=False),
        sa.Column("password", sa.String(128)),
        sa.Column("created_at", sa.DateTime, nullable=nullable),
    )


OLD, NEW = passwords(nullable=True), passwords(nullable=False)


def test_a_column_is_filled_where_it_is_empty_and_never_missing(database: Database) -> None:
    table = OLD.c
    fill = TightenNotNull(table="password", column="created_at", fill=lambda _row: utcnow())
    began = dt.datetime.now(dt.timezone.utc).replace(tzinfo=None, microsecond=0)
    with staged(database, OLD.metadata, fill) as stage:
        stage.send(
            OLD.insert().values(local_user_id=1, password="a", created_at=NOON),
            OLD.insert().values(local_user_id=2, password="b"),
        )
        stage.there_and_back("password")
        stage.run.upgrade()
        stage.send(
            OLD.insert().values(local_user_id=3, password="c"),
            NEW.insert().values(local_user_id=4, password="d", created_at=NOON + dt.timedelta(days=1)),
        )
        # 002 and 004: nobody who names the column is refused at any moment of contract.
        reads = "UPDATE password SET created_at = created_at WHERE id = 1"
        with writing(stage.engine, [reads]):
            stage.contract(NEW.metadata)
        found = dict(stage.read(sa.select(table.local_user_id, table.created_at)))
        assert (found[1], found[4]) == (NOON, NOON + dt.timedelta(days=1))
        for user in (2, 3):
            assert began <= found[user] <= began + dt.timedelta(hours=1)
        with pytest.raises(sa.exc.DBAPIError) as refusal:
            stage.send(NEW.insert().values(local_user_id=5, created_at=sa.null()))
        assert classify(refusal.value) is Fault.NOT_NULL
