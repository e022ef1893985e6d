"""What stands on a column of PostgreSQL, and goes over to another column that takes its name.

Indexes and keys are built on the other column beside the writers, and take the names of those that go. A foreign key
knows columns by their numbers, so it is dropped and made anew, ``NOT VALID``, in the hold in which the columns exchange
their names, and validated beside the writers right after: every row was checked by the old one until that moment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.comments import comment_on
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.postgresql_keys import cannot_be_remade
from contraflow.dialects.remaining import Remaining
from contraflow.dialects.widening import Widened
from contraflow.installed import Widening
from contraflow.problems import Problem

__all__ = ["bequeath", "build_twins", "find", "hand_over", "problems", "release", "take_over", "validate"]

_EXCLUSIVE = "ACCESS EXCLUSIVE"
_ONLINE = "SHARE UPDATE EXCLUSIVE (writers go on); waits for open transactions"
_NAME = re.compile(r'"(?:[^"]|"")*"|[^\W\d][\w$]*')


def find(connection: sa.Connection, oid: int) -> dict[str, Any]:
    """The indexes, foreign keys and sequences of a table.

    Of an index its ``name``, ``text``, ``columns``, ``kind`` (``p``, ``u``, ``x`` of a constraint, or nothing), and
    whether it consists of plain columns and nothing else (``plain``). Of a foreign key its ``name``, ``text``,
    ``columns``, ``comment`` and whether it is ``valid``. Of a column that is numbered its ``sequence`` (quoted),
    whether that ``counts`` by one, and the kind of its identity (``a``, ``d``, or nothing).
    """
    order = "WITH ORDINALITY AS k (attnum, place) JOIN pg_attribute a ON a.attnum = k.attnum AND a.attrelid ="
    indexes = connection.execute(
        sa.text(
            "SELECT c.relname AS name, pg_get_indexdef(c.oid) AS text, CAST(ARRAY(SELECT a.attname FROM"
            f" unnest(CAST(i.indkey AS int2[])) {order} i.indrelid ORDER BY k.place) AS text[]) AS columns,"
            " coalesce(CAST(k.contype AS text), '') AS kind, i.indexprs IS NULL AND i.indpred IS NULL"
            " AND i.indnatts = i.indnkeyatts AND NOT coalesce(k.condeferrable, false)"
            " AND coalesce(k.contype, 'u') <> 'x' AS plain"
            " FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid LEFT JOIN pg_constraint k"
            " ON k.conindid = c.oid AND k.conrelid = i.indrelid AND k.contype IN ('p', 'u', 'x')"
            " WHERE i.indrelid = :oid ORDER BY c.relname"
        ),
        {"oid": oid},
    ).mappings()
    keys = connection.execute(
        sa.text(
            "SELECT c.conname AS name, pg_get_constraintdef(c.oid) AS text, c.convalidated AS valid,"
            f" CAST(ARRAY(SELECT a.attname FROM unnest(c.conkey) {order} c.conrelid ORDER BY k.place) AS text[])"
            " AS columns,"
            " obj_description(c.oid, 'pg_constraint') AS comment FROM pg_constraint c"
            " WHERE c.conrelid = :oid AND c.contype = 'f' ORDER BY c.conname"
        ),
        {"oid": oid},
    ).mappings()
    sequences = connection.execute(
        sa.text(
            "SELECT a.attname AS column, CAST(CAST(s.seqrelid AS regclass) AS text) AS sequence,"
            " s.seqincrement = 1 AND s.seqmin = 1 AND s.seqcache = 1 AND NOT s.seqcycle AS counts,"
            " CAST(a.attidentity AS text) AS identity FROM pg_depend d JOIN pg_sequence s ON s.seqrelid = d.objid"
            " JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid"
            " WHERE d.classid = CAST('pg_class' AS regclass) AND d.refclassid = CAST('pg_class' AS regclass)"
            " AND d.refobjid = :oid AND d.deptype IN ('a', 'i') ORDER BY a.attname"
        ),
        {"oid": oid},
    ).mappings()
    return {
        "held": tuple({**row, "columns": tuple(row["columns"])} for row in indexes),
        "keys": tuple({**row, "columns": tuple(row["columns"])} for row in keys),
        "sequences": {str(row["column"]): dict(row) for row in sequences},
    }


def _twin(table: str, name: str) -> str:
    digest = hashlib.sha256(f"{table}\0{name}".encode()).hexdigest()
    return f"cf_{digest[:16]}"


def _on(found: Found, kind: str, names: Collection[str], gone: Collection[str] = ()) -> list[dict[str, Any]]:
    """The indexes, keys or references that stand on one of the columns, but for those that the hold drops anyway."""
    return [one for one in found.details[kind] if not set(one["columns"]).isdisjoint(names) and one["name"] not in gone]


def build_twins(widened: Widened) -> list[Statement]:
    """The statements that build the indexes of the columns that are to take others' names; what died is dropped."""
    found, step, compiler = widened.found, widened.step, widened.compiler
    if found is None:
        return []
    due = {one.column: one.shadow for one in widened.to_swap}
    sent = []
    for held in _on(found, "held", due):
        twin = _twin(step.table, held["name"])
        state = found.indexes.get(twin)
        if state == "invalid":
            drop = f"DROP INDEX CONCURRENTLY {compiler.table(twin, step.schema)}"
            sent.append(Statement(sql=drop, lock=_ONLINE))
        if state in (None, "invalid"):
            unique = "UNIQUE " if held["text"].startswith("CREATE UNIQUE") else ""
            create = f"CREATE {unique}INDEX CONCURRENTLY {compiler.quote(twin)} ON {widened.table}"
            sent.append(Statement(sql=f"{create}{_renamed(held['text'], due, compiler)}", lock=_ONLINE))
    return sent


