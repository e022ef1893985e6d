"""What tests do to a few tables on one connection: holds of DDL, rows, and the engine's walks over them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql, sqlite

from contraflow import dialects
from contraflow.steps import Hold

__all__ = ["Refused", "Workbench"]


class Refused(Exception):
    """The server, or the model, refused a statement."""


@dataclass(kw_only=True)
class Workbench:
    """Tables of one scene on a server, on one connection that commits each statement.

    A row is told by the first column of its table's key; further columns of the key hold the number of their place.
    """

    connection: sa.Connection
    adapter: dialects.Adapter

    def close(self) -> None:
        self.connection.close()

    def table(self, name: Any) -> sa.Table:
        """The table that the methods below are given the name of."""
        assert isinstance(name, sa.Table)
        return name

    def hold(self, hold: Hold) -> list[str]:
        """Carry out a hold; the statements that were sent."""
        with self.adapter.holding(self.connection, hold, 10.0):
            found = self.adapter.find(self.connection, hold.table, hold.schema)
            statements = self.adapter.hold(hold, found)
            self.adapter.execute(self.connection, statements)
        return [statement.sql for statement in statements]

    # -- reading --

    def read(self, table: Any) -> dict[int, dict[str, Any]]:
        """Every row by its key, without it."""
        found = self.table(table)
        rows = self.connection.execute(sa.select(found)).mappings()
        keys = {column.name for column in found.primary_key}
        first = _key(found).name
        return {row[first]: {name: value for name, value in row.items() if name not in keys} for row in rows}

    def count(self, *queries: str) -> int:
        """The sum of what some queries count."""
        return sum(int(self.connection.execute(sa.text(query)).scalar_one()) for query in queries)

    # -- writing --

    def run(self, statement: Any) -> int:
        """One statement, committed."""
        try:
            return int(self.connection.execute(statement).rowcount)
        except (sa.exc.IntegrityError, sa.exc.OperationalError) as error:
            if "1442" in str(error.orig):
                raise  # never for a reason of the row's own
            raise Refused(str(error.orig)) from error

    def insert(self, table: Any, key: int, given: Mapping[str, Any]) -> None:
        found = self.table(table)
        self.run(sa.insert(found).values({**_keyed(found, key), **given}))

    def update(self, table: Any, keys: Sequence[int], given: Mapping[str, Any]) -> None:
        found = self.table(table)
        self.run(sa.update(found).where(_key(found).in_(keys)).values(dict(given)))

    def rekey(self, table: Any, key: int, to: int) -> None:
        self.update(table, [key], {_key(self.table(table)).name: to})

    def delete(self, table: Any, keys: Sequence[int]) -> None:
        found = self.table(table)
        self.run(sa.delete(found).where(_key(found).in_(keys)))

    def upsert(self, table: Any, key: int, given: Mapping[str, Any]) -> None:
        """The server's own upsert, of the given columns."""
        found = self.table(table)
        keyed = _keyed(found, key)
        statement: Any
        if self.adapter.product in ("mysql", "mariadb"):
            statement = mysql.insert(found).values({**keyed, **given})
            statement = statement.on_duplicate_key_update({name: statement.inserted[name] for name in given})
        else:
            insert = postgresql.insert if self.adapter.product == "postgresql" else sqlite.insert
            statement = insert(found).values({**keyed, **given})
            statement = statement.on_conflict_do_update(
                index_elements=list(keyed), set_={name: statement.excluded[name] for name in given}
            )
        self.run(statement)

    # -- the engine's --

    def fill(self, text: dialects.base.BackfillText, *, width: int = 1, size: int = 3) -> int:
        """Walk over a table, a few rows at a time, whose key has ``width`` columns; the rows written."""
        assert text.first_bound is not None
        assert text.bound is not None
        written = 0
        after: dict[str, Any] = {}
        upto = self.connection.execute(sa.text(text.first_bound), {"limit": size}).first()
        while upto is not None:
            given = {**after, **{f"u{place}": value for place, value in enumerate(upto)}}
            fill, lock = (text.fill, text.lock) if after else (text.first_fill, text.first_lock)
            if lock is not None:
                self.connection.execute(sa.text(lock), given)
            written += self.connection.execute(sa.text(fill), given).rowcount
            after = {f"k{place}": upto[place] for place in range(width)}
            upto = self.connection.execute(sa.text(text.bound), {**after, "limit": size}).first()
        return written


def _key(table: sa.Table) -> sa.Column[Any]:
    return next(iter(table.primary_key))


def _keyed(table: sa.Table, key: int) -> dict[str, Any]:
    return {column.name: place or key for place, column in enumerate(table.primary_key)}
