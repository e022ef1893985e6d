"""D: a time becomes an integer of microseconds, and can be read as either (Pike's 024, Queens' 032).

Historically the application wrote both columns, and contract computed the integers of the rows that only the old
release had written. Until then those rows had none, so that whatever was ordered by it came in a wrong order.
"""

from __future__ import annotations

import datetime as dt

import sqlalchemy as sa

from contraflow import AddUnique, ChangeType, DropUnique
from contraflow.expressions import Expression, epoch_us, from_epoch_us
from contraflow.lens import Row
from tests.keystone.stage import NOON, codes, key, staged
from tests.servers.shared import Database

EPOCH = dt.datetime(1970, 1, 1)  # noqa: DTZ001
LAST = 253_402_300_799_000_000
"""9999-12-31 23:59:59, the latest time that every server stores."""
FIRST = -30_610_224_000_000_000
"""1000-01-01, MySQL's earliest."""


def microseconds(time: dt.datetime) -> int:
    return (time - EPOCH) // dt.timedelta(microseconds=1)


def passwords(*times: sa.Column[dt.datetime] | sa.Column[int]) -> sa.Table:
    return sa.Table(
        "password",
        sa.MetaData(),
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("local_user_id", sa.Integer, nullable=False),
        sa.Column("password_hash", sa.String(255)),
        *times,
    )


OLD = passwords(sa.Column("created_at", sa.DateTime, nullable=False), sa.Column("expires_at", sa.DateTime))
NEW = passwords(
    sa.Column("created_at_int", sa.BigInteger, nullable=False, server_default="0"),
    sa.Column("expires_at_int", sa.BigInteger),
)


def as_integer(table: str, name: str, *, default: str | None = None, nullable: bool = True) -> ChangeType:
    """A time under a new name, as microseconds. An integer that is no time of every server becomes the nearest one."""
    new = f"{name}_int"

    def as_time(row: Row) -> Expression:
        number = row[new]
        return sa.case(
            (number > LAST, from_epoch_us(LAST)), (number < FIRST, from_epoch_us(FIRST)), else_=from_epoch_us(number)
        )

    return ChangeType(
        table=table,
        column=name,
        new=sa.Column(new, sa.BigInteger, nullable=nullable, server_default=default),
        forward=lambda row: epoch_us(row[name]),
        backward=as_time,
    )


OPERATIONS = (
    as_integer("password", "created_at", default="0", nullable=False),
    as_integer("password", "expires_at"),
)


def test_both_releases_read_the_same_time(database: Database) -> None:
    old, new = OLD.c, NEW.c
    later = NOON + dt.timedelta(days=90)
    with staged(database, OLD.metadata, *OPERATIONS) as stage:
        stage.send(OLD.insert().values(local_user_id=1, password_hash="a", created_at=NOON))
        stage.there_and_back("password")
        stage.run.upgrade()

        # The old release changes the password, which ends the one before; so does the new one.
        first, second = NOON + dt.timedelta(hours=1), NOON + dt.timedelta(hours=2)
        stage.send(
            OLD.update().where(old.id == 1).values(expires_at=first),
            OLD.insert().values(local_user_id=1, password_hash="b", created_at=first, expires_at=later),
            NEW.update().where(new.id == 2).values(expires_at_int=microseconds(second)),
            NEW.insert().values(local_user_id=1, password_hash="c", created_at_int=microseconds(second)),
        )
        # Ordered as the releases order: the historical column was 0 for what the old release had written.
        wanted = [("a", NOON, first), ("b", first, second), ("c", second, None)]
        assert (
            stage.read(sa.select(old.password_hash, old.created_at, old.expires_at).order_by(old.created_at)) == wanted
        )
        as_integers = [(hash_, microseconds(made), end and microseconds(end)) for hash_, made, end in wanted]
        query = sa.select(new.password_hash, new.created_at_int, new.expires_at_int).order_by(new.created_at_int)
        assert stage.read(query) == as_integers
        stage.run.verify()
        stage.contract(NEW.metadata)
        assert stage.read(query) == as_integers
        stage.send(NEW.insert().values(local_user_id=2))
        assert stage.read(sa.select(new.created_at_int).where(new.local_user_id == 2)) == [(0,)]


def test_parts_of_a_second_are_the_new_releases_own(database: Database) -> None:
    """MySQL and MariaDB store DATETIME in seconds: what the new release writes is not cut because the old one reads."""
    old, new = OLD.c, NEW.c
    number = microseconds(NOON) + 123_456
    with staged(database, OLD.metadata, *OPERATIONS) as stage:
        stage.run.upgrade()
        stage.send(NEW.insert().values(local_user_id=1, created_at_int=number))
        ((seen,),) = stage.read(sa.select(old.created_at))
        assert abs(seen - NOON) < dt.timedelta(seconds=1)
        # An unrelated write of the old release does not write the rounded time back.
        stage.send(OLD.update().values(password_hash="x", created_at=seen))
        assert stage.read(sa.select(new.created_at_int)) == [(number,)]
        stage.run.verify()
        stage.run.contract()
        assert stage.read(sa.select(new.created_at_int)) == [(number,)]


def test_a_time_under_a_unique_constraint_is_refused(database: Database) -> None:
    """032 swapped trust's unique constraint in expand: two trusts that differ in parts of a second were refused then,
    through the release that was still running, and expand failed where two stood already.
    """
    trust = sa.Table(
        "trust",
        sa.MetaData(),
        key(),
        sa.Column("trustor_user_id", sa.String(64), nullable=False),
        sa.Column("expires_at", sa.DateTime),
        sa.UniqueConstraint("trustor_user_id", "expires_at", name="duplicate_trust_constraint"),
    )
    operations = (
        as_integer("trust", "expires_at"),
        DropUnique(table="trust", columns=["trustor_user_id", "expires_at"]),
        AddUnique(table="trust", name="duplicate_trust", columns=["trustor_user_id", "expires_at_int"]),
    )
    with staged(database, trust.metadata, *operations) as stage:
        assert codes(stage.run.check()) == ["CF109"]
    # The way out that the problem names: let the constraint go first.
    with staged(database, trust.metadata, operations[1]) as stage:
        stage.run.run("contract")
    with staged(database, trust.metadata, operations[0], operations[2], number=2) as stage:
        new = sa.Table(
            "trust",
            sa.MetaData(),
            key(),
            sa.Column("trustor_user_id", sa.String(64)),
            sa.Column("expires_at_int", sa.BigInteger),
        )
        stage.run.upgrade()
        stage.send(
            new.insert().values(id="1", trustor_user_id="u", expires_at_int=microseconds(NOON)),
            new.insert().values(id="2", trustor_user_id="u", expires_at_int=microseconds(NOON) + 500_000),
        )
        stage.run.verify()
        stage.run.contract()
        assert stage.read(sa.select(new.c.expires_at_int - microseconds(NOON)).order_by(new.c.id)) == [(0,), (500_000,)]
