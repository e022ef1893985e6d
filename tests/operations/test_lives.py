"""Each operation on indexes through its whole life, on every server."""

from __future__ import annotations

import re

import pytest
import sqlalchemy as sa

import contraflow
from contraflow import Fault
from contraflow.dialects.base import Statement
from contraflow.problems import ProblemError
from tests.operations.lives import LIVES, Killed, Life, create, exact, runner, send, shape, writing
from tests.servers.shared import Database, new_engine

REFUSALS = (Fault.DUPLICATE_KEY, Fault.FOREIGN_KEY, Fault.NOT_NULL, Fault.CHECK)


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.name)
def test_a_life(database: Database, life: Life) -> None:
    engine = database.engine
    create(engine, life.old, life.parents)
    send(engine, life.seed)
    start = exact(engine)
    with runner(database, life) as run:
        assert run.check() == []
        run.expand()
        send(engine, life.old_writes)
        run.rollback()
    assert exact(engine) == start

    killed_once(database, life)
    with runner(database, life) as run:
        run.migrate()
        for _ in range(2):
            send(engine, [*life.old_writes, *life.new_writes])
        run.rollback()
        assert exact(engine) == start

        run.expand()
        with writing(engine, life.old_writes):
            run.migrate()
        send(engine, life.new_writes)
        if life.mend:
            with pytest.raises(ProblemError, match=f"(?s){life.obstacle}"):
                run.verify()
            send(engine, life.mend)
        run.verify()
        run.contract()
    assert shape(engine) == target(database, life)
    for statement in life.refused:
        with pytest.raises(sa.exc.DBAPIError) as refusal:
            send(engine, [statement])
        assert contraflow.classify(refusal.value) in REFUSALS
    if database.kind == "sqlite":
        with engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"


def killed_once(database: Database, life: Life) -> None:
    """Expand and migrate, but for a kill before the first index or constraint is built (or else before the end)."""

    def die(statement: Statement) -> None:
        if re.search(r" (INDEX|FOREIGN KEY|CHECK) ", statement.sql) and statement.sql.startswith(("CREATE", "ALTER")):
            raise Killed

    with runner(database, life) as run:
        run.expand()
    with runner(database, life, die) as run:
        try:
            run.migrate()
        except Killed:
            assert run.status().pending == "migrate"


def target(database: Database, life: Life) -> object:
    """The shape of a table that was made new."""
    url = database.server.create_database()
    engine = new_engine(url)
    try:
        create(engine, life.new, life.parents)
        return shape(engine)
    finally:
        engine.dispose()
        database.server.drop_database(url)
