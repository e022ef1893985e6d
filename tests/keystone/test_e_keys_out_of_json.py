"""E: keys of a JSON document become columns (Train's 062; Mitaka's 093 lifted the description out of a domain).

Historically migrate took the keys out of the document, row by row, and did no more: the old release found them no
longer, and what it wrote into the document afterwards never reached the columns.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from contraflow import Lens, TransformColumns
from contraflow.expressions import Expression, json_integer, json_put, json_text, substr
from contraflow.lens import Row
from tests.keystone.stage import codes, key, staged
from tests.servers.shared import Database


def trusts(*columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        "trust",
        sa.MetaData(),
        key(),
        sa.Column("trustor_user_id", sa.String(64), nullable=False),
        sa.Column("remaining_uses", sa.Integer),
        *columns,
    )


OLD = trusts(sa.Column("extra", sa.JSON))
NEW = trusts(
    sa.Column("redelegated_trust_id", sa.String(64)),
    sa.Column("redelegation_count", sa.BigInteger),
    sa.Column("attributes", sa.JSON),
)


def without(document: Expression) -> Expression:
    return json_put(json_put(document, "redelegated_trust_id", sa.null()), "redelegation_count", sa.null())


def in_columns(row: Row) -> dict[str, Expression]:
    return {
        "redelegated_trust_id": substr(json_text(row.extra, "redelegated_trust_id"), 1, 64),
        "redelegation_count": json_integer(row.extra, "redelegation_count"),
        "attributes": without(row.extra),
    }


def in_document(row: Row) -> dict[str, Expression]:
    named = json_put(row.attributes, "redelegated_trust_id", row.redelegated_trust_id)
    return {"extra": json_put(named, "redelegation_count", row.redelegation_count)}


def lift() -> TransformColumns:
    return TransformColumns(
        table="trust",
        columns=[NEW.c[name]._copy() for name in ("redelegated_trust_id", "redelegation_count", "attributes")],
        lens=Lens(
            old=["extra"],
            new=["redelegated_trust_id", "redelegation_count", "attributes"],
            forward=in_columns,
            backward=in_document,
            omitted="new",
            lossy=True,
        ),
    )


def test_both_releases_find_the_keys_where_they_look(database: Database) -> None:
    old, new = OLD.c, NEW.c
    with staged(database, OLD.metadata, lift()) as stage:
        stage.send(
            OLD.insert().values(id="1", trustor_user_id="u", extra={"redelegation_count": 3, "roles": ["r"]}),
            OLD.insert().values(id="2", trustor_user_id="u", extra={}),
        )
        stage.there_and_back("trust")
        stage.run.upgrade()
        stage.run.migrate()

        # 062 left these as they were: the old release's rows from after migrate.
        redelegated = {"redelegated_trust_id": "1", "redelegation_count": 2, "note": "old"}
        stage.send(
            OLD.insert().values(id="3", trustor_user_id="v", extra=redelegated),
            OLD.update().where(old.id == "2").values(extra={"redelegation_count": 1}),
        )
        columns = sa.select(new.id, new.redelegated_trust_id, new.redelegation_count, new.attributes).order_by(new.id)
        assert stage.read(columns) == [
            ("1", None, 3, {"roles": ["r"]}),
            ("2", None, 1, {}),
            ("3", "1", 2, {"note": "old"}),
        ]
        # And the other way: it found nothing that the new one had written.
        stage.send(
            NEW.insert().values(
                id="4", trustor_user_id="w", redelegated_trust_id="3", redelegation_count=1, attributes={"note": "new"}
            ),
            NEW.update().where(new.id == "1").values(redelegation_count=0),
            NEW.update().where(new.id == "3").values(attributes={}),
        )
        document = sa.select(old.id, old.extra).order_by(old.id)
        assert stage.read(document) == [
            ("1", {"redelegation_count": 0, "roles": ["r"]}),
            ("2", {"redelegation_count": 1}),
            ("3", {"redelegated_trust_id": "1", "redelegation_count": 2}),
            ("4", {"redelegated_trust_id": "3", "redelegation_count": 1, "note": "new"}),
        ]
        stage.run.verify()
        stage.contract(NEW.metadata)
        assert stage.read(columns) == [
            ("1", None, 0, {"roles": ["r"]}),
            ("2", None, 1, {}),
            ("3", "1", 2, {}),
            ("4", "3", 1, {"note": "new"}),
        ]


def test_a_rollback_leaves_the_keys_in_the_document(database: Database) -> None:
    old, new = OLD.c, NEW.c
    with staged(database, OLD.metadata, lift()) as stage:
        stage.send(OLD.insert().values(id="1", trustor_user_id="u", extra={"redelegation_count": 3, "x": "y"}))
        stage.run.upgrade()
        stage.send(NEW.update().where(new.id == "1").values(redelegation_count=2))
        stage.run.rollback()
        assert stage.read(sa.select(old.extra)) == [({"redelegation_count": 2, "x": "y"},)]


def test_a_document_in_a_text_column_is_asked_about(database: Database) -> None:
    """Keystone's own column is TEXT: whatever is no JSON would fail a write there."""
    table = trusts(sa.Column("extra", sa.Text))
    with staged(database, table.metadata, lift()) as stage:
        assert "CF107" in codes(stage.run.check())