def _renamed(text: str, due: dict[str, str], compiler: Compiler) -> str:
    """What stands behind the table's name in the text of an index of plain columns, with other columns."""
    method = re.search(r" USING \w+ \(", text)
    if method is None:
        raise ValueError(f"not the text of an index: {text!r}")
    parts = [text[method.start() : method.end()]]
    place, depth, starts = method.end(), 1, True
    while depth and place < len(text):
        match = _NAME.match(text, place)
        piece = match[0] if match else text[place]
        if match and starts:
            name = piece[1:-1].replace('""', '"') if piece.startswith('"') else piece
            parts.append(compiler.quote(due[name]) if name in due else piece)
        else:
            depth += {"(": 1, ")": -1}.get(piece, 0)
            parts.append(piece)
        starts = (depth == 1 and piece == ",") or (starts and piece.isspace())
        place += len(piece)
    return "".join([*parts, text[place:]])


def release(widened: Widened, due: Sequence[Widening], gone: Collection[str]) -> list[Statement]:
    """The statements that take everything from the columns that lose their names."""
    found, step = widened.found, widened.step
    if found is None:
        return []
    quote, names = widened.compiler.quote, {one.column for one in due}
    sent = [_alter(table, f"DROP CONSTRAINT {quote(key['name'])}") for table, key in _foreign(widened, names, gone)]
    for held in _on(found, "held", names, gone):
        if held["kind"]:
            sent.append(_alter(widened.table, f"DROP CONSTRAINT {quote(held['name'])}"))
        else:
            sql = f"DROP INDEX {widened.compiler.table(held['name'], step.schema)}"
            sent.append(Statement(sql=sql, lock=_EXCLUSIVE))
    return sent


def take_over(widened: Widened, due: Sequence[Widening], gone: Collection[str]) -> list[Statement]:
    """The statements that give everything to the columns that have the names by now."""
    found, step = widened.found, widened.step
    if found is None:
        return []
    quote, names = widened.compiler.quote, {one.column for one in due}
    sent = []
    for held in _on(found, "held", names, gone):
        name, twin = held["name"], _twin(step.table, held["name"])
        kind = {"p": "PRIMARY KEY", "u": "UNIQUE"}.get(held["kind"])
        if kind:
            sent.append(_alter(widened.table, f"ADD CONSTRAINT {quote(name)} {kind} USING INDEX {quote(twin)}"))
        else:
            index = widened.compiler.table(twin, step.schema)
            sent.append(Statement(sql=f"ALTER INDEX {index} RENAME TO {quote(name)}", lock=_EXCLUSIVE))
    for table, key in _foreign(widened, names, gone):
        name = quote(key["name"])
        sent.append(_alter(table, f"ADD CONSTRAINT {name} {key['text']} NOT VALID"))
        if key["comment"] is not None:
            sent.append(comment_on("CONSTRAINT", f"{name} ON {table}", key["comment"]))
    return sent


