"""What the database does for an opaque lens: it notices which side of a row was written, and computes nothing.

A row's marker is NULL while its new side is to be computed from the old one. The application that writes both sides
changes the marker in the same statement, as the engine does; a write without that is one of

- the old columns alone: the old release's. The new ones are emptied and the marker becomes NULL (or it is refused,
  where the lens asks for a write lock);
- the new columns alone: refused. Nobody here could tell what the old release is to read;
- both: taken for a pair that agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from contraflow.dialects.base import escape
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.data import beyond
from contraflow.dialects.sync import TriggerText, function_name
from contraflow.opaque import Opaque
from contraflow.syncs import Sync

__all__ = ["OpaqueText", "opaque_text", "opaque_triggers"]


def opaque_triggers(
    sync: Sync, lens: Opaque, product: str, compiler: Compiler, *, without_rowid: bool = False
) -> list[TriggerText]:
    """The triggers of a sync with an opaque lens, the UPDATE trigger first.

    ``without_rowid`` says that an SQLite table has none.
    """
    row = "({}).{}" if product == "cockroachdb" else "{}.{}"
    words = _Words(sync=sync, lens=lens, compiler=compiler, row=row)
    if product == "sqlite":
        return _sqlite(words, without_rowid=without_rowid)
    if product in ("mysql", "mariadb"):
        return _mysql(words)
    return _postgresql(words, function_name(sync, product))


@dataclass(frozen=True, kw_only=True)
class _Words:
    """Conditions on the row, and the texts of refusals."""

    sync: Sync
    lens: Opaque
    compiler: Compiler
    row: str
    """The form of a reference: ``NEW.x``, or CockroachDB's ``(NEW).x``."""

    def new(self, name: str) -> str:
        return self.row.format("NEW", self.compiler.quote(name))

    def old(self, name: str) -> str:
        return self.row.format("OLD", self.compiler.quote(name))

    @property
    def marker(self) -> str:
        return self.compiler.quote(self.sync.marker)

    @property
    def comment(self) -> str:
        return f"/* contraflow {self.sync.fingerprint} */"

    def all_null(self, names: Sequence[str]) -> str:
        return "(" + " AND ".join(f"{self.new(name)} IS NULL" for name in names) + ")"

    def not_given(self) -> str:
        """No old column holds more than its default."""
        return "(" + " AND ".join(map(self._at_default, self.lens.old)) + ")"

    def _at_default(self, name: str) -> str:
        column = self.sync.columns[name]
        nothing = f"{self.new(name)} IS NULL"
        if column.default is None or not column.default_constant:
            return nothing
        return f"({nothing} OR {self.compiler.same(self.new(name), f'({column.default})', column.type)})"

    def changed(self, names: Sequence[str]) -> str:
        same = (
            f"({self.compiler.unchanged(self.new(name), self.old(name), self.sync.columns[name].type)})"
            for name in names
        )
        return f"(NOT ({' AND '.join(same)}))"

    def refusal(self, side: str) -> str:
        """The message, as a literal. MySQL and MariaDB keep 128 characters."""
        table = self.sync.table[:30].replace("\\", "")
        if side == "old":
            text = f"contraflow: {table} is locked for the old release until the upgrade is contracted"
        else:
            text = f"contraflow: {table} must be written in both shapes until contract (OpaqueWriter)"
        return plain_literal(text)


def _mysql(words: _Words) -> list[TriggerText]:
    lens, marker = words.lens, words.marker
    stale = [f"SET NEW.{words.compiler.quote(name)} = NULL;" for name in lens.new] + [f"SET NEW.{marker} = NULL;"]

    def refuse(side: str) -> str:
        return f"SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = {words.refusal(side)};"

    insert, update = _decisions(words, refuse, stale, null_safe="<=>", assign="SET NEW.{} = {};")
    table = words.compiler.table(words.sync.table, words.sync.schema)

    def create(event: str, body: list[str]) -> str:
        name = words.compiler.table(f"{words.sync.name}_{event[0]}", words.sync.schema)
        opening = f"CREATE TRIGGER {name} BEFORE {event.upper()} ON {table} FOR EACH ROW BEGIN {words.comment}"
        return "\n".join([opening, *(f"  {line}" for line in body), "END"])

    return [
        TriggerText(name=f"{words.sync.name}_u", event="update", create=create("update", update)),
        TriggerText(name=f"{words.sync.name}_i", event="insert", create=create("insert", insert)),
    ]


