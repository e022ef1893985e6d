"""Checks every row while everybody stands still: as each release that serves reads it, against what is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from contraflow.operations.base import TableName
from contraflow.rehearsal.clients import Client
from contraflow.rehearsal.desk import Desk
from contraflow.rehearsal.hot import HotRow
from contraflow.rehearsal.nodes import Node
from contraflow.rehearsal.oracle import TableOracle, World
from contraflow.rehearsal.rule import Side
from contraflow.rehearsal.shapes import TableShape, stored

__all__ = ["check", "tell_keys"]

_Keys = Mapping[tuple[str, Any], Mapping[str, Any]]
"""By which keys each release knows a row, for each column and value of these."""

_RELEASES: tuple[Side, Side] = ("old", "new")


def check(desk: Desk, clients: Sequence[Client]) -> None:
    """Check every row of every table; what is found goes to the desk's history. The desk is closed meanwhile."""
    _Check(desk, clients).run()


def tell_keys(desk: Desk, clients: Sequence[Client]) -> Mapping[TableName, _Keys]:
    """Let every client know by which keys each release knows its rows, where that can be told. The desk is closed."""
    told = {name: _keys(desk, name) for name in desk.rekeyed if desk.tells(name)}
    for client in clients:
        for name, keys in told.items():
            for item in list(client.items[name]):
                known = _known(keys, item.key)
                if known is not None and known.keys() > item.key.keys():
                    client.learn(item, known)
            for key in client.abandoned[name]:
                key.update(_known(keys, key) or {})
    return told


def _keys(desk: Desk, table: TableName) -> _Keys:
    answer = desk.nodes["new"].ask(0, {"statements": [("keys", desk.tables[table].shape("new").title)]})
    rows = answer.results[0] if answer.ok else ()
    return {(name, value): row for row in rows for name, value in row.items() if value is not None}


def _known(keys: _Keys, key: Mapping[str, Any]) -> Mapping[str, Any] | None:
    return next((keys[cell] for cell in key.items() if cell in keys), None)


def _columns(table: TableOracle) -> set[str]:
    return {name for release in _RELEASES for name in table.shape(release).columns}


