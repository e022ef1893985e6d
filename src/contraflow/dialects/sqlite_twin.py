"""A table known under two names on SQLite: a second table, which triggers keep equal to it both ways.

A view would do for little: it takes no upsert, and an INSERT through it tells no key that SQLite made (its INSTEAD OF
trigger's is forgotten, and RETURNING gives the values that were sent; https://www.sqlite.org/lang_createtrigger.html,
https://www.sqlite.org/lang_returning.html). So the new release gets a table with its own columns, of the same keys,
unique constraints and rules, in which SQLite makes the same keys as in the first. Each trigger writes only what
differs, so that the two stop after one round whether recursive triggers are on or off. Foreign keys, indexes and the
application's own triggers stay where they are; contract drops the second table and renames the first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from contraflow.dialects import sqlite_text
from contraflow.dialects.base import BackfillText, Found, ProbeText, Statement, escape
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.remaining import index_name
from contraflow.dialects.tables import Tables
from contraflow.lens import Side
from contraflow.steps import AddAlias, DropAlias, ProbeAlias, TakeName

__all__ = ["SQLiteTables", "twin_probe", "twin_repairs", "twin_triggers"]

_EVENTS = {"i": "INSERT", "u": "UPDATE", "d": "DELETE"}


class SQLiteTables(Tables):
    """SQLite."""

    exclusive = "RESERVED (one writer at a time; readers go on in WAL mode)"

    def add_alias(self, step: AddAlias, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.add_alias`: the second table is made, filled and kept in step in one transaction."""
        quote, lock = self.compiler.quote, self.exclusive
        alias, table = (self.compiler.table(name, step.schema) for name in (step.alias, step.table))
        if found is None or not set(step.columns) <= set(found.columns):
            # Before expand has added them, for showing a plan.
            copied, create, gone, unique, key = step.columns, f"<the text of {table}, named {alias}>", [], [], ["<key>"]
            counted = False
        else:
            copied = tuple(name for name in step.columns if name not in found.details["generated"])
            create = self._text_of(step, found)
            gone = [name for name in found.columns if name not in step.columns]
            unique = list(self._unique(step, found))
            key = list(found.details["key"])
            counted = sqlite_text.counts(create)
        columns = ", ".join(map(quote, copied))
        prefix = f"{quote(step.schema)}." if step.schema else ""
        texts = [
            create,
            *(f"ALTER TABLE {alias} DROP COLUMN {quote(name)}" for name in gone),
            f"INSERT INTO {alias} ({columns}) SELECT {columns} FROM {table}",
        ]
        if counted:
            name, kept = plain_literal(step.alias), f"{prefix}sqlite_sequence"
            reached = f"SELECT {name}, seq FROM {kept} WHERE name = {plain_literal(step.table)}"
            texts += [f"DELETE FROM {kept} WHERE name = {name}", f"INSERT INTO {kept} (name, seq) {reached}"]
        texts += [
            *unique,
            *self._triggers(step, "o", (step.table, step.alias), copied, key),
            *self._triggers(step, "n", (step.alias, step.table), copied, key),
        ]
        filling = f"{lock}, for as long as copying every row takes"
        return [
            Statement(sql=text, lock=filling if text.startswith("INSERT INTO " + alias) else lock) for text in texts
        ]

    def _text_of(self, step: AddAlias, found: Found) -> str:
        text = str(found.details["sql"])
        for index in step.replaced:
            if index_name(index, found) in found.details["unnamed"]:
                text = sqlite_text.drop_unique(text, index.columns)
        return sqlite_text.named(text, self.compiler.table(step.alias, step.schema))

    def _unique(self, step: AddAlias, found: Found) -> Iterator[str]:
        """The unique indexes: an upsert may name their columns."""
        gone = {index.name for index in step.replaced}
        for number, (name, text) in enumerate(sorted(found.details["unique_texts"].items())):
            if name not in gone:
                index = self.compiler.table(f"{step.name}_n_{number}", step.schema)
                yield sqlite_text.indexed(text, index, self.compiler.quote(step.alias))

    def _triggers(
        self, step: AddAlias, letter: str, names: tuple[str, str], columns: Sequence[str], key: Sequence[str]
    ) -> Iterator[str]:
        """What keeps the second table of ``names`` equal to the first: it takes the row as it stands by then."""
        quote = self.compiler.quote
        source, target = map(quote, names)
        values = ", ".join(map(quote, columns))
        into = f"({values})" if len(columns) > 1 else values

        side = _Side(table=source, key=tuple(map(quote, key)), columns=tuple(map(quote, columns)))
        at = side.same
        differs = side.differ(source, target)

        def update(row: str) -> str:
            return (
                f"UPDATE {target} SET {into} = (SELECT {values} FROM {source} WHERE {at(source, 'NEW')})"
                f" WHERE {at(target, row)} AND EXISTS"
                f" (SELECT 1 FROM {source} WHERE {at(source, 'NEW')} AND ({differs}));"
            )

        insert = (
            f"INSERT INTO {target} ({values}) SELECT {values} FROM {source} WHERE {at(source, 'NEW')}"
            f" AND NOT EXISTS (SELECT 1 FROM {target} WHERE {at(target, 'NEW')});"
        )
        bodies = {
            # A row that REPLACE put in another's place stands there already.
            "i": f"{update('NEW')} {insert}",
            "u": update("OLD"),
            "d": f"DELETE FROM {target} WHERE {at(target, 'OLD')};",
        }
        for event, body in bodies.items():
            name = self.compiler.table(f"{step.name}_{letter}_{event}", step.schema)
            yield f"CREATE TRIGGER {name} AFTER {_EVENTS[event]} ON {source} FOR EACH ROW BEGIN {body} END"

    def take_name(self, step: TakeName, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.take_name`."""
        if self._is_named(step, found):
            return []
        table = self.compiler.table(step.table, step.schema)
        rename = f"ALTER TABLE {table} RENAME TO {self.compiler.quote(step.alias)}"
        return [*self._unlink(step, found), Statement(sql=rename, lock=self.exclusive)]

    def drop_alias(self, step: DropAlias, found: Found | None) -> list[Statement]:
        """See :meth:`Tables.drop_alias`."""
        if step.parked or (found is not None and not found.exists):
            return []
        return self._unlink(step, found)

    def _unlink(self, step: TakeName | DropAlias, found: Found | None) -> list[Statement]:
        """Drop the second table, and its triggers on the first."""
        names = [f"{step.name}_o_{event}" for event in _EVENTS]
        triggers = [name for name in names if found is None or name in found.triggers]
        sent = [
            Statement(sql=f"DROP TRIGGER {self.compiler.table(name, step.schema)}", lock=self.exclusive)
            for name in triggers
        ]
        if found is None or (triggers and step.alias in found.names):
            sent.append(self._drop("TABLE", step.alias, step.schema))
        return sent


def twin_triggers(stem: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of the triggers on the first table, and of those on the second."""
    first, second = (tuple(f"{stem}_{letter}_{event}" for event in _EVENTS) for letter in "on")
    return first, second


def twin_probe(step: ProbeAlias, compiler: Compiler) -> ProbeText:
    """The queries that compare the two tables."""
    old, new = _Side.of(step, compiler)
    here, there = ", ".join(f"a.{name}" for name in old.key), ", ".join(f"b.{name}" for name in old.key)
    title = f"{step.table} -> {step.alias}"
    source = f"{old.table} a LEFT JOIN {new.table} b ON {old.same('a', 'b')}"
    where = f"{old.missing('b')} OR {old.differ('a', 'b')}"
    values = ", ".join(
        f"{alias}.{name} AS {compiler.quote(f'{table}.{plain}')}"
        for alias, table in (("a", step.table), ("b", step.alias))
        for plain, name in zip(step.columns, old.columns, strict=True)
    )
    alone = f"only in {step.alias}"
    extra = f"{new.table} b LEFT JOIN {old.table} a ON {old.same('a', 'b')} WHERE {old.missing('a')}"
    return ProbeText(
        unsynced="SELECT 0",
        differing=(
            (title, escape(f"SELECT count(*) FROM {source} WHERE {where}")),
            (alone, escape(f"SELECT count(*) FROM {extra}")),
        ),
        show=(
            (title, f"{escape(f'SELECT {here}, {values} FROM {source} WHERE {where}')} LIMIT :limit"),
            (alone, f"{escape(f'SELECT {there} FROM {extra}')} LIMIT :limit"),
        ),
        nulls={},
    )


def twin_repairs(step: ProbeAlias, side: Side, compiler: Compiler) -> list[BackfillText]:
    """What makes the other table the same as that of ``side``: rows that are too many go, then the others are written.

    Both tables' triggers find that nothing differs any more, and stop.
    """
    old, new = _Side.of(step, compiler)
    right, wrong = (old, new) if side == "old" else (new, old)
    columns = ", ".join(right.columns)
    into = f"({columns})" if len(right.columns) > 1 else columns
    row = f"SELECT {columns} FROM {right.table} a WHERE {right.same('a', wrong.table)}"
    missing = f"FROM {right.table} a WHERE NOT EXISTS (SELECT 1 FROM {wrong.table} b WHERE {right.same('a', 'b')})"
    extra = f"FROM {wrong.table} b WHERE NOT EXISTS (SELECT 1 FROM {right.table} a WHERE {right.same('a', 'b')})"
    differing = f"FROM {wrong.table} b JOIN {right.table} a ON {right.same('a', 'b')} WHERE {right.differ('a', 'b')}"

    def some(rows: str) -> str:
        keys = ", ".join(f"b.{name}" for name in right.key)
        return f"({', '.join(right.key)}) IN (SELECT {keys} {rows} LIMIT :limit)"

    def text(fill: str, rows: str) -> BackfillText:
        whole = escape(fill).replace("\\:limit", ":limit")
        count = escape(f"SELECT count(*) {rows}")
        return BackfillText(first_bound=None, bound=None, first_fill=whole, fill=whole, remaining=count, estimate=count)

    return [
        text(f"DELETE FROM {wrong.table} WHERE {some(extra)}", extra),
        text(f"UPDATE {wrong.table} SET {into} = ({row}) WHERE {some(differing)}", differing),
        text(f"INSERT INTO {wrong.table} ({columns}) SELECT {columns} {missing} LIMIT :limit", missing),
    ]


@dataclass(frozen=True, kw_only=True)
class _Side:
    """One of the two tables, in SQL."""

    table: str
    key: tuple[str, ...]
    columns: tuple[str, ...]

    @classmethod
    def of(cls, step: ProbeAlias, compiler: Compiler) -> tuple[_Side, _Side]:
        """The first and the second one."""
        key, columns = (tuple(map(compiler.quote, names)) for names in (step.key, step.columns))
        old, new = (
            cls(table=compiler.table(name, step.schema), key=key, columns=columns) for name in (step.table, step.alias)
        )
        return old, new

    def same(self, one: str, other: str) -> str:
        """Whether two rows have one key."""
        return " AND ".join(f"{one}.{name} IS {other}.{name}" for name in self.key)

    def missing(self, alias: str) -> str:
        """Whether an outer join found no row."""
        return f"{alias}.{self.key[0]} IS NULL"

    def differ(self, one: str, other: str) -> str:
        """Whether a value of two rows is not the same."""
        return " OR ".join(
            f"{one}.{name} COLLATE BINARY IS NOT {other}.{name} OR typeof({one}.{name}) <> typeof({other}.{name})"
            for name in self.columns
        )
