"""J: limits refer to registered limits by key, no longer by service, region and resource (Rocky's 048, Train's 063).

Historically the application wrote the key for new limits, no migration ever filled it for those that were there, and
contract dropped the three columns: older limits then belonged to nothing.
"""

from __future__ import annotations

import sqlalchemy as sa

from contraflow import AddUnique, CreateIndex, DropUnique, ReferColumns
from tests.keystone.stage import key, staged
from tests.servers.shared import Database

NATURAL = ("service_id", "region_id", "resource_name")


def natural() -> list[sa.Column[str]]:
    return [
        sa.Column("service_id", sa.String(255), nullable=False),
        sa.Column("region_id", sa.String(64)),
        sa.Column("resource_name", sa.String(255), nullable=False),
    ]


def tables(*items: sa.schema.SchemaItem) -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table(
        "registered_limit",
        metadata,
        key(),
        *natural(),
        sa.Column("default_limit", sa.Integer, nullable=False),
        sa.UniqueConstraint(*NATURAL, name="uq_registered_limit"),
    )
    sa.Table(
        "limit",
        metadata,
        key(),
        sa.Column("project_id", sa.String(64), nullable=False),
        sa.Column("resource_limit", sa.Integer, nullable=False),
        *items,
    )
    return metadata


OLD = tables(*natural(), sa.UniqueConstraint("project_id", *NATURAL, name="uq_limit"))
NEW = tables(
    sa.Column("registered_limit_id", sa.String(64), nullable=False),
    sa.UniqueConstraint("project_id", "registered_limit_id", name="uq_limit_registered"),
    sa.Index("ix_limit_registered", "registered_limit_id"),
)
OPERATIONS = (
    ReferColumns(
        table="limit",
        columns={name: name for name in NATURAL},
        column=sa.Column("registered_limit_id", sa.String(64), nullable=False),
        to="registered_limit",
        key="id",
        scans=True,  # a small table, whose one index begins with the project
    ),
    DropUnique(table="limit", columns=["project_id", *NATURAL]),
    AddUnique(table="limit", name="uq_limit_registered", columns=["project_id", "registered_limit_id"]),
    CreateIndex(table="limit", name="ix_limit_registered", columns=["registered_limit_id"]),
)
REGISTERED, OLD_LIMIT, NEW_LIMIT = OLD.tables["registered_limit"], OLD.tables["limit"], NEW.tables["limit"]


def registered(name: str, resource: str, region: str | None = None) -> sa.Insert:
    return REGISTERED.insert().values(
        id=name, service_id="compute", region_id=region, resource_name=resource, default_limit=10
    )


def old_limit(name: str, resource: str, region: str | None = None) -> sa.Insert:
    return OLD_LIMIT.insert().values(
        id=name, project_id=name, resource_limit=1, service_id="compute", region_id=region, resource_name=resource
    )


def new_limit(name: str, to: str) -> sa.Insert:
    return NEW_LIMIT.insert().values(id=name, project_id=name, resource_limit=1, registered_limit_id=to)


OLD_QUERY = sa.select(OLD_LIMIT.c.id, OLD_LIMIT.c.resource_name, OLD_LIMIT.c.region_id).order_by(OLD_LIMIT.c.id)
NEW_QUERY = sa.select(NEW_LIMIT.c.id, NEW_LIMIT.c.registered_limit_id).order_by(NEW_LIMIT.c.id)


def test_each_release_refers_in_its_own_way(database: Database) -> None:
    with staged(database, OLD, *OPERATIONS) as stage:
        stage.send(registered("r-cores", "cores"), registered("r-ram", "ram", "east"), registered("r-disk", "disk"))
        # With and without a region: historically neither was ever filled.
        stage.send(old_limit("a", "cores"), old_limit("b", "ram", "east"))
        stage.there_and_back("limit", "registered_limit")
        stage.run.upgrade()
        assert stage.read(NEW_QUERY) == [("a", "r-cores"), ("b", "r-ram")]

        old, new = OLD_LIMIT, NEW_LIMIT
        stage.send(
            old_limit("c", "disk"),
            old.update().where(old.c.id == "a").values(resource_name="disk"),
            new_limit("d", "r-ram"),
            new.update().where(new.c.id == "b").values(registered_limit_id="r-cores"),
            new.update().where(new.c.id == "c").values(resource_limit=7),
            # A registered limit changes: whoever refers to it follows.
            REGISTERED.update().where(REGISTERED.c.id == "r-disk").values(resource_name="volumes", region_id="west"),
        )
        assert stage.read(OLD_QUERY) == [
            ("a", "volumes", "west"),
            ("b", "cores", None),
            ("c", "volumes", "west"),
            ("d", "ram", "east"),
        ]
        wanted = [("a", "r-disk"), ("b", "r-cores"), ("c", "r-disk"), ("d", "r-ram")]
        assert stage.read(NEW_QUERY) == wanted
        stage.run.verify()
        stage.contract(NEW)
        assert stage.read(NEW_QUERY) == wanted


def test_what_refers_to_nothing_is_told_and_never_lost(database: Database) -> None:
    """Historically nobody asked: such limits lost what they were limits of."""
    with staged(database, OLD, *OPERATIONS) as stage:
        stage.send(registered("r-cores", "cores"), old_limit("a", "cores"), old_limit("b", "ram"))
        (problem,) = stage.run.check()
        assert problem.code == "CF108"
        assert "no row of registered_limit has exactly the same service_id, region_id, resource_name" in problem.what
        assert "1 of 2 rows: id = 'b'" in problem.what
        stage.send(registered("r-ram", "ram"))
        stage.run.upgrade()

        # The old release may go on writing them; nothing is refused but contract.
        stage.send(old_limit("c", "disk"))
        assert stage.read(NEW_QUERY) == [("a", "r-cores"), ("b", "r-ram"), ("c", None)]
        assert "CF012" in stage.refused("contract")
        # The registered limit that was missing comes: from now on it refers to that.
        stage.send(registered("r-disk", "disk"))
        assert stage.read(NEW_QUERY) == [("a", "r-cores"), ("b", "r-ram"), ("c", "r-disk")]
        # And it goes again, together with its limit.
        stage.send(REGISTERED.delete().where(REGISTERED.c.id == "r-disk"))
        assert stage.read(NEW_QUERY)[2] == ("c", None)
        stage.send(OLD_LIMIT.delete().where(OLD_LIMIT.c.id == "c"))
        stage.contract(NEW)
        assert stage.read(NEW_QUERY) == [("a", "r-cores"), ("b", "r-ram")]
