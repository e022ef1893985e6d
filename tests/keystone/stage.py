"""A database with tables of Keystone's past, an upgrade of them, and ways to write as each of its releases did."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import Declared, Options, Runner, State, Upgrade
from contraflow.operations.base import Operation
from contraflow.problems import Problem, ProblemError
from tests.operations.lives import exact, shape
from tests.servers.shared import Database, new_engine

NOON = dt.datetime(2016, 10, 6, 12)  # noqa: DTZ001 - as Keystone stores times: UTC without a zone


@dataclass(frozen=True, kw_only=True)
class Stage:
    """The old release's tables on a server, and the runner of the upgrade."""

    database: Database
    run: Runner

    @property
    def engine(self) -> sa.Engine:
        """For statements of either release."""
        return self.database.engine

    def send(self, *statements: sa.Executable) -> int:
        """Each in a transaction of its own; how many rows the last one changed."""
        changed = 0
        for statement in statements:
            with self.engine.begin() as connection:
                if self.database.kind == "sqlite":
                    connection.exec_driver_sql("PRAGMA foreign_keys = ON")
                changed = connection.execute(statement).rowcount
        return changed

    def read(self, query: sa.Select[Any]) -> list[tuple[Any, ...]]:
        """The query's rows."""
        with self.engine.connect() as connection:
            return [tuple(row) for row in connection.execute(query)]

    def refused(self, phase: str) -> str:
        """What the phase says when it refuses."""
        with pytest.raises(ProblemError) as refusal:
            getattr(self.run, phase)()
        return str(refusal.value)

    def there_and_back(self, *tables: str) -> None:
        """Expand and roll back: the old release's tables are exactly as before."""
        before = [exact(self.engine, table) for table in tables]
        assert self.run.check() == []
        self.run.expand()
        self.run.rollback()
        assert [exact(self.engine, table) for table in tables] == before

    def contract(self, wanted: sa.MetaData) -> None:
        """Contract: what is left are the new release's tables, as if they were made new."""
        self.run.contract()
        assert self.run.status().state is State.CONTRACTED
        url = self.database.server.create_database()
        made = new_engine(url)
        try:
            wanted.create_all(made)
            for table in wanted.tables:
                assert shape(self.engine, table) == shape(made, table)
        finally:
            made.dispose()
            self.database.server.drop_database(url)


@contextlib.contextmanager
def staged(database: Database, tables: sa.MetaData, *operations: Operation, number: int = 1) -> Iterator[Stage]:
    """Make the old release's tables, those that are not there yet; ``number`` counts upgrades of one database."""
    tables.create_all(database.engine)
    declared = Declared(revision=f"r{number}", operations=operations)
    upgrade = Upgrade(old=f"r{number - 1}", new=declared.revision, changes=(declared,))
    with Runner(database.url, upgrade, options=Options(lock_timeout=0.3)) as run:
        yield Stage(database=database, run=run)


def codes(problems: Sequence[Problem]) -> list[str]:
    """The codes of problems."""
    return sorted({problem.code for problem in problems})


def key() -> sa.Column[str]:
    """Keystone's usual key: 32 hexadecimal digits."""
    return sa.Column("id", sa.String(64), primary_key=True)
