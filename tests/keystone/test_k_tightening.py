"""K: UNIQUE and NOT NULL are tightened once the rows allow it (Ocata's 011, 012, 015; bobcat's for trust).

The historical contract failed on rows that were alike, half done; bobcat's revision tightened in expand, so that writes
of the release that was still running were refused, or expand itself failed.
"""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from contraflow import AddUnique, Fault, TightenNotNull, classify
from tests.keystone.stage import key, staged
from tests.operations.lives import writing
from tests.servers.shared import Database


def nonlocal_users(*items: sa.schema.SchemaItem) -> sa.Table:
    return sa.Table(
        "nonlocal_user",
        sa.MetaData(),
        sa.Column("domain_id", sa.String(64), primary_key=True),
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False),
        *items,
    )


def providers(*items: sa.schema.SchemaItem, nullable: bool) -> sa.Table:
    return sa.Table(
        "identity_provider",
        sa.MetaData(),
        key(),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("domain_id", sa.String(64), nullable=nullable),
        *items,
    )


def test_rows_that_are_alike_are_shown_and_refused_from_contract_on(database: Database) -> None:
    old = nonlocal_users()
    new = nonlocal_users(sa.UniqueConstraint("user_id", name="ixu_nonlocal_user_user_id"))
    unique = AddUnique(table="nonlocal_user", name="ixu_nonlocal_user_user_id", columns=["user_id"])
    again = old.insert().values(domain_id="d", name="again", user_id="1")
    with staged(database, old.metadata, unique) as stage:
        stage.send(old.insert().values(domain_id="d", name="ada", user_id="1"))
        stage.there_and_back("nonlocal_user")
        stage.run.expand()
        stage.run.migrate()
        # What the old release may write does not change while it runs.
        stage.send(again)
        refusal = stage.refused("verify")
        assert "CF014" in refusal
        assert "user_id" in refusal
        assert "CF014" in stage.refused("contract")
        # Nothing is half done: the old release goes on, and rollback is open.
        stage.send(old.insert().values(domain_id="e", name="again", user_id="1"))
        stage.run.rollback()
        stage.send(old.delete().where(old.c.name == "again"))
        stage.run.upgrade()
        stage.contract(new.metadata)
        with pytest.raises(sa.exc.IntegrityError) as duplicate:
            stage.send(again)
        assert classify(duplicate.value) is Fault.DUPLICATE_KEY


def test_a_tightened_column_may_be_unique_besides(database: Database) -> None:
    """012 and 015: an identity provider's domain, NOT NULL and its own."""
    unique = sa.UniqueConstraint("domain_id", name="uq_identity_provider_domain")
    old, new = providers(nullable=True), providers(unique, nullable=False)
    operations = (
        TightenNotNull(table="identity_provider", column="domain_id"),
        AddUnique(table="identity_provider", name="uq_identity_provider_domain", columns=["domain_id"]),
    )
    with staged(database, old.metadata, *operations) as stage:
        stage.send(old.insert().values(id="1", enabled=True, domain_id="a"))
        stage.there_and_back("identity_provider")
        stage.run.expand()
        # 012's trigger refused every INSERT, of both releases, until contract.
        writes = (
            "INSERT INTO identity_provider (id, enabled) VALUES ('2', {})",
            "DELETE FROM identity_provider WHERE id = '2'",
        )
        true = "1" if stage.engine.dialect.name == "sqlite" else "true"
        with writing(stage.engine, [write.format(true) for write in writes]):
            stage.run.migrate()
        stage.send(
            old.insert().values(id="2", enabled=True),
            new.insert().values(id="3", enabled=False, domain_id="a"),
        )
        refusal = stage.refused("verify")
        assert "identity_provider.domain_id is NULL in 1 row" in refusal
        assert "CF014" in refusal
        stage.send(old.update().where(old.c.id == "2").values(domain_id="b"))
        stage.send(new.update().where(new.c.id == "3").values(domain_id="c"))
        stage.run.verify()
        stage.contract(new.metadata)
        faults = []
        for statement in (
            new.insert().values(id="4", enabled=True),
            new.update().where(new.c.id == "3").values(domain_id="a"),
        ):
            with pytest.raises(sa.exc.DBAPIError) as refused:
                stage.send(statement)
            faults.append(classify(refused.value))
        assert faults == [Fault.NOT_NULL, Fault.DUPLICATE_KEY]
