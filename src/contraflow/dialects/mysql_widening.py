"""Wider types on MySQL and MariaDB."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.dependents import mysql_dependents
from contraflow.dialects.kinds import Kind, kind_of
from contraflow.dialects.mysql_text import checks_time, retyped, type_part
from contraflow.dialects.widening import Widened
from contraflow.installed import Widening
from contraflow.problems import Problem

__all__ = ["hold", "in_place", "problems", "prove"]

_EXCLUSIVE = "EXCLUSIVE metadata lock"


def in_place(old: Kind, new: Kind, *, width: int, growing: int) -> bool:
    """VARCHAR and VARBINARY, while the server keeps the length of a value in as many bytes: one for up to 255.

    ``width`` is the longest character in bytes; up to ``growing`` bytes the server can go from one byte to two.
    (MySQL manual, InnoDB, Online DDL Operations;
    https://mariadb.com/kb/en/innodb-online-ddl-operations-with-the-instant-alter-algorithm/)
    """
    if old == new:
        return True
    if old.family != new.family or old.family not in ("text", "binary") or old.large or new.large:
        return False
    before, after = width * (old.size or 0), width * (new.size or 0)
    return before <= growing or before > 255 or after <= 255


def hold(widened: Widened) -> list[Statement]:
    """The statements of a stage within a hold. Every prefix is harmless to both releases."""
    stage = widened.step.stage
    if stage == "begin":
        # Asked for so that the server refuses whatever is more than a change of its dictionary.
        return [*_alter(widened, _changes(widened), "INPLACE, LOCK=NONE"), *_begin(widened)]
    if stage == "swap":
        return _swap(widened)
    if stage == "guard":
        return _guard(widened)
    back = [] if stage == "end" else [*_alter(widened, _changes(widened), ""), *_swap_back(widened)]
    return [*back, *_drop(widened)]


def prove(widened: Widened) -> list[Statement]:
    """The statement that makes the shadows NOT NULL, with a constant for rows that no trigger sees."""
    due = [
        one
        for one in widened.to_swap
        if not widened.is_nullable(one) and (widened.found is None or widened.found.columns[one.shadow])
    ]
    parts = [f"MODIFY COLUMN {_hidden(widened, one, one.shadow, _shadow_type(widened, one))}" for one in due]
    lock = f"SHARED_UPGRADABLE metadata lock, {_EXCLUSIVE} for a moment at both ends; ALGORITHM=INPLACE, LOCK=NONE"
    return [
        Statement(sql=one.sql, lock=f"{lock} (writers go on)") for one in _alter(widened, parts, "INPLACE, LOCK=NONE")
    ]


def _alter(widened: Widened, parts: list[str], algorithm: str = "INSTANT") -> list[Statement]:
    if not parts:
        return []
    clause = f", ALGORITHM={algorithm}" if algorithm else ""
    lock = f"ALGORITHM={algorithm}" if algorithm else "for as long as writing the table anew takes"
    return [Statement(sql=f"ALTER TABLE {widened.table} {', '.join(parts)}{clause}", lock=f"{_EXCLUSIVE}, {lock}")]


def _changes(widened: Widened) -> list[str]:
    undo = widened.step.stage == "undo"
    return [
        f"MODIFY COLUMN {_shown(widened, one, one.column, one.old if undo else _wide(widened, one))}"
        for one in widened.in_place
    ]


def _wide(widened: Widened, one: Widening) -> str:
    types = widened.step.types
    return widened.compiler.type_text(types[one.column]) if one.column in types else one.new


def _shadow_type(widened: Widened, one: Widening) -> str:
    """The type of the shadow, as the server spells it."""
    return one.new if widened.found is None else str(widened.found.details["types"][one.shadow])


def _shown(widened: Widened, one: Widening, name: str, type_text: str) -> str:
    """``name`` and the definition of the column that has the name, with another type."""
    rest = f"{type_text} <the rest of {one.column}>"
    definition = rest if widened.found is None else retyped(widened.found.details["create"], one.column, type_text)
    return f"{widened.compiler.quote(name)} {definition}"


def _hidden(widened: Widened, one: Widening, name: str, type_text: str, *, nullable: bool | None = None) -> str:
    """``name`` and the definition of a shadow."""
    found = widened.found
    definition = type_text if found is None else type_part(found.details["create"], one.column, type_text)
    if widened.is_nullable(one) if nullable is None else nullable:
        return f"{widened.compiler.quote(name)} {definition} NULL INVISIBLE"
    filler = widened.filler(one)
    if kind_of(type_text, widened.product).large and widened.product == "mysql":
        filler = f"({filler})"  # error 1101; MariaDB, other way round, rebuilds in place without an expression only
    return f"{widened.compiler.quote(name)} {definition} NOT NULL DEFAULT {filler} INVISIBLE"


def _begin(widened: Widened) -> list[Statement]:
    quote = widened.compiler.quote
    due = [one for one in widened.shadowed if widened.has_old_type(one)]
    added = [one for one in due if widened.found is None or not widened.stands(one)]
    parts = [
        f"ADD COLUMN {_hidden(widened, one, one.shadow, _wide(widened, one), nullable=True)} AFTER {quote(one.column)}"
        for one in added
    ]
    assigned = ", ".join(f"NEW.{shadow} = {value}" for shadow, value in widened.assignments())
    triggers = _create(widened, "", f"SET {assigned}") if due else []
    return [*_alter(widened, parts), *triggers]


def _create(widened: Widened, suffix: str, body: str) -> list[Statement]:
    """The triggers of one body that are not there yet."""
    sent = []
    for event in ("insert", "update"):
        name = f"{widened.step.mirror}{suffix}_{event[0]}"
        if not widened.has(name):
            create = f"CREATE TRIGGER {widened.compiler.table(name, widened.step.schema)} BEFORE {event.upper()}"
            sent.append(Statement(sql=f"{create} ON {widened.table} FOR EACH ROW {body}", lock=_EXCLUSIVE))
    return sent


def _swap(widened: Widened) -> list[Statement]:
    """One statement, without a row being read; the shadow keeps its place behind the column."""
    quote = widened.compiler.quote
    parts = []
    for one in widened.to_swap:
        parts += [
            f"CHANGE COLUMN {quote(one.column)} {_hidden(widened, one, one.shadow, one.old)}",
            f"CHANGE COLUMN {quote(one.shadow)} {_shown(widened, one, one.column, _shadow_type(widened, one))}",
        ]
    return _alter(widened, parts)


def _swap_back(widened: Widened) -> list[Statement]:
    quote, found = widened.compiler.quote, widened.found
    parts = []
    for one in widened.to_swap:
        wide = one.new if found is None else str(found.details["types"][one.column])
        parts += [
            f"CHANGE COLUMN {quote(one.column)} {_hidden(widened, one, one.shadow, wide)}",
            f"CHANGE COLUMN {quote(one.shadow)} {_shown(widened, one, one.column, one.old)}",
        ]
    return _alter(widened, parts)


def _guard(widened: Widened) -> list[Statement]:
    """Triggers of their own, so that at no time the mirror is missing."""
    if not widened.standing:
        return []
    text = "the value is out of the range of its column while an upgrade is rolled back"
    signal = f"SIGNAL SQLSTATE '22003' SET MYSQL_ERRNO = 1264, MESSAGE_TEXT = '{text}'"
    return _create(widened, "_g", f"BEGIN IF {widened.refused()} THEN {signal}; END IF; END")


def _drop(widened: Widened) -> list[Statement]:
    if not widened.shadowed:
        return []
    names = [f"{widened.step.mirror}{suffix}" for suffix in ("_i", "_u", "_g_i", "_g_u")]
    if widened.found is None and widened.step.stage == "end":
        names = names[:2]
    sent = [
        Statement(sql=f"DROP TRIGGER {widened.compiler.table(name, widened.step.schema)}", lock=_EXCLUSIVE)
        for name in names
        if widened.found is None or widened.has(name)
    ]
    quote = widened.compiler.quote
    return [*sent, *_alter(widened, [f"DROP COLUMN {quote(one.shadow)}" for one in widened.standing])]


def _not_exchanged(widened: Widened, found: Found) -> Iterator[Problem]:
    """What in the table keeps it from getting second columns, or these from taking the names; the first such thing."""
    details, is_mariadb = found.details, widened.product == "mariadb"
    held = any(not found.columns[one.column] for one in widened.shadowed)
    timed = not is_mariadb and checks_time(details["create"], details["types"])
    obstacles = (
        (
            not details["instant"],
            "is compressed, has a FULLTEXT index or one on a computed column, or was altered often",
        ),
        (is_mariadb and details["virtual"], "has columns that are computed when they are read"),
        (is_mariadb and details["stored"] and held, "has columns that are computed and stored"),
        (details["obstacle"] and held, f"has {details['obstacle']}"),
        (timed, "has a check that reads a date or a time"),
    )
    if found_one := next((text for stands, text in obstacles if stands), None):
        yield Problem(
            code="CF205",
            what=f"{widened.step.table} {found_one}.",
            why="the server would make a second column in it, or let the two exchange their names, only while writers"
            " wait for a rebuild (errors 1845, 1846).",
            instead="give the wider type to a column of another name: ChangeType(..., forward=, backward=);\n"
            f"or rebuild a table that was altered often, at a quiet time: ALTER TABLE {widened.table} FORCE.",
        )


def problems(connection: sa.Connection, widened: Widened, database: str) -> Iterator[Problem]:
    """What reads a column by its place in the table, and would go on reading the one of the old type.

    Views and triggers find it by its name.
    """
    step, found = widened.step, widened.found
    if not widened.shadowed:
        return
    if found is not None:
        yield from _not_exchanged(widened, found)
    for one in widened.shadowed:
        large = kind_of(one.new, widened.product).large and not kind_of(one.old, widened.product).large
        if large and widened.product == "mysql" and found is not None and one.column in found.details["defaults"]:
            yield Problem(
                code="CF205",
                what=f"{step.table}.{one.column} has a default, and cannot become {one.new}.",
                why="MySQL takes only an expression as its default then; a rollback would not find it as it was.",
                instead=f"drop the default in a revision before this one: ALTER TABLE {widened.table}"
                f" ALTER COLUMN {widened.compiler.quote(one.column)} DROP DEFAULT.",
            )
    columns = [one.column for one in widened.shadowed]
    readers = mysql_dependents(connection, database=database, table=step.table, columns=columns, own=None)
    for column, reader in dict.fromkeys(readers):
        if not reader.startswith(("view ", "trigger ")):
            yield Problem(
                code="CF111",
                what=f"{step.table}.{column} cannot get a wider type: {reader} reads it.",
                why="it would go on reading the column of the old type.",
                instead="drop it in a revision before this one, and create it again in one after it.",
            )