def _postgresql(words: _Words, function: str) -> list[TriggerText]:
    sync, lens, marker = words.sync, words.lens, words.marker
    stale = [f"NEW.{words.compiler.quote(name)} := NULL;" for name in lens.new] + [f"NEW.{marker} := NULL;"]

    def refuse(side: str) -> str:
        return f"RAISE EXCEPTION USING MESSAGE = {words.refusal(side)};"

    insert, update = _decisions(words, refuse, stale, null_safe="IS NOT DISTINCT FROM", assign="NEW.{} := {};")
    lines = ["BEGIN", f"  {words.comment}", "  IF TG_OP = 'INSERT' THEN", *(f"    {line}" for line in insert)]
    lines += ["    RETURN NEW;", "  END IF;", *(f"  {line}" for line in update), "  RETURN NEW;", "END"]
    body = "\n".join(lines)
    tag = "$contraflow$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    qualified = words.compiler.table(function, sync.schema)
    create = f"CREATE FUNCTION {qualified}() RETURNS trigger LANGUAGE plpgsql AS {tag}\n{body}\n{tag}"
    table = words.compiler.table(sync.table, sync.schema)
    return [
        TriggerText(
            name=f"{sync.name}_{event[0]}",
            event=event,
            create=f"CREATE TRIGGER {words.compiler.quote(f'{sync.name}_{event[0]}')} BEFORE {event.upper()} ON {table}"
            f" FOR EACH ROW EXECUTE FUNCTION {qualified}()",
            function=create,
        )
        for event in ("update", "insert")
    ]


def _decisions(
    words: _Words, refuse: Callable[[str], str], stale: Sequence[str], *, null_safe: str, assign: str
) -> tuple[list[str], list[str]]:
    """The bodies of BEFORE INSERT and BEFORE UPDATE, in the words that PL/pgSQL and MySQL's language share."""
    lens = words.lens
    marker, before = words.new(words.sync.marker), words.old(words.sync.marker)
    given = assign.format(words.marker, "1")
    toggled = assign.format(words.marker, f"CASE WHEN {before} = 1 THEN 2 ELSE 1 END")
    insert = [f"IF {marker} IS NULL AND NOT {words.all_null(lens.new)} THEN"]
    insert += [f"  IF {words.not_given()} THEN {refuse('new')} ELSE {given} END IF;"]
    insert += ["ELSE", f"  IF {marker} IS NULL THEN {refuse('old')} END IF;"] if lens.lock else []
    insert += ["END IF;"]
    update = [
        f"IF {marker} {null_safe} {before} THEN",
        f"  IF {words.changed(lens.new)} THEN",
        f"    IF {words.changed(lens.old)} THEN {toggled} ELSE {refuse('new')} END IF;",
        "  ELSE",
        f"    IF {words.changed(lens.old)} THEN",
        *(f"      {line}" for line in ([refuse("old")] if lens.lock else stale)),
        "    END IF;",
        "  END IF;",
        "END IF;",
    ]
    return insert, update


