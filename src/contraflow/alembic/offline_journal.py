"""The journal's own rows as SQL text, so that a script leaves a database which every later command knows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect

from contraflow.dialects.base import Adapter
from contraflow.engine.journal import OPEN, Entry, Tables, values_of
from contraflow.engine.matching import revisions_of
from contraflow.engine.nodes import library_version
from contraflow.engine.report import State
from contraflow.installed import Installed
from contraflow.operations.planning import Upgrade

__all__ = ["OfflineJournal"]

_NOW = {
    "postgresql": "CAST(extract(epoch FROM clock_timestamp()) AS double precision)",
    "mysql": "UNIX_TIMESTAMP(SYSDATE(6))",
    "sqlite": "((julianday('now') - 2440587.5) * 86400.0)",
}
_NOW |= {"cockroachdb": _NOW["postgresql"], "mariadb": _NOW["mysql"]}


class OfflineJournal:
    """Statements that do to the journal what the engine does when it runs the phases itself."""

    def __init__(self, adapter: Adapter, dialect: Dialect, tables: Tables, upgrade: Upgrade) -> None:
        self._adapter = adapter
        self._dialect = dialect
        self._tables = tables
        self._upgrade = upgrade
        self._now = _NOW[adapter.profile.product]
        self._journal = adapter.compiler.table(tables.journal.name, tables.journal.schema)
        self._event = adapter.compiler.table(tables.event.name, tables.event.schema)

    def begin(self, installed: tuple[Installed, ...], programs: Mapping[str, Any]) -> Iterator[str]:
        """The journal's tables, and a new upgrade in them, unless one is open."""
        for table in self._tables.metadata.sorted_tables:
            yield str(sa.schema.CreateTable(table, if_not_exists=True).compile(dialect=self._dialect)).strip()
        entry = Entry(
            number=0,
            state=State.PENDING,
            pending="expand",
            old=self._upgrade.old,
            new=self._upgrade.new,
            revisions=revisions_of(self._upgrade),
            installed=installed,
            programs=programs,
            profile=self._adapter.profile,
            library=library_version(),
            created=time.time(),
            updated=time.time(),
        )
        literal = self._adapter.compiler.literal
        values = {name: literal(value) for name, value in values_of(entry).items() if name != "updated"}
        values |= {
            "number": f"coalesce((SELECT max(number) FROM {self._journal}), 0) + 1",
            "created": self._now,
            "updated": self._now,
        }
        names = ", ".join(map(self._adapter.compiler.quote, values))
        yield (
            f"INSERT INTO {self._journal} ({names}) SELECT {', '.join(values.values())} FROM (SELECT 1 AS one) AS one"
            f" WHERE NOT EXISTS (SELECT 1 FROM {self._journal} WHERE state IN ({self._states()}))"
        )
        yield self._tell("expand", "begun")

    def reach(self, verb: str, state: State, *, following: str | None = None) -> Iterator[str]:
        """The verb is done, and the one that follows in the script is begun."""
        pending = "NULL" if following is None else self._adapter.compiler.literal(following)
        yield (
            f"UPDATE {self._journal} SET state = '{state.value}', pending = {pending}, updated = {self._now}"
            f" WHERE new = {self._adapter.compiler.literal(self._upgrade.new)} AND state IN ({self._states()})"
        )
        yield self._tell(verb, "done")
        if following is not None:
            yield self._tell(following, "begun")

    def _states(self) -> str:
        return ", ".join(f"'{state.value}'" for state in OPEN)

    def _tell(self, verb: str, kind: str) -> str:
        return (
            f"INSERT INTO {self._event} (number, at, runner, verb, kind, title)"
            f" SELECT max(number), {self._now}, 'sql', '{verb}', '{kind}', '{verb}' FROM {self._journal}"
        )
