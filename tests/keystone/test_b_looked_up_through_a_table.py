"""B: a federated user's domain, looked up through the identity provider (Ocata's 015).

Historically a trigger on one of the three tables and for one kind of statement: correct only if the providers had
their domains by then (012's migrate), and blind to providers that changed theirs.
"""

from __future__ import annotations

import sqlalchemy as sa

from contraflow import CopyColumn, Source, Through
from tests.keystone.stage import Stage, key, staged
from tests.servers.shared import Database


def tables(*columns: sa.Column[str]) -> sa.MetaData:
    metadata = sa.MetaData()
    sa.Table("user", metadata, key(), sa.Column("enabled", sa.Boolean), *columns)
    sa.Table(
        "identity_provider",
        metadata,
        key(),
        sa.Column("domain_id", sa.String(64)),
        sa.Column("description", sa.String(255)),
    )
    sa.Table(
        "federated_user",
        metadata,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.String(64), nullable=False, index=True),
        sa.Column("idp_id", sa.String(64), nullable=False, index=True),
        sa.Column("display_name", sa.String(255)),
        sa.ForeignKeyConstraint(["user_id"], ["user.id"], name="fk_federated_user", ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["idp_id"], ["identity_provider.id"], name="fk_federated_idp", ondelete="CASCADE"),
    )
    return metadata


OLD = tables()
NEW = tables(sa.Column("domain_id", sa.String(64), nullable=False))
USER, IDP, FEDERATED = (NEW.tables[name] for name in ("user", "identity_provider", "federated_user"))
OLD_USER = OLD.tables["user"]
OPERATION = CopyColumn(
    table="user",
    column=sa.Column("domain_id", sa.String(64), nullable=False),
    sources=[
        Source(
            table="identity_provider",
            column="domain_id",
            on={"idp_id": "id"},
            through=[Through(table="federated_user", on={"id": "user_id"})],
        )
    ],
)


def domains(stage: Stage) -> dict[str, str | None]:
    return dict(stage.read(sa.select(USER.c.id, USER.c.domain_id)))


def federated(user: str, *providers: str) -> list[sa.Insert]:
    return [
        OLD_USER.insert().values(id=user),
        *(FEDERATED.insert().values(user_id=user, idp_id=provider, display_name=user) for provider in providers),
    ]


def test_the_domain_follows_all_three_tables(database: Database) -> None:
    with staged(database, OLD, OPERATION) as stage:
        stage.send(IDP.insert().values([{"id": "p", "domain_id": "d"}, {"id": "q", "domain_id": "e"}]))
        stage.send(*federated("1", "p"), *federated("2", "q", "p"))
        stage.there_and_back("user", "identity_provider", "federated_user")
        stage.run.upgrade()
        stage.send(*federated("3", "q"))
        wanted = {"1": "d", "2": "e", "3": "e"}
        assert domains(stage) == wanted
        # Unrelated, and later identities of one user: the first one counts.
        stage.send(
            FEDERATED.update().values(display_name="renamed"),
            IDP.update().values(description="renamed"),
            FEDERATED.insert().values(user_id="3", idp_id="p"),
            IDP.insert().values(id="r", domain_id="f"),
        )
        assert domains(stage) == wanted
        stage.send(IDP.update().where(IDP.c.id == "q").values(domain_id="another"))
        assert domains(stage) == {"1": "d", "2": "another", "3": "another"}
        stage.send(FEDERATED.update().where(FEDERATED.c.user_id == "1").values(idp_id="r"))
        assert domains(stage)["1"] == "f"
        stage.send(USER.insert().values(id="4", domain_id="of the new release"))
        stage.send(FEDERATED.insert().values(user_id="4", idp_id="r"))
        assert domains(stage)["4"] == "of the new release"
        # The provider goes, and with it, by the cascade, what leads to it.
        stage.send(IDP.delete().where(IDP.c.id == "q"))
        assert domains(stage) == {"1": "f", "2": "d", "3": "d", "4": "of the new release"}
        stage.run.verify()
        stage.contract(NEW)


def test_rows_may_come_in_any_order(database: Database) -> None:
    """Users before their providers have a domain: 015 ran before 012 had filled these."""
    with staged(database, OLD, OPERATION) as stage:
        stage.send(IDP.insert().values(id="p"), *federated("1", "p"))
        stage.run.expand()
        stage.send(*federated("2", "p"), IDP.insert().values(id="q"), *federated("3", "q"))
        stage.run.migrate()
        assert "CF013" in stage.refused("verify")
        stage.send(IDP.update().values(domain_id="of " + IDP.c.id))
        assert domains(stage) == {"1": "of p", "2": "of p", "3": "of q"}
        stage.run.verify()
        stage.contract(NEW)


def test_a_provider_that_lost_its_domain_leaves_the_users_theirs(database: Database) -> None:
    with staged(database, OLD, OPERATION) as stage:
        stage.send(IDP.insert().values(id="p", domain_id="d"), *federated("1", "p"))
        stage.run.upgrade()
        stage.send(IDP.update().values(domain_id=None))
        assert domains(stage) == {"1": "d"}
        stage.send(IDP.update().values(domain_id="e"))
        assert domains(stage) == {"1": "e"}
        stage.run.rollback()