def _sqlite(words: _Words, *, without_rowid: bool) -> list[TriggerText]:
    sync, lens, quote = words.sync, words.lens, words.compiler.quote
    table, marker = quote(sync.table), words.marker
    keys = [quote(name) for name in sync.key] if without_rowid else ["_rowid_"]
    row = " AND ".join(f"{key} IS NEW.{key}" for key in keys)
    new_changed, old_changed = words.changed(lens.new), words.changed(lens.old)

    def refuse(side: str, condition: str) -> str:
        return f"  SELECT RAISE(ABORT, {words.refusal(side)}) WHERE {condition};"

    def create(event: str, when: str, body: list[str]) -> TriggerText:
        # The trigger is made in the table's file; inside it, and behind ON, SQLite forbids qualified names.
        name = words.compiler.table(f"{sync.name}_{event[0]}", sync.schema)
        opening = (
            f"CREATE TRIGGER {name} AFTER {event.upper()} ON {table} FOR EACH ROW WHEN {when} BEGIN {words.comment}"
        )
        return TriggerText(name=f"{sync.name}_{event[0]}", event=event, create="\n".join([opening, *body, "END"]))

    # The follow-up UPDATE changes the marker, or what it changes is there already: it does not call itself.
    emptied = ", ".join(f"{quote(name)} = CASE WHEN {new_changed} THEN {words.new(name)} END" for name in lens.new)
    toggled = f"CASE WHEN {new_changed} THEN CASE WHEN OLD.{marker} = 1 THEN 2 ELSE 1 END END"
    update = [
        refuse("new", f"{new_changed} AND NOT {old_changed}"),
        *([refuse("old", f"NOT {new_changed}")] if lens.lock else []),
        f"  UPDATE {table} SET {emptied}, {marker} = {toggled} WHERE {row};",
    ]
    nothing = words.all_null(lens.new)
    insert = [
        refuse("new", f"NOT {nothing} AND {words.not_given()}"),
        *([refuse("old", nothing)] if lens.lock else []),
        f"  UPDATE {table} SET {marker} = 1 WHERE {row} AND NOT {nothing};",
    ]
    unmarked = f"NEW.{marker} IS NULL" if lens.lock else f"NEW.{marker} IS NULL AND NOT {nothing}"
    return [
        create("update", f"NEW.{marker} IS OLD.{marker} AND ({new_changed} OR {old_changed})", update),
        create("insert", unmarked, insert),
    ]


# --- what Python sends ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class OpaqueText:
    """The statements that compute stale rows in Python, with named parameters for ``sqlalchemy.text``.

    ``first_page`` and ``page`` give key and old columns of the next ``:limit`` stale rows, after ``:k0 ...``; without
    a key, any of them. ``write`` sets the new columns (``:n0 ...``) of the row with the key ``:k0 ...`` if it is stale
    still and its old columns are still what they were (``:o0 ...``).
    """

    first_page: str
    page: str
    write: str
    remaining: str
    """Counts the stale rows."""


def opaque_text(sync: Sync, lens: Opaque, compiler: Compiler, *, keep: Sequence[str] = ()) -> OpaqueText:
    """The statements for one table. ``keep`` are columns that the server would change by itself."""
    quote = compiler.quote
    table, marker = escape(compiler.table(sync.table, sync.schema)), escape(quote(sync.marker))
    key = [escape(quote(name)) for name in sync.key]
    old = [escape(quote(name)) for name in lens.old]
    stale = f"{marker} IS NULL"
    order = f" ORDER BY {', '.join(key)}" if key else ""

    def page(after: str) -> str:
        return f"SELECT {', '.join([*key, *old])} FROM {table} WHERE {stale}{after}{order} LIMIT :limit"

    unchanged = [
        compiler.same(column, f":o{place}", sync.columns[name].type)
        for place, (name, column) in enumerate(zip(lens.old, old, strict=True))
    ]
    this = [f"{column} = :k{place}" for place, column in enumerate(key)]
    assigned = [f"{escape(quote(name))} = :n{place}" for place, name in enumerate(lens.new)]
    kept = [f"{escape(quote(name))} = {escape(quote(name))}" for name in keep]
    where = " AND ".join([*this, stale, *(f"({same})" for same in unchanged)])
    return OpaqueText(
        first_page=page(""),
        page=page(f" AND {beyond(compiler, key, '>', 'k')}") if key else page(""),
        write=f"UPDATE {table} SET {', '.join([*assigned, f'{marker} = 1', *kept])} WHERE {where}",
        remaining=f"SELECT count(*) FROM {table} WHERE {stale}",
    )