class _Check:
    def __init__(self, desk: Desk, clients: Sequence[Client]) -> None:
        self._desk = desk
        self._clients = clients
        self._history = desk.history
        self._read: dict[TableName, Sequence[Mapping[str, Any]]] = {}
        self._keys = tell_keys(desk, clients)

    def run(self) -> None:
        if self._desk.calls:
            self._agreement()
            return
        views: dict[HotRow, list[Mapping[str, Any]]] = {}
        for release, node in sorted(self._desk.nodes.items()):
            for name, table in self._desk.tables.items():
                if table.knows(release):
                    self._table(release, node, name, table, views)
        for relation in self._desk.relations if "new" in self._desk.nodes else ():
            for client in self._clients:
                for item, what in (
                    relation.torn(self._read, client.known) if relation.tables <= self._read.keys() else ()
                ):
                    title = str(item.table[1])
                    self._history.find("differs", what, table=title, key=item.title, row=item.key, of=item.history)
        for hot, seen in views.items():
            for what in hot.torn(seen):
                self._history.find("differs", what, table=str(hot.table[1]), key=hot.title, row=hot.key, of=hot.history)

    def _agreement(self) -> None:
        """Hold the two sides of every row against each other, as both releases read them."""
        if len(self._desk.nodes) < len(_RELEASES):
            return
        read = {
            name: self._merged(table)
            for name, table in self._desk.tables.items()
            if (table.groups or name in self._desk.related) and not table.shape("new").keyless
        }

        known = {name: [[World(self._desk.tables[name].coerced(row))] for row in found] for name, found in read.items()}
        for name, found in read.items():
            table = self._desk.tables[name].of(known.__getitem__)
            for row in found:
                if lacking := _columns(table) - row.keys():
                    what = f"one release does not know the row: it reads no {', '.join(sorted(lacking))}"
                    told = ", ".join(f"{name}={row[name]}" for name in table.shape("old").key if name in row)
                    self._history.find("differs", what, table=table.shape("new").title, key=told)
                    continue
                for group in table.drifted(row):
                    told = ", ".join(f"{cell.name} = {row[cell.name]!r}" for cell in (*group.old, *group.new))
                    key = ", ".join(f"{name}={row[name]}" for name in table.shape("new").key)
                    self._history.find("differs", f"{told} do not agree", table=table.shape("new").title, key=key)

    def _merged(self, table: TableOracle) -> Sequence[Mapping[str, Any]]:
        """Every row, with the columns of both releases."""
        merged: dict[tuple[str, ...], dict[str, Any]] = {}
        for release in _RELEASES:
            shape = table.shape(release)
            answer = self._desk.nodes[release].ask(0, {"statements": [("all", shape.title)]})
            keys = self._keys.get(shape.name)
            for row in answer.results[0] if answer.ok else ():
                key = {name: row[name] for name in shape.key}
                if keys is not None:
                    key = dict(_known(keys, key) or key)
                merged.setdefault(tuple(f"{name}={key[name]}" for name in sorted(key)), {}).update(row)
        self._history.count("values checked", sum(map(len, merged.values())))
        return list(merged.values())

    def _table(
        self,
        release: Side,
        node: Node,
        name: TableName,
        table: TableOracle,
        views: dict[HotRow, list[Mapping[str, Any]]],
    ) -> None:
        """Hold every row of a table, as one release reads it, against what is known."""
        shape = table.shape(release)
        at = self._history.now()
        answer = node.ask(0, {"statements": [("all", shape.title)]})
        if not answer.ok:
            self._history.find("failed", f"reading {shape.title} failed: {answer.error}", table=shape.title)
            return
        store = [stored(shape.columns[column].type) for column in shape.key]

        def identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
            return tuple(kept(row[column]) for kept, column in zip(store, shape.key, strict=True))

        if release == "new":
            self._read[name] = answer.results[0]
        found = {identity(row): row for row in answer.results[0]}
        self._repeated(shape, [identity(row) for row in answer.results[0]], name)
        for hot in self._desk.hot:
            if hot.table == name:
                seen = found.pop(identity(hot.key), None)
                hot.reading(at)
                self._clients[0].check_hot(release, hot, seen, at)
                if seen is not None:
                    views.setdefault(hot, []).append(seen)
        for client in self._clients:
            for item in list(client.items[name]):
                seen = found.pop(identity(item.key), None) if item.knows(shape) else None
                client.check(release, item, seen, at, "check")
            for key in client.abandoned[name]:
                if key.keys() >= set(shape.key):
                    found.pop(identity(key), None)
        self._unheard(release, name, table, found, at)
        self._nobodys(shape, name, found.values())

    def _unheard(
        self, release: Side, name: TableName, table: TableOracle, found: dict[Any, Mapping[str, Any]], at: float
    ) -> None:
        """Recognise rows whose insert was not answered by what they hold."""
        for client in self._clients:
            for item in [item for item in client.unheard if item.table == name]:
                same = next((key for key, row in found.items() if table.read(item.worlds, release, row)[0]), None)
                if same is not None:
                    row = found.pop(same)
                    key = {column: row[column] for column in table.shape(release).key}
                    client.recognise(item, key)
                    client.learn(item, _known(self._keys.get(name, {}), key))
                    if item in client.items[name]:
                        client.check(release, item, row, at, "check")

    def _nobodys(self, shape: TableShape, name: TableName, rows: Iterable[Mapping[str, Any]]) -> None:
        """Rows that nobody has written."""
        for row in rows:
            if any(relation.explains(name, row) for relation in self._desk.relations):
                continue
            key = {column: row[column] for column in shape.key}
            title = ", ".join(f"{column}={value}" for column, value in key.items())
            self._history.find("doubled", f"{shape.title} has a row that nobody wrote", table=shape.title, key=title)

    def _repeated(self, shape: TableShape, identities: Sequence[tuple[Any, ...]], name: TableName) -> None:
        """Find rows that are there twice, which only a table without a primary key can have."""
        if not shape.keyless:
            return
        given_up = [tuple(key.values()) for client in self._clients for key in client.abandoned[name]]
        for values, times in Counter(identities).items():
            if times > 1 and values not in given_up:
                key = dict(zip(shape.key, values, strict=True))
                title = ", ".join(f"{column}={value}" for column, value in key.items())
                what = f"{shape.title} has a row {times} times"
                self._history.find("doubled", what, table=shape.title, key=title, row=key)
