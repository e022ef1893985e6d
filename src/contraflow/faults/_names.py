"""Names of constraints, tables, columns and keys, read out of what servers write.

Only to inform: no fault is decided by what is read here, except SQLite's (see `sqlite_statement_fault`).
Servers translate the words of their messages, not the order and the quoting of the names, so only the quoting
is read.
"""

from __future__ import annotations

import re
from typing import TypedDict

from contraflow.faults._codes import Fault

__all__ = ["Names", "mysql", "postgresql_key", "sqlite", "sqlite_code", "sqlite_statement_fault"]


class Names(TypedDict, total=False):
    """The part of a `Diagnosis` that comes from a text; what the text does not tell is left out."""

    constraint: str
    columns: tuple[str, ...]
    table: str
    key: str


def postgresql_key(detail: str) -> tuple[tuple[str, ...] | None, str | None]:
    """Columns and values of ``Key (a, "b c")=(1, x) already exists.``, in whatever language the words are."""
    match = re.search(r"\((?P<columns>.+?)\)=\((?P<key>.*)\)", detail, re.DOTALL)
    if match is None:
        return None, None
    return _split_columns(match["columns"]), match["key"]


def _split_columns(text: str) -> tuple[str, ...]:
    """Split at commas outside quotes and parentheses (an index may be on ``lower((name)::text)``)."""
    parts: list[str] = []
    depth, quoted, start = 0, False, 0
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif not quoted:
            depth += (character == "(") - (character == ")")
            if character == "," and depth == 0:
                parts.append(text[start:position])
                start = position + 1
    parts.append(text[start:])
    return tuple(_unquote(part.strip()) for part in parts)


def _unquote(name: str) -> str:
    if len(name) > 1 and name[0] == name[-1] == '"':
        return name[1:-1].replace('""', '"')
    return name


_BACKTICKED = re.compile(r"`((?:[^`]|``)*)`")
_DUPLICATE = re.compile(r"'(?P<key>.*)'[^']*'(?P<index>[^']*)'[^']*$", re.DOTALL)
_QUOTED = re.compile(r"['`]([^'`]*)['`]")


def mysql(fault: Fault, text: str) -> Names:
    """What MySQL's or MariaDB's message of a ``fault`` names."""
    if fault is Fault.DUPLICATE_KEY:
        # Duplicate entry '1-2' for key 't.u' (MySQL) or 'u' (MariaDB)
        match = _DUPLICATE.search(text)
        if match is None:
            return {}
        table, _, index = match["index"].rpartition(".")
        return {"key": match["key"], "constraint": index, **({"table": table} if table else Names())}
    if fault is Fault.FOREIGN_KEY:
        return _mysql_foreign_key(text)
    if fault is Fault.CHECK:
        # Check constraint 'c' is violated. | CONSTRAINT `t.c` failed for `db`.`t`
        found = _QUOTED.findall(text)
        if not found:
            return {}
        constraint = found[0].rpartition(".")[2]
        return {"constraint": constraint, "table": found[-1]} if len(found) > 2 else {"constraint": constraint}
    if fault is Fault.NO_SUCH_TABLE:
        found = _QUOTED.findall(text)
        return {"table": found[0].rpartition(".")[2]} if found else {}
    if fault in (Fault.NOT_NULL, Fault.NO_SUCH_COLUMN):
        found = _QUOTED.findall(text)
        return {"columns": (found[0].rpartition(".")[2],)} if found else {}
    if fault is Fault.DATA:
        return _mysql_value(text)
    return {}


def _mysql_foreign_key(text: str) -> Names:
    """``(`db`.`t`, CONSTRAINT `fk` FOREIGN KEY (`a`, `b`) REFERENCES `p` (`id`))``."""
    match = re.search(r"CONSTRAINT (`(?:[^`]|``)*`) FOREIGN KEY \(([^)]*)\)", text)
    if match is None:
        return {}
    before = _BACKTICKED.findall(text[: match.start()])
    found: Names = {
        "constraint": match[1][1:-1].replace("``", "`"),
        "columns": tuple(name.replace("``", "`") for name in _BACKTICKED.findall(match[2])),
    }
    if before:
        found["table"] = before[-1].replace("``", "`")
    return found


