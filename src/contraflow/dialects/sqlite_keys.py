"""Primary keys of SQLite: the table is made anew in one transaction, under its own name.

A key decides how SQLite stores the rows, so no edit of the table's text will do. The order is that of part 7 of
https://www.sqlite.org/lang_altertable.html: make, copy, drop, rename, and then the indexes and triggers again, in the
order in which they were made (the newest trigger fires first). ``legacy_alter_table`` keeps the texts of views and of
other tables' triggers and foreign keys from being looked at: to them the table never went. Foreign keys are off
meanwhile, or dropping the table would delete the rows that refer to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from contraflow.dialects import sqlite_text
from contraflow.dialects.base import Found, Statement
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.remaining import key_is_due
from contraflow.installed import Installed, Numbered
from contraflow.problems import Problem
from contraflow.steps import ChangeKey, NumberColumn

__all__ = ["change", "number", "problems"]

_RESERVED = "RESERVED (one writer at a time; readers go on in WAL mode)"
_COPY = f"{_RESERVED}, for as long as copying every row takes"


def change(step: ChangeKey, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements that make the table anew with the other key; none if it has that."""
    if not key_is_due(step, found):
        return []
    return _rebuild(step, None if found is None else _text(step, found), found, compiler)


def number(step: NumberColumn, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements of a stage: the server numbers what is an INTEGER PRIMARY KEY, so it is that at once.

    The old key's columns are unique by an index from the same moment on. The text that the table had is kept within
    its new one, so that it can be given back.
    """
    one, quote = step.numbered, compiler.quote
    stands = found is not None and one.column in found.columns
    index = compiler.table(one.unique, step.schema)
    if step.stage == "add" and not stands:
        sent = _rebuild(step, None if found is None else _numbered(step, found), found, compiler)
        if one.unique:
            columns = ", ".join(map(quote, step.key.old))
            sent.append(Statement(sql=f"CREATE UNIQUE INDEX {index} ON {quote(step.table)} ({columns})", lock=_COPY))
        return sent
    if step.stage == "undo" and (found is None or stands):
        former = None if found is None else sqlite_text.former(str(found.details["sql"]))
        dropped = Statement(sql=f"DROP INDEX {index}", lock=_RESERVED)
        drops = [dropped] if one.unique and (found is None or one.unique in found.indexes) else []
        return [*drops, *_rebuild(step, former, found, compiler, exactly=True)]
    return []


def _numbered(step: NumberColumn, found: Found) -> str:
    former = str(found.details["sql"])
    name = step.numbered.column.replace('"', '""')
    text = sqlite_text.add_column(sqlite_text.drop_primary(former), f'"{name}" INTEGER NOT NULL PRIMARY KEY')
    return sqlite_text.with_former(text, former)


def _rebuild(
    step: ChangeKey | NumberColumn, text: str | None, found: Found | None, compiler: Compiler, *, exactly: bool = False
) -> list[Statement]:
    """Make the table anew from its text; ``exactly``: give it back byte for byte, and no index of the other shape."""
    quote, rebuilt = compiler.quote, f"contraflow_rebuilt_{step.table}"
    table, copy = (compiler.table(name, step.schema) for name in (step.table, rebuilt))
    spelt: list[Statement] = []
    if found is None or text is None:
        create, columns, after = f"<the text of {table}, with the other key, named {copy}>", "<its columns>", []
    else:
        create = sqlite_text.named(text, copy)
        gone = {step.numbered.column} if isinstance(step, NumberColumn) else set()
        kept = [name for name in found.columns if name not in {*gone, *found.details["generated"]}]
        columns = ", ".join(map(quote, kept))
        texts = found.details["index_texts"]
        if exactly and isinstance(step, NumberColumn):
            texts = [one for one in texts if sqlite_text.index_name(one) != step.numbered.unique]
            spelt = _spelt(step, text, found, compiler)
        if isinstance(step, ChangeKey) and step.key.retires:  # the key's own takes its place
            texts = [one for one in texts if sqlite_text.index_name(one) != step.key.name]
        after = [_within(text, step.schema, compiler) for text in (*texts, *found.triggers.values())]
    return [
        Statement(sql="PRAGMA legacy_alter_table = ON"),
        Statement(sql=create, lock=_RESERVED),
        Statement(sql=f"INSERT INTO {copy} ({columns}) SELECT {columns} FROM {table}", lock=_COPY),
        Statement(sql=f"DROP TABLE {table}", lock=_RESERVED),
        Statement(sql=f"ALTER TABLE {copy} RENAME TO {quote(step.table)}", lock=_RESERVED),
        Statement(sql="PRAGMA legacy_alter_table = OFF"),
        *spelt,
        *(Statement(sql=text, lock=_COPY) for text in after),
    ]


def _spelt(step: NumberColumn, text: str, found: Found, compiler: Compiler) -> list[Statement]:
    """The text of the table as it was written: renamed, its name is quoted."""
    prefix = f"{compiler.quote(step.schema)}." if step.schema else ""
    # Each change of the schema counts one: more than have been made by then, or other connections would not notice.
    version = (found.details["schema_version"] + 100) % 2**31
    where = f"type = 'table' AND lower(name) = lower({plain_literal(step.table)})"
    return [
        Statement(sql="PRAGMA writable_schema = ON"),
        Statement(sql=f"UPDATE {prefix}sqlite_schema SET sql = {plain_literal(text)} WHERE {where}", lock=_RESERVED),
        Statement(sql=f"PRAGMA {prefix}schema_version = {version}", lock=_RESERVED),
        Statement(sql="PRAGMA writable_schema = RESET"),
    ]


def _within(text: str, schema: str | None, compiler: Compiler) -> str:
    """The text of an index or trigger, which SQLite keeps without the schema's name, for the table's schema."""
    if schema is None:
        return text
    return sqlite_text.placed(text, compiler.quote(schema))


def _text(step: ChangeKey, found: Found) -> str:
    text = sqlite_text.drop_primary(str(found.details["sql"]))
    if step.key.retires:
        # Nobody reads it any more, and nothing numbers new rows until it goes.
        text = sqlite_text.forget(sqlite_text.relax(text, step.key.old), step.key.old)
    elif len(step.key.old) == 1 and found.details["types"][step.key.old[0]].upper() == "INTEGER":
        # The number of the row itself, which is never NULL without saying so.
        text = sqlite_text.set_final(text, not_null=step.key.old, defaults={})
    for index in step.doubles:
        if index.columns in found.details["unnamed"].values():
            text = sqlite_text.drop_unique(text, index.columns)
    if not step.key.new:
        return text
    columns = ", ".join(f'"{name.replace(chr(34), chr(34) * 2)}"' for name in step.key.new)
    return sqlite_text.add_constraint(text, step.key.name, f'CONSTRAINT "{step.key.name}" PRIMARY KEY ({columns})')


def problems(item: Installed, found: Found) -> Iterator[Problem]:
    """What keeps the table from being made anew."""
    if item.key is None:
        return
    text = str(found.details["sql"])
    if item.numbered and item.numbered.column not in found.columns:
        yield from _unnumbered(item, item.numbered, found)
    if item.key.retires and item.added and item.added[0] not in found.columns:
        (old,) = item.key.old
        if found.details["types"][old].upper() != "INTEGER" or "WITHOUT" in sqlite_text.options(text):
            yield Problem(
                code="CF205",
                what=f"{item.table}.{old} is not numbered by the server.",
                why="SQLite numbers rows by an INTEGER PRIMARY KEY only, and the new release gives them no number.",
                instead="let the new release write both columns: AddColumn(...), then DropPrimaryKey(...),"
                "\nAddPrimaryKey(...) in a later upgrade.",
            )
    if not item.key.new and "WITHOUT" in sqlite_text.options(text):
        yield Problem(
            code="CF205",
            what=f"the primary key of {item.table} cannot be dropped.",
            why="the table is declared WITHOUT ROWID: its rows are stored by the key alone.",
            instead="let the change make another key: AddPrimaryKey(...).",
        )


def _unnumbered(item: Installed, one: Numbered, found: Found) -> Iterator[Problem]:
    """What keeps a new column from being numbered."""
    key = found.details["key"]
    text = str(found.details["sql"])
    if len(key) == 1 and found.details["types"][key[0]].upper() == "INTEGER":
        yield Problem(
            code="CF205",
            what=f"{item.table}.{one.column} cannot be numbered: {key[0]} is.",
            why="SQLite numbers rows by their INTEGER PRIMARY KEY only.",
            instead=f"let {key[0]} be the key, or fill the new one by the application: AddColumn(...), then"
            " DropPrimaryKey(...), AddPrimaryKey(...).",
        )
    if "WITHOUT" in sqlite_text.options(text):
        yield Problem(
            code="CF205",
            what=f"{item.table}.{one.column} cannot be numbered: the table is declared WITHOUT ROWID.",
            why="SQLite numbers no rows of such a table.",
            instead="fill the key by the application: AddColumn(...), then DropPrimaryKey(...), AddPrimaryKey(...).",
        )
