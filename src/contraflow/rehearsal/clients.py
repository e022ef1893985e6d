"""The clients of a rehearsal: each owns rows of its own, lets either release work on them, and checks every answer.

A row belongs to one client, and a client does one thing at a time. So the order of acknowledged writes of each row is
known, whichever release carried them out, and every read has an expected result.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from contraflow.faults import Fault
from contraflow.operations.base import TableName
from contraflow.rehearsal import own
from contraflow.rehearsal.desk import Desk
from contraflow.rehearsal.hot import HotRow
from contraflow.rehearsal.nodes import Answer, NodeGone, Statement
from contraflow.rehearsal.oracle import ABSENT, MANY, Stage, World, distinct
from contraflow.rehearsal.own import UNKNOWN
from contraflow.rehearsal.record import FindingKind
from contraflow.rehearsal.rekeying import taught
from contraflow.rehearsal.relations import Relation, Written
from contraflow.rehearsal.rule import NOW, Side
from contraflow.rehearsal.shapes import ANY
from contraflow.rehearsal.transactions import Drawer, Item, Key, Step, after_update, in_order

__all__ = ["Client"]

_RELEASES: tuple[Side, Side] = ("old", "new")
_A_MOMENT = 0.005
"""Seconds until a client asks again whether there is something to do."""
_HOT = 0.15
"""How many of the requests are for rows that everybody writes."""
_REFUSED = frozenset(
    fault.value
    for fault in (Fault.CHECK, Fault.DATA, Fault.NOT_NULL, Fault.DUPLICATE_KEY, Fault.FOREIGN_KEY, Fault.RAISED)
)


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
        self._tables = {name: table.of(self._rows) for name, table in desk.tables.items()}
        self._drawer = Drawer(
            tables=self._tables,
            items=self.items,
            token=desk.token,
            rng=self._rng,
            known=self.known,
            followed=lambda: desk.followed,
        )
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
        for name in in_order(self.desk.tables):
            at_once = 20
            for _ in range(3 * rows):  # some transactions are refused, or only make what the next one refers to
                missing = rows - len(self.items[name])
                if missing <= 0 or self._stopped.is_set():
                    break
                steps = self._drawer.insert("old", name, self.desk.stage, rows=min(missing, at_once))
                if not self._carry_out("old", steps):
                    at_once = 1

    # -- one thing after the other -----------------------------------------------------------------------------------

    def _act(self) -> None:
        rng = self._rng
        release = rng.choice(sorted(self.desk.nodes))
        if release in self.desk.replays:
            if not own.replay(self.desk, release, self.number, self.name):
                self._stopped.wait(_A_MOMENT)
            return
        if self.desk.calls:
            own.call(self.desk, release, self.number, self.name, seed=self._rng.getrandbits(48))
            return
        chance = rng.random()
        if self.desk.hot and rng.random() < _HOT:
            self._act_on(release, rng.choice(self.desk.hot))
            return
        if chance < 0.45:
            item = self._pick(release)
            if item is not None:
                self._read(release, item)
                return
        # Now and then several statements, of one or several tables, in one transaction.
        count = 1 if chance < 0.9 else rng.randint(2, 4)
        busy: list[Item] = []
        steps: list[Step] = []
        for _ in range(count):
            for step in self._statements(release, busy):
                busy += step.items
                busy += (parent for item in step.items for parent in item.parents)
                busy += [step.referred] if step.referred is not None else []
                for item in step.items:
                    busy += (near for relation in self.desk.relations for near in relation.beside(item, self.known))
                steps.append(step)
        self._carry_out(release, steps)

    def give_hot(self, table: TableName, rows: int) -> Iterator[HotRow]:
        """Give rows up, to be written by everybody from now on; they are never deleted."""
        oracle = self.desk.tables[table]
        shape = oracle.shape("old")
        if set(shape.key) <= {name for link in shape.links for name in link.columns}:
            return  # what refers to others only must be known to whoever refers to them next
        if table in {*self.desk.mains, *self.desk.companions, *self.desk.related}:
            return  # its rows in other tables would be everybody's, too
        if oracle.opaque:
            return  # what it reads need not be the same twice
        if oracle.conditions:
            return  # whether a row meets them, nobody can tell who does not know the whole of it
        for item in self.items[table][:rows]:
            values = item.worlds[0].values
            if len(item.worlds) == 1 and values is not None:
                self.items[table].remove(item)
                for parent in item.parents:
                    parent.shared = True
                yield HotRow(table, item.key, oracle, values, self.desk.history.now())

    def _act_on(self, release: Side, row: HotRow) -> None:
        """Read or write a row that others write, too."""
        oracle = self.desk.tables[row.table]
        if not oracle.knows(release):
            return
        shape, sent = oracle.shape(release), self.desk.history.now()
        known = row.last.get(release)
        draft = row.draw(release, self._rng, self.desk.token, sent) if known and self._rng.random() < 0.6 else None
        if draft is None:
            row.reading(sent)
            answer = self._ask(release, [("select", shape.title, [row.key])])
            if answer.ok:
                self.check_hot(release, row, answer.results[0], sent)
                return
            row.unread(sent)
            statement: Statement = ("select", shape.title, [row.key])
        else:
            statement = ("update", shape.title, [row.key], draft.values)
            answer = self._ask(release, [statement])
            row.history.add(sent, release, self.name, "update", draft.values, _outcome(answer))
            if answer.ok:
                row.done(draft, self.desk.history.now())
            elif answer.fault not in UNKNOWN:
                row.failed(draft)
        if answer.ok or answer.fault in UNKNOWN:
            return
        if not (answer.fault in _REFUSED and self.desk.control(release, statement, known)):
            what = f"{'update' if draft else 'read'} by the {release} release failed: {answer.error}"
            self.desk.history.fail(release, what, table=_title(row.table), key=row.title, row=row.key, of=row.history)

    def check_hot(self, release: Side, row: HotRow, found: Mapping[str, Any] | None, at: float) -> None:
        """Hold such a row, read since the moment ``at``, against what may be read of it."""
        row.history.add(at, release, self.name, "read", found, "ok" if found is not None else "no row")
        self.desk.history.count("values checked", len(found) if found else 1)
        for kind, what in row.judge(release, found, at):
            told = f"the {release} release reads: {what}"
            self.desk.history.find(kind, told, table=_title(row.table), key=row.title, row=row.key, of=row.history)

    def _pick(self, release: Side) -> Item | None:
        """A row that the release knows."""
        names = [name for name, table in self.desk.tables.items() if table.knows(release) and self.items[name]]
        return self._rng.choice(self.items[self._rng.choice(names)]) if names else None

    def _statements(self, release: Side, busy: Sequence[Item]) -> list[Step]:
        """A part of a transaction that touches no row of ``busy``."""
        rng, drawer, stage = self._rng, self._drawer, self.desk.stage
        names = [name for name, table in self.desk.tables.items() if table.knows(release)]
        if not names:
            self._stopped.wait(_A_MOMENT)  # every table is left out: the verdict says so
            return []
        table = rng.choice(names)
        several = rng.random() < 0.2
        chance = rng.random()
        crowded = len(self.items[table]) >= self.desk.crowd
        if (chance < 0.25 and not crowded) or not self.items[table]:
            return [] if busy else drawer.insert(release, table, stage, rows=rng.randint(2, 5) if several else 1)
        owned = rng.sample(self.items[table], min(len(self.items[table]), 3 if several else 1))
        ready = [item for item in owned if item not in busy and item.certain and self._clear(item)]
        # What is read to see clearly may find a row gone.
        ready = [item for item in ready if item in self.items[table] and self._identified(release, [item])]
        if not ready:
            return []
        if chance < 0.35 and len(self.items[table]) > 8:
            free = [item for item in ready if item.children == self._taken_along(release, item)]
            return drawer.delete(release, free) if free else []
        if chance < 0.5:
            return drawer.upsert(release, ready[0], stage)
        return drawer.update(release, ready, stage, busy=busy)

    def _taken_along(self, release: Side, item: Item) -> int:
        """How many of the rows that refer to this one go with it where the release deletes it."""
        pair = self.desk.mains.get(item.table)
        along = pair is not None and self.desk.stage is Stage.BOTH and release == pair.joined
        return int(along and item.partner is not None)

    def _clear(self, item: Item) -> bool:
        """Read what must be known before the row is written; False if it is not known then, either."""
        oracle = self.desk.tables[item.table]
        window = self.desk.stage in (Stage.OLD, Stage.WINDOW)
        for release in sorted(self.desk.nodes):
            if not oracle.knows(release):
                continue
            if oracle.unsettled(item.worlds, release) and not (window and 1 < len(item.worlds) <= MANY):
                self._read(release, item)
                if item not in self.items[item.table]:
                    return False
        return window or len(item.worlds) == 1

    def adopt(self, table: TableName, row: Mapping[str, Any], main: Item | None = None) -> None:
        """Take over a row that was there before anybody else: it is never deleted, since others may refer to it.

        :param main: the row of this client's that it is the companion of.
        """
        oracle = self.desk.tables[table]
        key = {name: row[name] for name in oracle.shape("old").key}
        parents = (main,) if main is not None else ()
        worlds = oracle.insert(row, Stage.OLD)
        item = Item(table=table, key=key, worlds=worlds, children=1, parents=parents, shared=True)
        item.history.add(self.desk.history.now(), None, self.name, "found", row, "ok")
        self._own(item)

    def _identified(self, release: Side, items: Sequence[Item]) -> bool:
        """Whether the key is known by which the release knows each of these rows of one table; asked for, if not."""
        shape = self.desk.tables[items[0].table].shape(release)
        unknown = [item for item in items if not item.knows(shape)]
        if unknown and self.desk.tells(items[0].table):
            title = self.desk.tables[items[0].table].shape("new").title
            answer = self._ask("new", [("keys", title, [item.key]) for item in unknown])
            for item, keys in zip(unknown, answer.results, strict=False):
                self.learn(item, keys)
            if not answer.ok and answer.fault not in UNKNOWN:
                what = f"a read by the new release failed: {answer.error}"
                self.desk.history.fail("new", what, table=title, key=items[0].title, of=items[0].history)
        return all(item.knows(shape) for item in items)

    def learn(self, item: Item, keys: Mapping[str, Any] | None) -> None:
        """By these keys the releases know a row; None if they know none."""
        if keys is None:
            return
        item.history.add(self.desk.history.now(), "new", self.name, "keys", keys, "ok")
        if not taught(item, keys):
            self._wrong("differs", item, f"the row has no {' and no '.join(n for n in keys if keys[n] is None)}")
        for relation in self.desk.relations if None not in keys.values() else ():
            relation.learned(item, self.known)

    def _forget_new(self) -> None:
        """What only the new release has is gone: tables with all their rows, and keys."""
        for item in [item for name in self.desk.rekeyed for item in self.items[name]]:
            shape = self.desk.tables[item.table].shape("old")
            if item.knows(shape):
                item.key = item.key_of(shape)
            else:
                self._forget(item)  # nobody has heard that it was inserted, and no check has found it
        for name, table in self.desk.tables.items():
            if not table.knows("old"):
                for item in list(self.items[name]):
                    self._forget(item)
                self.abandoned[name].clear()
                self.unheard = [item for item in self.unheard if item.table != name]
        for item in self.unheard:
            item.partner = None

    def recognise(self, item: Item, key: Key) -> None:
        """A row whose insert was not answered has been found under this key."""
        self.unheard.remove(item)
        item.key = key
        self.items[item.table].append(item)
        if item.partner is not None:
            self._pair_up(item, item.partner.worlds)

    def _carry_out(self, release: Side, steps: Sequence[Step]) -> bool:
        """Let the release carry out a transaction, and remember what it made of the rows; False if it was refused."""
        if not steps:
            return True
        sent = self.desk.history.now()
        answer = self._ask(release, [step.statement for step in steps])
        for step in steps:
            for item, values in zip(step.items, step.values, strict=True):
                alone = self.desk.tables[item.table].alone
                paired = item.table in self.desk.mains or item.table in self.desk.companions or not alone
                action = f"{step.verb} {item.table[1]}" if paired else step.verb
                item.history.add(sent, release, self.name, action, values, _outcome(answer))
        if answer.fault in UNKNOWN:
            for step in steps:
                self._doubt(release, step)
        elif not answer.ok:
            self._failed(release, steps, answer)
        else:
            for step, result in zip(steps, answer.results, strict=True):
                self._done(step, result)
        return answer.ok

    def _done(self, step: Step, result: Any) -> None:
        """A step is committed."""
        if step.verb in ("update", "delete") and result != len(step.items):
            found = f"{step.verb} of {len(step.items)} rows found {result}"
            for item in step.items:
                self._wrong("lost", item, found)
            return
        written: list[tuple[Item, Sequence[World]]] = []
        for item, after in zip(step.items, self._after(step, result), strict=True):
            before = [] if step.fresh else item.worlds
            if step.fresh:
                if result is not None:
                    item.key = dict(result)
                self._own(item)
            item.worlds = after
            self._echo(item, before)
            if after == [ABSENT]:
                self._forget(item)
            written.append((item, before))
        self._follow(step, written)
        for release in _RELEASES if step.fresh and self.desk.tells(step.items[0].table) else ():
            self._identified(release, step.items)

    def _after(self, step: Step, result: Any = None) -> Sequence[list[World]]:
        """What a step makes of its rows, now that those before it in the transaction are done."""
        oracle, stage = self._tables[step.items[0].table], self.desk.stage
        told = list(zip(step.items, step.values, strict=True))
        if step.fresh and (result is not None or not oracle.alone):
            stages = (stage, Stage.NEW) if self.desk.ending and not oracle.alone else (stage,)
            given = [{**(values or {}), **(result or {})} for _, values in told]
            return [distinct(world for each in stages for world in oracle.insert(one, each)) for one in given]
        if oracle.alone or step.verb == "delete":
            return step.after
        return [after_update(oracle, item, values or {}, stage) for item, values in told]

    def _follow(self, step: Step, written: Written) -> None:
        """Rows were written, and rows of other tables follow them."""
        if step.referred is not None:
            for item in step.items:
                item.parents = (*item.parents, step.referred)
                step.referred.children += 1
        for relation in self.desk.relations if self.desk.stage is Stage.BOTH else ():
            if any(item.table in relation.tables for item, _ in written):
                followers = relation.follow(written, self.known, self._rows, sure=not self.desk.ending)
                self._take_in(relation, list(followers))

    def _take_in(self, relation: Relation, made: Sequence[Item]) -> None:
        """Rows have come into being with others, or are gone with them."""
        for item in made:
            self._own(item)
        for name in relation.tables:
            for item in [item for item in self.items[name] if item.worlds == [ABSENT]]:
                self._forget(item)

    def known(self, table: TableName) -> Iterator[Item]:
        """Its rows of a table, those that may not be there too."""
        yield from self.items[table]
        yield from (item for item in self.unheard if item.table == table)

    def _rows(self, table: TableName) -> Iterator[Sequence[World]]:
        """What is known of them."""
        yield from (item.worlds for item in self.items[table])
        yield from ([ABSENT, *item.worlds] for item in self.unheard if item.table == table)

    def _doubt(self, release: Side, step: Step) -> None:
        """Nobody knows whether a step is committed."""
        written: list[tuple[Item, Sequence[World]]] = []
        for item, after in zip(step.items, self._after(step), strict=True):
            before = [ABSENT] if step.fresh else item.worlds
            written.append((item, before))
            item.worlds = [*before, *after]
            if not step.fresh:
                self._echo(item, before)
            elif self.desk.tables[item.table].shape(release).automatic is None:
                self._own(item)
                self._echo(item, before)
            else:
                # The row, if there is one, has a key that nobody was told: it is recognised at a check.
                item.worlds = after
                self.unheard.append(item)
                for parent in item.parents:
                    parent.children += 1
                self._echo(item, [])
        self._follow(step, written)

    def _own(self, item: Item) -> None:
        self.items[item.table].append(item)
        pair = self.desk.companions.get(item.table)
        for parent in item.parents:
            parent.children += 1
            if pair is not None and parent.table == pair.main:
                parent.partner, item.partner = item, parent
                parent.history.take(item.history)
                item.history = parent.history

    # -- rows in two tables that are kept in step --------------------------------------------------------------------

    def _echo(self, item: Item, before: Sequence[World]) -> None:
        """A row was written, and its row in the other table, if there is one, follows."""
        if self.desk.stage is not Stage.BOTH:
            return
        if (pair := self.desk.mains.get(item.table)) is not None:
            present = item.partner.worlds if item.partner is not None else [ABSENT]
            self._pair_up(item, pair.companions(before, item.worlds, present))
        elif (pair := self.desk.companions.get(item.table)) is not None and item.partner is not None:
            main = item.partner
            main.worlds = pair.mains(before, item.worlds, main.worlds)

    def _pair_up(self, main: Item, worlds: list[World]) -> None:
        """The companion of a row may now hold these."""
        pair, partner = self.desk.mains[main.table], main.partner
        if partner is not None and partner not in self.items[pair.companion]:
            partner = None  # that of a row which nobody had heard of
        if all(world.values is None for world in worlds):
            if partner is not None:
                self._forget(partner)
            main.partner = None
        elif partner is not None:
            partner.worlds = worlds
        else:
            key = pair.companion_key(main.key)
            main.partner = Item(table=pair.companion, key=key, worlds=worlds, parents=(main,))
            if main not in self.unheard:
                self._own(main.partner)

    def move(self, stage: Stage) -> None:
        """Make of each row what the next stage makes of it."""
        tables = self._tables
        for item in (*self.unheard, *(item for items in self.items.values() for item in items)):
            item.worlds = tables[item.table].moved(item.worlds, stage)
        for relation in self.desk.relations if stage is Stage.BOTH else ():
            self._take_in(relation, list(relation.begin(self.known)))
        for pair in self.desk.mains.values() if stage is Stage.BOTH else ():
            unheard = [item for item in self.unheard if item.table == pair.main]
            for main in (*unheard, *self.items[pair.main]):
                if pair.joined == "old":
                    self._pair_up(main, pair.made_companions(main.worlds))
                else:
                    there = main.partner.worlds if main.partner is not None else [ABSENT]
                    main.worlds = pair.made_mains(main.worlds, there)
        if stage is Stage.OLD:
            self._forget_new()
        for name, table in tables.items() if stage is Stage.NEW else ():
            for item in [] if table.knows("new") else list(self.items[name]):
                self._forget(item)

    def _failed(self, release: Side, steps: Sequence[Step], answer: Answer) -> None:
        """A transaction has failed: a finding, unless one of its statements fails without the upgrade, too."""
        for step in steps if answer.fault in _REFUSED else ():
            row, item = None, step.items[0]
            if not step.fresh and item.worlds[0].values is not None:
                seen = self.desk.tables[item.table].view(item.worlds[0], release) or {}
                row = {name: value for name, value in seen.items() if value not in (ANY, NOW)}
            if self.desk.control(release, step.statement, row):
                self.desk.history.count("refused alike without the upgrade")
                return
        item = steps[0].items[0]
        verbs = " and ".join(dict.fromkeys(step.verb for step in steps))
        what = f"{verbs} by the {release} release failed: {answer.error}"
        self.desk.history.fail(release, what, table=_title(item.table), key=item.title, row=item.key, of=item.history)

    def _read(self, release: Side, item: Item) -> None:
        oracle = self.desk.tables[item.table]
        if not oracle.knows(release) or not self._identified(release, [item]):
            return
        shape, sent = oracle.shape(release), self.desk.history.now()
        answer = self._ask(release, [("select", shape.title, [item.key_of(shape)])])
        if not answer.ok:
            item.history.add(sent, release, self.name, "read", None, _outcome(answer))
            if answer.fault not in UNKNOWN:
                what = f"a read by the {release} release failed: {answer.error}"
                self.desk.history.fail(
                    release, what, table=_title(item.table), key=item.title, row=item.key, of=item.history
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
            there: FindingKind = "alien read" if action == "read" else "differs"
            self._wrong("lost" if found is None else there, item, f"the {release} release reads: {'; '.join(wrong)}")
        elif found is None and action == "read" and len(left) < len(item.worlds):
            pass  # a commit that was not answered may still be on its way: only a check can tell that there is none
        elif all(world.values is None for world in left):
            self._forget(item)
        else:
            item.worlds = left

    def _wrong(self, kind: FindingKind, item: Item, what: str) -> None:
        """Report a row once: after that, nothing that is read of it can be judged."""
        self.desk.history.find(kind, what, table=_title(item.table), key=item.title, row=item.key, of=item.history)
        for parent in item.parents:
            parent.shared = True  # the row may still be there
        pair = self.desk.mains.get(item.table) or self.desk.companions.get(item.table)
        if pair is not None:
            main = item if item.table == pair.main else item.partner
            key = item.key if main is None else pair.companion_key(main.key)
            self.abandoned[pair.companion].append(key)
            self.abandoned[pair.main].append(pair.main_key(key))
        else:
            self.abandoned[item.table].append(item.key)
        for one in (item, item.partner):
            if one is not None:
                self._forget(one)

    def _forget(self, item: Item) -> None:
        self.items[item.table].remove(item)
        if item.partner is not None:
            item.partner.partner = None
            item.partner = None
        for parent in item.parents:
            parent.children -= 1

    def _ask(self, release: Side, statements: Sequence[Statement]) -> Answer:
        history = self.desk.history
        sent = history.now()
        try:
            answer = self.desk.nodes[release].ask(self.number, {"statements": list(statements)})
        except NodeGone as error:
            answer = Answer(fault=Fault.COMMIT_UNKNOWN.value, error=str(error), seconds=history.now() - sent)
        verb, table = statements[0][:2]
        more = f" and {len(statements) - 1} more" if len(statements) > 1 else ""
        history.request(release, sent, answer, f"{verb} {table}{more}")
        if answer.fault in UNKNOWN:
            history.count("commits of unknown outcome")
        elif answer.ok:
            history.count("reads" if verb in ("select", "keys") else "acknowledged writes")
        return answer


def _title(table: TableName) -> str:
    schema, name = table
    return f"{schema}.{name}" if schema else name


def _outcome(answer: Answer) -> str:
    if answer.ok:
        return "ok"
    return "unknown" if answer.fault in UNKNOWN else answer.error
