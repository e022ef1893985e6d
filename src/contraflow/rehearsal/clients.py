"""The clients of a rehearsal: each owns rows of its own, lets either release work on them, and checks every answer.

A row belongs to one client, and a client does one thing at a time. So the order of acknowledged writes of each row is
known, whichever release carried them out, and every read has an expected result.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from contraflow.faults import Fault
from contraflow.operations.base import TableName
from contraflow.rehearsal.history import History, KeyHistory
from contraflow.rehearsal.nodes import Answer, Node, NodeGone, Statement
from contraflow.rehearsal.oracle import ABSENT, MANY, Stage, TableOracle, World
from contraflow.rehearsal.rule import Side
from contraflow.rehearsal.shapes import Link, TableShape, value_for

__all__ = ["Client", "Desk", "Item"]

Key = dict[str, Any]

_UNKNOWN = frozenset({Fault.COMMIT_UNKNOWN.value})
_REFUSED = frozenset(
    fault.value
    for fault in (Fault.CHECK, Fault.DATA, Fault.NOT_NULL, Fault.DUPLICATE_KEY, Fault.FOREIGN_KEY, Fault.RAISED)
)


@dataclass(eq=False, kw_only=True)
class Item:
    """One row that a client knows of."""

    table: TableName
    key: Key
    worlds: list[World]
    parents: tuple[Item, ...] = ()
    children: int = 0
    history: KeyHistory = field(default_factory=KeyHistory)

    @property
    def certain(self) -> bool:
        """Whether the row is there, whatever else is not known."""
        return all(world.values is not None for world in self.worlds)

    @property
    def title(self) -> str:
        """The key as people write it."""
        return ", ".join(f"{name}={value}" for name, value in self.key.items())


class Desk:
    """What all clients share: which releases serve, what they may be asked, and when everybody has to stand still."""

    def __init__(
        self,
        *,
        tables: Mapping[TableName, TableOracle],
        history: History,
        seed: int,
        clients: int,
        control: Callable[[Side, Statement, Mapping[str, Any] | None], bool],
    ) -> None:
        self.tables = tables
        self.history = history
        self.seed = seed
        self.control = control
        """Whether the same statement fails in the release's own schema, too, without an upgrade."""
        self.stage = Stage.OLD
        self.nodes: dict[Side, Node] = {}
        self._tokens = itertools.count(10_001)  # beyond what a project's own first rows are likely to hold
        self._running = clients
        self._closed = False
        self._changed = threading.Condition()

    def token(self) -> int:
        """A number that nobody else gets."""
        return next(self._tokens)

    def close(self) -> None:
        """Return when every client stands between two requests."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0)

    def open(self) -> None:
        """Let the clients go on."""
        with self._changed:
            self._closed = False
            self._changed.notify_all()

    def leave(self) -> None:
        """A client has ended."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def pause(self) -> None:
        """Stand still here while the desk is closed."""
        with self._changed:
            if not self._closed:
                return
            self._running -= 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._closed)
            self._running += 1


