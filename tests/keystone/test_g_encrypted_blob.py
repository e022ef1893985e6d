"""G: a blob is encrypted with a key that the application alone holds (Newton's 003).

The historical triggers refused every INSERT of both releases from expand to contract, and let pass the update of a blob
that migrate had encrypted already: contract dropped the column, and with it what had been written.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from contraflow import Opaque, OpaqueColumns, OpaqueWriter
from tests.keystone.stage import key, staged
from tests.servers.shared import Database

SECRET = b"of the application"
NUMBERS = itertools.count(1)


def credentials(*columns: sa.Column[Any]) -> sa.Table:
    return sa.Table(
        "credential",
        sa.MetaData(),
        key(),
        sa.Column("user_id", sa.String(64), nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        *columns,
    )


OLD = credentials(sa.Column("blob", sa.Text, nullable=False))
NEW = credentials(
    sa.Column("encrypted_blob", sa.Text, nullable=False), sa.Column("key_hash", sa.String(64), nullable=False)
)


def stream(nonce: bytes, size: int) -> bytes:
    blocks = (hmac.digest(SECRET, nonce + bytes([part]), "sha256") for part in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def encrypt(row: Mapping[str, Any]) -> dict[str, Any]:
    """With another nonce each time, as Fernet does."""
    nonce, text = next(NUMBERS).to_bytes(4, "big"), row["blob"].encode()
    sealed = bytes(one ^ other for one, other in zip(text, stream(nonce, len(text)), strict=True))
    return {
        "encrypted_blob": base64.b64encode(nonce + sealed).decode(),
        "key_hash": hashlib.sha1(SECRET, usedforsecurity=False).hexdigest(),
    }


def decrypt(row: Mapping[str, Any]) -> dict[str, Any]:
    sealed = base64.b64decode(row["encrypted_blob"])
    nonce, text = sealed[:4], sealed[4:]
    return {"blob": bytes(one ^ other for one, other in zip(text, stream(nonce, len(text)), strict=True)).decode()}


ENCRYPT = OpaqueColumns(
    table="credential",
    columns=[column._copy() for column in (NEW.c.encrypted_blob, NEW.c.key_hash)],
    lens=Opaque(old=["blob"], new=["encrypted_blob", "key_hash"], forward=encrypt, backward=decrypt),
)


def test_neither_release_stops_writing_and_nothing_is_lost(database: Database) -> None:
    old, new = OLD.c, NEW.c
    writer = OpaqueWriter(ENCRYPT, table=NEW)
    with staged(database, OLD.metadata, ENCRYPT) as stage:
        stage.send(OLD.insert().values(id="1", user_id="u", type="ec2", blob='{"access": "a"}'))
        stage.there_and_back("credential")
        stage.run.expand()
        # 003's triggers refused this until contract.
        stage.send(OLD.insert().values(id="2", user_id="u", type="ec2", blob="two"))
        stage.run.migrate()
        with stage.engine.begin() as connection:
            writer.insert(connection, {"id": "3", "user_id": "v", "type": "totp", **encrypt({"blob": "three"})})
            writer.update(connection, {"id": "2"}, encrypt({"blob": "zwei"}))
        assert stage.read(sa.select(old.id, old.blob).order_by(old.id)) == [
            ("1", '{"access": "a"}'),
            ("2", "zwei"),
            ("3", "three"),
        ]

        # 003 lost this: the row was encrypted already, so the update passed, and contract dropped what it wrote.
        stage.send(OLD.update().where(old.id == "1").values(blob="by old code after migrate"))
        assert stage.read(sa.select(new.encrypted_blob).where(new.id == "1")) == [(None,)]
        assert "CF012" in stage.refused("contract")
        with stage.engine.begin() as connection:
            (row,) = writer.read(connection, {"id": "1"})
            assert decrypt(row) == {"blob": "by old code after migrate"}
        stage.run.migrate()
        stage.run.verify()
        stage.contract(NEW.metadata)
        found = dict(stage.read(sa.select(new.id, new.encrypted_blob)))
        assert {name: decrypt({"encrypted_blob": sealed})["blob"] for name, sealed in found.items()} == {
            "1": "by old code after migrate",
            "2": "zwei",
            "3": "three",
        }


def test_migrate_leaves_alone_what_is_encrypted(database: Database) -> None:
    """003's was not to be run twice: it encrypted every row again."""
    with staged(database, OLD.metadata, ENCRYPT) as stage:
        stage.send(OLD.insert().values(id="1", user_id="u", type="ec2", blob="one"))
        stage.run.expand()
        stage.run.migrate()
        sealed = stage.read(sa.select(NEW.c.encrypted_blob))
        stage.run.migrate()
        stage.run.upgrade()
        assert stage.read(sa.select(NEW.c.encrypted_blob)) == sealed
