"""Wider types on PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator

import sqlalchemy as sa

from contraflow.dialects import postgresql_held
from contraflow.dialects.base import Statement
from contraflow.dialects.comments import comment_on
from contraflow.dialects.dependents import postgresql_readers
from contraflow.dialects.kinds import Kind
from contraflow.dialects.widening import Widened
from contraflow.installed import Widening
from contraflow.problems import Problem

__all__ = ["hold", "in_place", "online", "problems"]

_EXCLUSIVE = "ACCESS EXCLUSIVE"
_PARKED = "cf_parked"
_GUARD = "contraflow guard"

CheckName = Callable[[str, str], str]
"""Table and column to the name of the constraint that proves NOT NULL."""


def in_place(old: Kind, new: Kind) -> bool:
    """Text with a larger limit or none, and more digits before the point.

    (https://www.postgresql.org/docs/release/9.2.0/, "Reduce need to rebuild tables and indexes for certain
    ALTER TABLE ... ALTER COLUMN TYPE operations")
    """
    if old == new or old.family == new.family in ("text", "binary"):
        return True
    return old.family == new.family == "decimal" and old.scale == new.scale


def hold(widened: Widened, check_name: CheckName, gone: Collection[str] = ()) -> list[Statement]:
    """The statements of a stage within a hold, which drops the indexes and constraints named ``gone`` by itself."""
    stage = widened.step.stage
    if stage == "begin":
        return [*_alter(widened, _retyped(widened)), *_begin(widened)]
    if stage == "swap":
        return [*_swap(widened, check_name, gone), _function(widened)] if widened.to_swap else []
    if stage == "guard":
        return _guard(widened)
    back = _alter(widened, _retyped(widened), slow=True) if stage == "undo" else []
    swapped = _swap(widened, check_name, gone) if stage == "undo" else []
    return [*back, *swapped, *_drop(widened)]


def online(widened: Widened, check_name: CheckName) -> list[Statement]:
    """The statements of a stage outside of holds."""
    if widened.step.stage == "prove":
        return _prove(widened, check_name)
    if widened.step.stage == "refer":
        return postgresql_held.validate(widened)
    return postgresql_held.build_twins(widened)


def _prove(widened: Widened, check_name: CheckName) -> list[Statement]:
    """The statements that prove the shadows' NOT NULL, and let the server know what is in them."""
    quote, table, found = widened.compiler.quote, widened.table, widened.found
    constraints = {} if found is None else found.details["constraints"]
    sent = []
    for one in widened.to_swap:
        name = check_name(widened.step.table, one.shadow)
        if widened.is_nullable(one) or constraints.get(name):
            continue
        if name not in constraints:
            check = f"ADD CONSTRAINT {quote(name)} CHECK ({quote(one.shadow)} IS NOT NULL) NOT VALID"
            sent.append(Statement(sql=f"ALTER TABLE {table} {check}", lock=_EXCLUSIVE))
        lock = "SHARE UPDATE EXCLUSIVE (writers go on)"
        sent.append(Statement(sql=f"ALTER TABLE {table} VALIDATE CONSTRAINT {quote(name)}", lock=lock))
    if names := ", ".join(quote(one.shadow) for one in widened.to_swap):
        sent.append(Statement(sql=f"ANALYZE {table} ({names})", lock="SHARE UPDATE EXCLUSIVE (writers go on)"))
    return sent


def _alter(widened: Widened, parts: list[str], *, slow: bool = False) -> list[Statement]:
    if not parts:
        return []
    lock = f"{_EXCLUSIVE}, for as long as writing the table anew takes" if slow else _EXCLUSIVE
    return [Statement(sql=f"ALTER TABLE {widened.table} {', '.join(parts)}", lock=lock)]


def _retyped(widened: Widened) -> list[str]:
    quote = widened.compiler.quote
    undo = widened.step.stage == "undo"
    return [
        f"ALTER COLUMN {quote(one.column)} TYPE {one.old if undo else _wide(widened, one)}" for one in widened.in_place
    ]


def _wide(widened: Widened, one: Widening) -> str:
    """The wider type. Without COLLATE it would have the database's, not the column's.

    (https://www.postgresql.org/docs/current/sql-altertable.html, SET DATA TYPE)
    """
    text = widened.compiler.type_text(widened.step.types[one.column])
    return text if " COLLATE " in text else "".join([text, *one.old.partition(" COLLATE ")[1:]])


def _begin(widened: Widened) -> list[Statement]:
    quote, mirror = widened.compiler.quote, widened.step.mirror
    due = [one for one in widened.shadowed if widened.has_old_type(one)]
    if not due:
        return []
    missing = [one for one in due if widened.found is None or not widened.stands(one)]
    parts = [f"ADD COLUMN {quote(one.shadow)} {_wide(widened, one)}" for one in missing]
    function = widened.compiler.table(mirror, widened.step.schema)
    sent = [*_alter(widened, parts), _function(widened)]
    if not widened.has(mirror):
        create = f"CREATE TRIGGER {quote(mirror)} BEFORE INSERT OR UPDATE ON {widened.table} FOR EACH ROW"
        sent.append(Statement(sql=f"{create} EXECUTE FUNCTION {function}()", lock="SHARE ROW EXCLUSIVE"))
        return sent
    return sent if missing else []


def _function(widened: Widened, *, guarded: bool = False) -> Statement:
    """The mirror's function, new in every session: a plan made for the other type would fail (42804)."""
    name = widened.compiler.table(widened.step.mirror, widened.step.schema)
    assigned = " ".join(f"NEW.{shadow} := {value};" for shadow, value in widened.assignments())
    guard = ""
    if guarded:
        guard = (
            f"/* {_GUARD} */ IF {widened.refused()} THEN RAISE EXCEPTION 'the value is out of the range of its"
            f" column while an upgrade is rolled back' USING ERRCODE = '22003'; END IF; "
        )
    body = f"BEGIN {guard}{assigned} RETURN NEW; END"
    return Statement(sql=f"CREATE OR REPLACE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $cf${body}$cf$")


def _swap(widened: Widened, check_name: CheckName, gone: Collection[str]) -> list[Statement]:
    """Exchange the names. What has the old type keeps its default: undoing it must not have to spell that again."""
    quote, table, found = widened.compiler.quote, widened.table, widened.found
    due = widened.to_swap
    sent = postgresql_held.release(widened, due, gone)
    for one in due:
        column, shadow, parked = map(quote, (one.column, one.shadow, _PARKED))
        if widened.step.stage == "swap":
            sent += _final_shape(widened, one, check_name(widened.step.table, one.shadow))
        sent += postgresql_held.hand_over(widened, one)
        sent += [
            Statement(sql=f"ALTER TABLE {table} RENAME COLUMN {old} TO {new}", lock=_EXCLUSIVE)
            for old, new in ((column, parked), (shadow, column), (parked, shadow))
        ]
        comment = None if found is None else found.details["comments"].get(one.column)
        if comment is not None and widened.step.stage == "swap":
            sent.append(comment_on("COLUMN", f"{table}.{column}", comment))
    return [*sent, *postgresql_held.take_over(widened, due, gone)]


def _final_shape(widened: Widened, one: Widening, check: str) -> list[Statement]:
    """Default and NOT NULL of the column for its shadow; the proof of NOT NULL spares the server a look at the rows."""
    quote, found = widened.compiler.quote, widened.found
    default = "<its default>" if found is None else found.details["default_texts"].get(one.column)
    numbered = found is not None and "nextval(" in str(default)
    parts = [] if default is None or numbered else [f"ALTER COLUMN {quote(one.shadow)} SET DEFAULT {default}"]
    if not widened.is_nullable(one):
        parts.append(f"ALTER COLUMN {quote(one.shadow)} SET NOT NULL")
    proof = [f"DROP CONSTRAINT {quote(check)}"] if found is not None and check in found.details["constraints"] else []
    return [*_alter(widened, parts), *_alter(widened, proof)]


def _guard(widened: Widened) -> list[Statement]:
    found, mirror = widened.found, widened.step.mirror
    done = found is not None and (not widened.has(mirror) or _GUARD in found.triggers[mirror])
    return [] if done or not widened.standing else [_function(widened, guarded=True)]


def _drop(widened: Widened) -> list[Statement]:
    if not widened.shadowed:
        return []
    quote, mirror = widened.compiler.quote, widened.step.mirror
    sent = []
    if widened.found is None or widened.has(mirror):
        sent.append(Statement(sql=f"DROP TRIGGER {quote(mirror)} ON {widened.table}", lock=_EXCLUSIVE))
    if widened.found is None or mirror in widened.found.details["functions"]:
        name = widened.compiler.table(mirror, widened.step.schema)
        sent.append(Statement(sql=f"DROP FUNCTION {name}()"))
    return [*sent, *_alter(widened, [f"DROP COLUMN {quote(one.shadow)}" for one in widened.standing])]


def problems(connection: sa.Connection, widened: Widened) -> Iterator[Problem]:
    """``CF119`` for plans that go stale, ``CF111`` for what reads the columns."""
    step = widened.step
    for one in step.widenings:
        if not one.replans:
            yield Problem(
                code="CF119",
                what=f"statements that select {step.table}.{one.column} and are prepared already will fail.",
                why="the server refuses a plan whose result changes its type (0A000, cached plan must not change"
                " result type), with psycopg in one transaction of each connection.",
                instead="let the old release prepare nothing (psycopg: prepare_threshold=None), or run transactions"
                "\nagain by contraflow.retry, then say so: WidenColumn(..., replans=True).",
            )
    oid = connection.execute(sa.text("SELECT CAST(to_regclass(:name) AS oid)"), {"name": widened.table}).scalar()
    if oid is None:
        return
    columns = [one.column for one in step.widenings]
    shadowed = [one.column for one in widened.shadowed]
    found = widened.found
    moved = [] if found is None else [*found.details["references"], *found.details["keys"]]
    moved = [one for one in moved if not set(one["columns"]).isdisjoint(shadowed)]
    keys = tuple(f"constraint {one['name']} on table " for one in moved)
    for column, reader in dict.fromkeys(postgresql_readers(connection, oid=int(oid), columns=columns)):
        if reader.startswith(keys):
            continue
        yield Problem(
            code="CF111",
            what=f"{step.table}.{column} cannot get a wider type: {reader} reads it.",
            why="the server refuses, or runs what was prepared for the old type, and fails.",
            instead="drop it in a revision before this one, and create it again in one after it.",
        )
    kind = connection.execute(sa.text("SELECT relkind FROM pg_class WHERE oid = :oid"), {"oid": int(oid)}).scalar()
    if widened.shadowed:
        yield from postgresql_held.problems(widened, partitioned=str(kind) == "p")
    for column in connection.execute(
        sa.text(
            "SELECT attname FROM pg_attribute WHERE attrelid = :oid AND attname = ANY (:columns) AND attacl IS NOT NULL"
        ),
        {"oid": int(oid), "columns": shadowed},
    ).scalars():
        yield Problem(
            code="CF111",
            what=f"{step.table}.{column} cannot get a wider type beside its writers: it has privileges of its own.",
            why="the second column that takes its place would not have them.",
            instead="give the wider type to a column of another name: ChangeType(...).",
        )