class Client:
    """One client: a thread that sends requests until it is stopped.

    :ivar items: the rows it owns, by table.
    :ivar abandoned: keys of rows that were found wrong, and can be judged no more.
    :ivar unheard: rows that may have been inserted with a key of the server's that was not heard of.
    :ivar error: what ended it, if it was not stopped: a fault of the rehearsal itself.
    """

    def __init__(self, number: int, desk: Desk) -> None:
        self.number = number
        self.name = f"client-{number}"
        self.desk = desk
        self.items: dict[TableName, list[Item]] = {name: [] for name in desk.tables}
        self.abandoned: dict[TableName, list[Key]] = {name: [] for name in desk.tables}
        self.unheard: list[Item] = []
        self.error: BaseException | None = None
        self._rng = random.Random(f"{desk.seed}/{number}")  # noqa: S311 - repeatable on purpose
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to send requests."""
        self._thread = threading.Thread(target=self._run, name=self.name, daemon=True)
        self._thread.start()

    def join(self) -> None:
        """Wait until it has ended, if it was ever started."""
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            while not self._stopped.is_set():
                self.desk.pause()
                self._act()
        except BaseException as error:  # noqa: BLE001 - the rehearsal reports it
            self.error = error
        finally:
            self.desk.leave()

    def stop(self) -> None:
        """Ask it to end after the present request."""
        self._stopped.set()

    def find(self, table: TableName, key: Key) -> Item | None:
        """The row with this key, if it is this client's."""
        return next((item for item in self.items[table] if item.key == key), None)

    def load(self, rows: int) -> None:
        """Insert rows into every table of the old release, before anything else."""
        for name in _in_order(self.desk.tables):
            for _ in range(rows - len(self.items[name])):
                if self._stopped.is_set() or self._insert("old", name) is None:
                    break

    # -- one thing after the other -----------------------------------------------------------------------------------

    def _act(self) -> None:
        rng = self._rng
        release = rng.choice(sorted(self.desk.nodes))
        names = [name for name, table in self.desk.tables.items() if table.knows(release)]
        table = rng.choice(names)
        owned = self.items[table]
        chance = rng.random()
        if not owned or chance < 0.12:
            self._insert(release, table)
            return
        item = rng.choice(owned)
        if not item.certain or not self._clear(item):
            self._read(release, item)
        elif chance < 0.5:
            self._update(release, item)
        elif chance < 0.56 and len(owned) > 5 and item.children == 0:
            self._delete(release, item)
        else:
            self._read(release, item)

    def _clear(self, item: Item) -> bool:
        """Read what must be known before the row is written; False if it is not known then, either."""
        oracle = self.desk.tables[item.table]
        window = self.desk.stage in (Stage.OLD, Stage.WINDOW)
        for release in sorted(self.desk.nodes):
            if not oracle.knows(release):
                continue
            if oracle.unsettled(item.worlds, release) and not (window and 1 < len(item.worlds) <= MANY):
                self._read(release, item)
                if not item.worlds or item not in self.items[item.table]:
                    return False
        return window or len(item.worlds) == 1

    def adopt(self, table: TableName, row: Mapping[str, Any]) -> None:
        """Take over a row that was there before anybody else: it is never deleted, since others may refer to it."""
        oracle = self.desk.tables[table]
        key = {name: row[name] for name in oracle.shape("old").key}
        item = Item(table=table, key=key, worlds=oracle.insert(row, Stage.OLD), children=1)
        item.history.add(self.desk.history.now(), None, self.name, "found", row, "ok")
        self.items[table].append(item)

    def recognise(self, item: Item, key: Key) -> None:
        """A row whose insert was not answered has been found under this key."""
        self.unheard.remove(item)
        item.key = key
        self.items[item.table].append(item)

    def _insert(self, release: Side, table: TableName, depth: int = 0) -> Item | None:
        oracle = self.desk.tables[table]
        drawn = self._draw(oracle, release, depth)
        if drawn is None:
            return None
        values, parents = drawn
        statement: Statement = ("insert", oracle.shape(release).title, [values])
        sent = self.desk.history.now()
        answer = self._ask(release, [statement])
        shape = oracle.shape(release)
        key = {name: values.get(name) for name in shape.key}
        if answer.ok and answer.results[0] is not None:
            key = dict(answer.results[0])
        worlds = oracle.insert({**values, **key}, self.desk.stage)
        item = Item(table=table, key=key, worlds=worlds, parents=parents)
        item.history.add(sent, release, self.name, "insert", values, _outcome(answer))
        if answer.fault in _UNKNOWN:
            if shape.automatic is not None:
                item.worlds = oracle.insert(values, self.desk.stage)
                # The row, if there is one, has a key that nobody was told: it is recognised at a check.
                self.unheard.append(item)
                for parent in parents:
                    parent.children += 1
                return None
            item.worlds = [ABSENT, *worlds]
        elif not answer.ok:
            self._failed(release, statement, None, answer, item)
            return None
        self.items[table].append(item)
        for parent in parents:
            parent.children += 1
        return item

    def _draw(self, oracle: TableOracle, release: Side, depth: int) -> tuple[dict[str, Any], tuple[Item, ...]] | None:
        """Values for a new row, and the rows that it refers to; None if there is nothing it could refer to."""
        rng, shape = self._rng, oracle.shape(release)
        values: dict[str, Any] = {}
        parents: list[Item] = []
        for link in shape.links:
            optional = all(shape.columns[name].nullable for name in link.columns)
            if optional and rng.random() < 0.4:
                values.update(dict.fromkeys(link.columns))
                continue
            parent = self._parent(shape, link, release, depth, values)
            reference = self._reference(parent, link)
            if parent is not None and reference is not None:
                values.update(reference)
                parents.append(parent)
            elif optional:
                values.update(dict.fromkeys(link.columns))
            else:
                return None
        once = _distinguishing(shape)
        given = oracle.must_give(release)
        for name, column in shape.columns.items():
            if name in values or name in shape.made:
                continue
            if name in once:
                values[name] = value_for(column, rng, token=self.desk.token())
            elif column.server_default is not None and name not in given and rng.random() < 0.5:
                continue
            else:
                values[name] = value_for(column, rng)
        return values, tuple(parents)

    def _parent(
        self, shape: TableShape, link: Link, release: Side, depth: int, values: Mapping[str, Any]
    ) -> Item | None:
        """A row of this client's to refer to."""
        if link.table not in self.desk.tables or not self.desk.tables[link.table].knows(release):
            return None
        linked_key = set(shape.key) <= {name for other in shape.links for name in other.columns}
        for _ in range(4):
            owned = self.items[link.table]
            if owned and self._rng.random() < 0.8:
                parent: Item | None = self._rng.choice(owned)
            else:
                parent = (
                    self._insert(release, link.table, depth + 1) if depth < 3 and link.table != shape.name else None
                )
            reference = self._reference(parent, link)
            if parent is None or reference is None:
                continue
            proposed = {**values, **reference}
            if not linked_key or not set(shape.key) <= proposed.keys():
                return parent
            if self.find(shape.name, {name: proposed[name] for name in shape.key}) is None:
                return parent
        return None

    def _reference(self, parent: Item | None, link: Link) -> dict[str, Any] | None:
        """The values that refer to a row; None while they are not certain."""
        if parent is None or not parent.certain:
            return None
        found: dict[str, Any] = {}
        for name, far in zip(link.columns, link.referred, strict=True):
            values = [parent.key.get(far, (world.values or {}).get(far)) for world in parent.worlds]
            if values[0] is None or any(value != values[0] for value in values):
                return None
            found[name] = values[0]
        return found

    def _update(self, release: Side, item: Item) -> None:
        oracle, rng = self.desk.tables[item.table], self._rng
        shape = oracle.shape(release)
        once = _distinguishing(shape)
        linked = {name for link in shape.links for name in link.columns}
        free = [name for name in shape.columns if name not in {*shape.key, *shape.made, *linked}]
        if not free:
            self._read(release, item)
            return
        chosen = rng.sample(free, rng.randint(1, min(len(free), 4)))
        values: dict[str, Any] = {}
        for name in chosen:
            token = self.desk.token() if name in once else None
            values[name] = value_for(shape.columns[name], rng, token=token)
        worlds = [after for world in item.worlds for after in oracle.update(world, values, self.desk.stage)]
        self._write(release, item, ("update", shape.title, item.key, values), values, worlds)

    def _delete(self, release: Side, item: Item) -> None:
        shape = self.desk.tables[item.table].shape(release)
        self._write(release, item, ("delete", shape.title, item.key), None, [ABSENT])

    def _write(
        self, release: Side, item: Item, statement: Statement, values: Mapping[str, Any] | None, worlds: list[World]
    ) -> None:
        """Change a row that is there; ``worlds`` is what it may be afterwards."""
        sent = self.desk.history.now()
        answer = self._ask(release, [statement])
        item.history.add(sent, release, self.name, statement[0], values, _outcome(answer))
        if answer.fault in _UNKNOWN:
            item.worlds = [*item.worlds, *worlds]
        elif not answer.ok:
            self._failed(release, statement, item, answer, item)
        elif answer.results[0] != 1:
            self._wrong("lost", item, f"{statement[0]} found {answer.results[0]} rows with this key, and must find one")
        elif worlds == [ABSENT]:
            self._forget(item)
        else:
            item.worlds = worlds

    def _read(self, release: Side, item: Item) -> None:
        oracle = self.desk.tables[item.table]
        if not oracle.knows(release):
            return
        sent = self.desk.history.now()
        answer = self._ask(release, [("select", oracle.shape(release).title, item.key)])
        if not answer.ok:
            item.history.add(sent, release, self.name, "read", None, _outcome(answer))
            if answer.fault not in _UNKNOWN:
                self.desk.history.find(
                    "failed",
                    f"a read failed: {answer.error}",
                    table=_title(item.table),
                    key=item.title,
                    of=item.history,
                )
            return
        self.check(release, item, answer.results[0], sent, "read")

    def check(self, release: Side, item: Item, found: Mapping[str, Any] | None, at: float, action: str) -> None:
        """Hold a row that the release has read against what is known of it."""
        oracle = self.desk.tables[item.table]
        item.history.add(at, release, self.name, action, found, "ok" if found is not None else "no row")
        self.desk.history.count("values checked", len(found) if found else 1)
        left, wrong = oracle.read(item.worlds, release, found)
        if wrong:
            there = "alien read" if action == "read" else "differs"
            self._wrong("lost" if found is None else there, item, f"the {release} release reads: {'; '.join(wrong)}")
        elif all(world.values is None for world in left):
            self._forget(item)
        else:
            item.worlds = left

    def _wrong(self, kind: Any, item: Item, what: str) -> None:
        """Report a row once: after that, nothing that is read of it can be judged."""
        self.desk.history.find(kind, what, table=_title(item.table), key=item.title, of=item.history)
        self.abandoned[item.table].append(item.key)
        self._forget(item)

    def _forget(self, item: Item) -> None:
        self.items[item.table].remove(item)
        for parent in item.parents:
            parent.children -= 1

    def _failed(self, release: Side, statement: Statement, before: Item | None, answer: Answer, item: Item) -> None:
        """A statement has failed: a finding, unless it fails without the upgrade, too."""
        row = None
        if before is not None and before.worlds[0].values is not None:
            row = self.desk.tables[before.table].view(before.worlds[0], release)
        if answer.fault in _REFUSED and self.desk.control(release, statement, row):
            self.desk.history.count("refused alike without the upgrade")
            return
        what = f"{statement[0]} by the {release} release failed: {answer.error}"
        self.desk.history.find("failed", what, table=_title(item.table), key=item.title, of=item.history)

    def _ask(self, release: Side, statements: Sequence[Statement]) -> Answer:
        history = self.desk.history
        sent = history.now()
        try:
            answer = self.desk.nodes[release].ask(self.number, {"statements": list(statements)})
        except NodeGone as error:
            answer = Answer(fault=Fault.COMMIT_UNKNOWN.value, error=str(error), seconds=history.now() - sent)
        verb, table = statements[0][:2]
        history.request(release, sent, answer, f"{verb} {table}")
        if answer.fault in _UNKNOWN:
            history.count("commits of unknown outcome")
        elif answer.ok:
            history.count("reads" if verb == "select" else "acknowledged writes")
        return answer


