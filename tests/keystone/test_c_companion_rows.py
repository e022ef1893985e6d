"""C: each identity provider gets a domain of its own, a row of another table (Ocata's 012).

Historically expand refused all new identity providers until contract, of both releases; and migrate made a domain for
every provider each time it was run, under a random key, and let all of them refer to the new one.
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from contraflow import AddCompanion, AddUnique, NewUuid
from contraflow.expressions import concat
from tests.keystone.stage import key, staged
from tests.servers.shared import Database

ROOT = "<<keystone.domain.root>>"


def tables(*items: sa.schema.SchemaItem) -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table(
        "project",
        metadata,
        key(),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("domain_id", sa.String(64), nullable=False),
        sa.Column("is_domain", sa.Boolean, nullable=False),
        sa.Column("description", sa.Text),
        sa.UniqueConstraint("domain_id", "name", name="uq_project_name"),
    )
    sa.Table("identity_provider", metadata, key(), sa.Column("enabled", sa.Boolean, nullable=False), *items)
    return metadata


OLD = tables()
NEW = tables(
    sa.Column("domain_id", sa.String(64), nullable=False),
    sa.UniqueConstraint("domain_id", name="uq_identity_provider_domain"),
)
OPERATIONS = (
    AddCompanion(
        table="identity_provider",
        column=sa.Column("domain_id", sa.String(64), nullable=False),
        to="project",
        key="id",
        columns={"id": "name"},
        where={"domain_id": ROOT},
        values={
            "id": NewUuid(hyphens=False),
            "is_domain": True,
            "description": lambda row: concat("Auto generated federated domain for ", row.id),
        },
    ),
    AddUnique(table="identity_provider", name="uq_identity_provider_domain", columns=["domain_id"]),
)
PROJECT, OLD_PROVIDER, NEW_PROVIDER = (
    OLD.tables["project"],
    OLD.tables["identity_provider"],
    NEW.tables["identity_provider"],
)
DOMAINS = sa.select(PROJECT.c.name, PROJECT.c.description).where(PROJECT.c.is_domain).order_by(PROJECT.c.name)
PROVIDERS = (
    sa.select(NEW_PROVIDER.c.id, PROJECT.c.name)
    .join_from(NEW_PROVIDER, PROJECT, NEW_PROVIDER.c.domain_id == PROJECT.c.id)
    .order_by(NEW_PROVIDER.c.id)
)


def provider(name: str) -> sa.Insert:
    return OLD_PROVIDER.insert().values(id=name, enabled=True)


def domain(name: str, key_: str) -> sa.Insert:
    return PROJECT.insert().values(id=key_, name=name, domain_id=ROOT, is_domain=True)


def generated(name: str) -> tuple[str, str]:
    return name, f"Auto generated federated domain for {name}"


def test_each_provider_has_one_domain_however_often_the_upgrade_is_run(database: Database) -> None:
    with staged(database, OLD, *OPERATIONS) as stage:
        stage.send(provider("google"), provider("o'brien"), domain("acme", "d-1"))
        stage.there_and_back("identity_provider", "project")
        stage.run.upgrade()
        stage.run.migrate()
        wanted = [("acme", None), generated("google"), generated("o'brien")]
        assert stage.read(DOMAINS) == wanted

        keys = stage.read(sa.select(PROJECT.c.id).where(PROJECT.c.id != "d-1"))
        assert all(re.fullmatch("[0-9a-f]{32}", key_) for (key_,) in keys)

        # Taken back and begun again: the domains that were made are found.
        stage.run.rollback()
        assert stage.read(DOMAINS) == wanted
        stage.run.upgrade()
        assert stage.read(DOMAINS) == wanted

        # Both releases make providers all the time; the new one says which domain each has.
        stage.send(
            provider("github"),
            NEW_PROVIDER.insert().values(id="corporate", enabled=True, domain_id="d-1"),
            OLD_PROVIDER.update().where(OLD_PROVIDER.c.id == "google").values(enabled=False),
            domain("search", "d-2"),
            NEW_PROVIDER.update().where(NEW_PROVIDER.c.id == "google").values(domain_id="d-2"),
            OLD_PROVIDER.update().where(OLD_PROVIDER.c.id == "google").values(enabled=True),
        )
        stage.run.verify()
        found = [("corporate", "acme"), ("github", "github"), ("google", "search"), ("o'brien", "o'brien")]
        assert stage.read(PROVIDERS) == found
        assert len(stage.read(DOMAINS)) == 5
        stage.contract(NEW)
        assert stage.read(PROVIDERS) == found


def test_two_runners_and_a_writer_make_no_domain_twice(database: Database) -> None:
    names = [f"p{number}" for number in range(30)]
    with staged(database, OLD, *OPERATIONS) as stage, staged(database, OLD, *OPERATIONS) as other:
        stage.send(*map(provider, names))
        stage.run.expand()

        def touch() -> None:
            for name in names:
                stage.send(OLD_PROVIDER.update().where(OLD_PROVIDER.c.id == name).values(enabled=False))

        with ThreadPoolExecutor(3) as pool:
            works = [pool.submit(work) for work in (stage.run.migrate, other.run.migrate, touch)]
        errors = [error for work in works if (error := work.exception()) is not None]
        # The second runner may be told that the first is at work (CF001), and nothing else.
        assert all("CF001" in str(error) for error in errors), errors
        stage.run.migrate()
        assert [name for name, _ in stage.read(DOMAINS)] == sorted(names)
        assert stage.read(PROVIDERS) == [(name, name) for name in sorted(names)]


@pytest.mark.parametrize("name", ["no unique key", "no value"])
def test_a_domain_that_could_be_made_twice_or_not_at_all_is_refused(database: Database, name: str) -> None:
    where = {"domain_id": ROOT, "is_domain": True} if name == "no unique key" else {"domain_id": ROOT}
    operation = AddCompanion(
        table="identity_provider",
        column=sa.Column("domain_id", sa.String(64), nullable=False),
        to="project",
        key="id",
        columns={"id": "name"},
        where=where,
        values={"id": lambda row: row.id, **({"is_domain": True} if name == "no unique key" else {})},
    )
    with staged(database, OLD, operation) as stage:
        refusal = stage.refused("expand")
    assert "CF116" in refusal
    wanted = "project has no unique key of exactly" if name == "no unique key" else "project.is_domain is NOT NULL"
    assert wanted in refusal