def _mysql_value(text: str) -> Names:
    """``... for column `db`.`t`.`c` at row 1`` (MariaDB) or ``... for column 'c' at row 1``."""
    match = re.search(r"`[^`]*`\.`([^`]*)`\.`([^`]*)`[^`']*$", text)
    if match is not None:
        return {"table": match[1], "columns": (match[2],)}
    match = re.search(r"'([^']*)'[^']*\d[^']*$", text)
    return {"columns": (match[1],)} if match is not None else {}


_SQLITE_TEXTS = (
    ("UNIQUE constraint failed", 2067),
    ("FOREIGN KEY constraint failed", 787),
    ("NOT NULL constraint failed", 1299),
    ("CHECK constraint failed", 275),
    ("cannot store ", 3091),
    ("database is locked", 5),
    ("database table is locked", 6),
    ("database schema is locked", 6),
    ("attempt to write a readonly database", 8),
    ("interrupted", 9),
    ("database or disk is full", 13),
    ("unable to open database file", 14),
    ("database schema has changed", 17),
    ("string or blob too big", 18),
    ("datatype mismatch", 20),
    ("not authorized", 23),
)

_SQLITE_STATEMENTS = (
    (re.compile(r"no such (?:table|view)\b"), Fault.NO_SUCH_TABLE),
    (re.compile(r"no such column\b|table .* has no column named |unknown column "), Fault.NO_SUCH_COLUMN),
    (re.compile(r"unknown database\b|no such database\b"), Fault.NO_SUCH_DATABASE),
    (re.compile(r".* already exists$|duplicate column name"), Fault.ALREADY_EXISTS),
    (re.compile(r"near \".*\": syntax error|incomplete input|unrecognized token"), Fault.SYNTAX),
)


def sqlite_code(text: str, classes: set[str]) -> int | None:
    """The result code that Python 3.10's `sqlite3` keeps for itself, from the library's (only English) text.

    "database is locked" is SQLITE_BUSY and SQLITE_BUSY_SNAPSHOT alike: both are 5 here. What a trigger raised
    has the trigger's own text.
    """
    for start, code in _SQLITE_TEXTS:
        if text.startswith(start):
            return code
    if "IntegrityError" in classes:
        return 1811
    if any(pattern.match(text) for pattern, _ in _SQLITE_STATEMENTS):
        return 1
    return None


def sqlite_statement_fault(text: str) -> Fault:
    """SQLite has one code, 1, for whatever is wrong with a statement; its English text is all there is."""
    for pattern, fault in _SQLITE_STATEMENTS:
        if pattern.match(text):
            return fault
    return Fault.OTHER


def sqlite(fault: Fault, text: str) -> Names:
    """What SQLite's message of a ``fault`` names."""
    rest = text.partition(": ")[2]
    if fault is Fault.CHECK and rest:
        return {"constraint": rest}
    if fault is Fault.DUPLICATE_KEY and rest.startswith("index "):  # an index on expressions
        return {"constraint": rest[len("index ") :].strip("'")}
    if fault in (Fault.DUPLICATE_KEY, Fault.NOT_NULL) and "." in rest:
        pairs = [part.rpartition(".") for part in rest.split(", ")]
        return {"table": pairs[0][0], "columns": tuple(column for _, _, column in pairs)}
    if fault is Fault.NO_SUCH_TABLE and rest:
        return {"table": rest.rpartition(".")[2]}
    if fault is Fault.NO_SUCH_COLUMN:
        name = rest or text.rpartition(" ")[2]
        return {"columns": (name.rpartition(".")[2],)}
    match = re.match(r"cannot store .* value in .* column (.+)\.([^.]+)$", text)
    if match is not None:
        return {"table": match[1], "columns": (match[2],)}
    return {}