def _foreign(widened: Widened, names: Collection[str], gone: Collection[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The foreign keys on the columns, and those of other tables that refer to them, each with its table."""
    found = widened.found
    if found is None:
        return
    own = _on(found, "keys", names, gone)
    yield from ((widened.table, key) for key in own)
    # One of the table itself that refers to the columns, but does not stand on them, is among the references only.
    known = {key["name"] for key in own}
    for one in _on(found, "references", names):
        if not one["itself"] or one["name"] not in {*known, *gone}:
            yield one["table"], one


def hand_over(widened: Widened, one: Widening) -> list[Statement]:
    """The statements by which the column that takes the name is numbered as the other one was.

    Before the two exchange their names; by then it is NOT NULL, without which there is no identity.
    """
    found, quote, table = widened.found, widened.compiler.quote, widened.table
    if found is None:
        return []
    column, shadow = quote(one.column), quote(one.shadow)
    default = found.details["default_texts"].get(one.column, "")
    numbering = found.details["sequences"].get(one.column)
    if numbering is None:
        if "nextval(" not in default:
            return []
        return [
            _alter(table, f"ALTER COLUMN {shadow} SET DEFAULT {default}"),
            _alter(table, f"ALTER COLUMN {column} DROP DEFAULT"),
        ]
    sequence = numbering["sequence"]
    if not numbering["identity"]:
        type_ = found.details["types"][one.shadow]
        return [
            _alter(table, f"ALTER COLUMN {shadow} SET DEFAULT {default}"),
            _alter(table, f"ALTER COLUMN {column} DROP DEFAULT"),
            Statement(sql=f"ALTER SEQUENCE {sequence} AS {type_} OWNED BY {table}.{shadow}"),
        ]
    new = _twin(widened.step.table, one.column)
    named = widened.compiler.table(new, widened.step.schema)
    kind = "ALWAYS" if numbering["identity"] == "a" else "BY DEFAULT"
    last = [match[0] for match in _NAME.finditer(sequence)][-1]
    return [
        _alter(table, f"ALTER COLUMN {shadow} ADD GENERATED {kind} AS IDENTITY (SEQUENCE NAME {named})"),
        Statement(sql=f"SELECT setval({plain_literal(named)}, nextval({plain_literal(sequence)}), false)"),
        _alter(table, f"ALTER COLUMN {column} DROP IDENTITY"),
        Statement(sql=f"ALTER SEQUENCE {named} RENAME TO {last}"),
    ]


def bequeath(work: Remaining, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements by which sequences of columns that go (SERIAL) belong to those whose defaults draw from them.

    Else they would go with their columns, and these defaults be in the way.
    """
    if found is None:
        return []
    table = compiler.table(work.table, work.schema)
    defaults = {**found.details.get("default_texts", {}), **work.defaults}
    sent = []
    for column in work.drop:
        sequence = found.details.get("sequences", {}).get(column, {}).get("sequence")
        drawn = f"nextval({plain_literal(sequence)}" if sequence else None
        heirs = [name for name, text in defaults.items() if drawn and drawn in text and name not in work.drop]
        if heirs:
            sent.append(Statement(sql=f"ALTER SEQUENCE {sequence} OWNED BY {table}.{compiler.quote(heirs[0])}"))
    return sent


def validate(widened: Widened) -> list[Statement]:
    """The statements that prove the foreign keys which were made anew."""
    lock = "SHARE UPDATE EXCLUSIVE (writers go on)"
    names = {one.column for one in widened.shadowed}
    return [
        Statement(sql=f"ALTER TABLE {table} VALIDATE CONSTRAINT {widened.compiler.quote(key['name'])}", lock=lock)
        for table, key in _foreign(widened, names, ())
        if not key["valid"]
    ]


def problems(widened: Widened, *, partitioned: bool) -> Iterator[Problem]:
    """``CF111`` for what cannot go over to another column."""
    found, step = widened.found, widened.step
    if found is None:
        return
    for one in widened.shadowed:
        if not widened.has_old_type(one):
            continue
        for held in _on(found, "held", {one.column}):
            if not held["plain"] or partitioned:
                reason = f"{held['name']} stands on it, which cannot be built beside it"
                yield _stuck(step.table, one, reason)
        for table, key in _foreign(widened, {one.column}, ()):
            if partitioned and table == widened.table:
                yield _stuck(step.table, one, f"the foreign key {key['name']} of a partitioned table stands on it")
            if not key["valid"]:
                yield _stuck(step.table, one, f"the foreign key {key['name']} of {table} is not valid")
        yield from cannot_be_remade(_on(found, "references", {one.column}))
        numbering = found.details["sequences"].get(one.column)
        if numbering and numbering["identity"] and not numbering["counts"]:
            yield _stuck(step.table, one, "its identity does not count by one")


def _stuck(table: str, one: Widening, reason: str) -> Problem:
    return Problem(
        code="CF111",
        what=f"{table}.{one.column} cannot become {one.new} beside its writers: {reason}.",
        why="what stands on the column goes over to the second one that takes its place, and this would not.",
        instead="drop it in a revision before this one (or validate it), and create it again in one after it;"
        "\nor give the wider type to a column of another name: ChangeType(...).",
    )


def _alter(table: str, what: str) -> Statement:
    return Statement(sql=f"ALTER TABLE {table} {what}", lock=_EXCLUSIVE)