def _in_order(tables: Mapping[TableName, TableOracle]) -> list[TableName]:
    """The old release's tables, those that others refer to first."""
    ordered: list[TableName] = []
    waiting = {name: table.shape("old") for name, table in tables.items() if table.knows("old")}
    while waiting:
        ready = [
            name
            for name, shape in waiting.items()
            if not any(link.table in waiting and link.table != name for link in shape.links)
        ]
        for name in ready or [min(waiting, key=str)]:
            ordered.append(name)
            del waiting[name]
    return ordered


def _title(table: TableName) -> str:
    schema, name = table
    return f"{schema}.{name}" if schema else name


def _outcome(answer: Answer) -> str:
    if answer.ok:
        return "ok"
    return "unknown" if answer.fault in _UNKNOWN else answer.error


def _distinguishing(shape: TableShape) -> frozenset[str]:
    """Columns that get a value of their own in each row, so that no unique set and no key repeats."""
    linked = {name for link in shape.links for name in link.columns}
    chosen: set[str] = set()
    for columns in (shape.key, *shape.unique):
        free = [name for name in columns if name in shape.columns and name not in linked and name not in shape.made]
        if free and not chosen & set(free):
            chosen.add(free[-1] if columns == shape.key else free[0])
    return frozenset(chosen)
