"""What follows when rows change that rows of another table refer to: triggers on the table that is referred to.

The sync of the referring table looks up its key by its natural key and the reverse (:mod:`contraflow.dialects.sync`).
These triggers write that table's two sides at once, and change its marker, by which its sync knows them for the sync's
own. Rows that were never synced have no key yet: of them only the old side is written, and their sync does the rest.

On MySQL and MariaDB a trigger may not write a table that the statement which fired it reads or writes (error 1442), not
even no row of it: so each of these statements is asked for first. It asks with a lock: a look of its own would be a
snapshot's under REPEATABLE READ, and miss rows that were inserted since the transaction began.

Where a row may come while another one, which has just looked for it in vain, is not committed yet: on MySQL and MariaDB
the look has locked the gap; on PostgreSQL both lock the natural key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from contraflow.dialects.compiler import Compiler
from contraflow.dialects.plpgsql import definer_function, natural_lock
from contraflow.dialects.sync import TriggerText
from contraflow.references import Reference

__all__ = ["reference_triggers"]

_EVENTS = {"u": "UPDATE", "d": "DELETE", "i": "INSERT"}


@dataclass(frozen=True, kw_only=True)
class _Change:
    """An UPDATE of the referring table."""

    values: str
    where: str


@dataclass(frozen=True, kw_only=True)
class _Words:
    reference: Reference
    compiler: Compiler
    default_schema: str | None = None

    def table(self, name: str) -> str:
        return self.compiler.table(name, self.reference.schema or self.default_schema)

    def changes(self, letter: str) -> list[_Change]:
        """What an event of the other table does to rows that refer."""
        reference, quote = self.reference, self.compiler.quote
        column, marker = quote(reference.column), quote(reference.marker)
        key = quote(reference.key)
        own = f"{marker} = CASE WHEN {marker} = 1 THEN 2 ELSE 1 END"
        if reference.fills:
            return list(self._filled(letter, column, own))
        if letter == "d":
            return [_Change(values=f"{column} = NULL, {own}", where=f"{column} = OLD.{key}")]
        natural = ", ".join(f"{quote(name)} = NEW.{quote(there)}" for name, there in reference.columns)
        adopted = _Change(
            values=f"{column} = NEW.{key}, {own}",
            where=f"{column} IS NULL AND {marker} IS NOT NULL AND {self._matches('NEW')}",
        )
        if letter == "i":
            return [adopted]
        return [
            _Change(values=f"{natural}, {column} = NEW.{key}, {own}", where=f"{column} = OLD.{key}"),
            _Change(values=natural, where=f"{marker} IS NULL AND {self._matches('OLD')}"),
            *([adopted] if reference.adopts else []),
        ]

    def _filled(self, letter: str, column: str, own: str) -> Iterator[_Change]:
        """What comes of a key that is filled: the old columns, on which an index stands, tell the rows."""
        marker, key = self.compiler.quote(self.reference.marker), self.compiler.quote(self.reference.key)
        if letter == "d":
            yield _Change(values=f"{column} = NULL, {own}", where=self._matches("OLD"))
            return
        given = f"{column} = NEW.{key}, {own}"
        open_ = f"{self._matches('NEW')} AND {column} IS NULL AND {marker} IS NOT NULL"
        if letter == "u":
            yield _Change(values=given, where=open_)
            return
        # A row that refers to itself was not there yet when it was looked up.
        for name, there in self.reference.columns:
            old, number = self.compiler.quote(name), self.compiler.quote(there)
            itself = f"{number} = NEW.{number}"
            yield _Change(values=given, where=f"{itself} AND {open_}")
            back = f"{itself} AND {column} = NEW.{key} AND {old} IS NULL"
            yield _Change(values=f"{old} = NEW.{number}, {own}", where=back)

    def _matches(self, row: str) -> str:
        """Whether a row that refers means ``row`` by its natural key."""
        reference, quote = self.reference, self.compiler.quote
        parts = []
        for name, there in reference.columns:
            left, right = quote(name), f"{row}.{quote(there)}"
            parts.append(self.compiler.alike(left, right) if name in reference.nulls else f"{left} = {right}")
        if all(name in reference.nulls for name, _ in reference.columns):
            parts.append(f"({' OR '.join(f'{quote(name)} IS NOT NULL' for name, _ in reference.columns)})")
        return " AND ".join(parts)

    @property
    def changed(self) -> str:
        """Whether an UPDATE of the other table changed its key or its natural key; or filled its key."""
        quote = self.compiler.quote
        if self.reference.fills:
            key = quote(self.reference.key)
            return f"OLD.{key} IS NULL AND NEW.{key} IS NOT NULL"
        same = [
            f"({self.compiler.unchanged(f'NEW.{quote(name)}', f'OLD.{quote(name)}', type_)})"
            for name, type_ in self.reference.types.items()
        ]
        return f"NOT ({' AND '.join(same)})"

    def when(self, letter: str) -> str:
        """When a trigger fires: before foreign keys set to NULL what it has to find rows by, else after the event."""
        return f"{'BEFORE' if self.reference.fills and letter == 'd' else 'AFTER'} {_EVENTS[letter]}"

    def guarded(self, letter: str) -> list[str]:
        """The statements of an event, each only where it would find a row."""
        table = self.table(self.reference.table)
        lines = []
        for change in self.changes(letter):
            lines += [
                f"IF EXISTS (SELECT 1 FROM {table} WHERE {change.where}{self.compiler.row_lock}) THEN",
                f"  UPDATE {table} SET {change.values} WHERE {change.where};",
                "END IF;",
            ]
        return lines

    def plain(self, letter: str, table: str) -> list[str]:
        """The statements of an event."""
        return [f"UPDATE {table} SET {change.values} WHERE {change.where};" for change in self.changes(letter)]


def reference_triggers(
    reference: Reference, product: str, compiler: Compiler, *, default_schema: str | None = None
) -> list[TriggerText]:
    """The triggers on the table that is referred to; nobody refers by key before the last of them stands.

    ``default_schema`` is where PostgreSQL finds tables without a schema.
    """
    words = _Words(reference=reference, compiler=compiler, default_schema=default_schema)
    if product == "sqlite":
        return _sqlite(words)
    if product in ("mysql", "mariadb"):
        return _mysql(words)
    return _postgresql(words)


def _made(words: _Words, create: Callable[[str, str], str], function: str | None = None) -> list[TriggerText]:
    name = words.reference.name
    return [
        TriggerText(
            name=f"{name}_{letter}",
            event=_EVENTS[letter].lower(),
            create=create(letter, f"{name}_{letter}"),
            function=function,
        )
        for letter in words.reference.triggers
    ]


def _postgresql(words: _Words) -> list[TriggerText]:
    reference, compiler = words.reference, words.compiler
    schema = reference.schema or words.default_schema
    lines = ["BEGIN", f"  /* contraflow {reference.fingerprint} */"]
    for letter in reference.triggers:
        changes = words.plain(letter, words.table(reference.table))
        if reference.adopts and letter != "d" and not reference.fills:
            natural = [f"NEW.{compiler.quote(there)}" for _, there in reference.columns]
            changes = [f"PERFORM pg_advisory_xact_lock({natural_lock(reference.to, natural)});", *changes]
        lines += [f"  IF TG_OP = '{_EVENTS[letter]}' THEN", *_in(changes, 2), "  END IF;"]
    # Of a BEFORE trigger, NULL would keep the row.
    lines += ["  RETURN OLD;" if reference.clears else "  RETURN NULL;", "END"]
    function = compiler.table(reference.name, schema)

    def create(letter: str, name: str) -> str:
        when = f"WHEN ({words.changed}) " if letter == "u" else ""
        return (
            f"CREATE TRIGGER {compiler.quote(name)} {words.when(letter)} ON {words.table(reference.to)}"
            f" FOR EACH ROW {when}EXECUTE FUNCTION {function}()"
        )

    return _made(words, create, definer_function(compiler, reference.name, schema, lines))


def _mysql(words: _Words) -> list[TriggerText]:
    reference, compiler = words.reference, words.compiler

    def create(letter: str, name: str) -> str:
        body = words.guarded(letter)
        if letter == "u":
            body = [f"IF {words.changed} THEN", *_in(body), "END IF;"]
        comment = f"/* contraflow {reference.fingerprint} */"
        opening = (
            f"CREATE TRIGGER {compiler.table(name, reference.schema)} {words.when(letter)}"
            f" ON {words.table(reference.to)} FOR EACH ROW BEGIN {comment}"
        )
        return "\n".join([opening, *_in(body), "END"])

    return _made(words, create)


def _sqlite(words: _Words) -> list[TriggerText]:
    reference, compiler = words.reference, words.compiler

    def create(letter: str, name: str) -> str:
        when = f"WHEN {words.changed} " if letter == "u" else ""
        comment = f"/* contraflow {reference.fingerprint} */"
        opening = (
            f"CREATE TRIGGER {compiler.table(name, reference.schema)} {words.when(letter)}"
            f" ON {compiler.quote(reference.to)} FOR EACH ROW {when}BEGIN {comment}"
        )
        return "\n".join([opening, *_in(words.plain(letter, compiler.quote(reference.table))), "END"])

    return _made(words, create)


def _in(lines: Sequence[str], depth: int = 1) -> list[str]:
    return [f"{'  ' * depth}{line}" for line in lines]
