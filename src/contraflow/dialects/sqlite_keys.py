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
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.remaining import key_is_due
from contraflow.installed import Installed
from contraflow.problems import Problem
from contraflow.steps import ChangeKey

__all__ = ["change", "problems"]

_RESERVED = "RESERVED (one writer at a time; readers go on in WAL mode)"
_COPY = f"{_RESERVED}, for as long as copying every row takes"


def change(step: ChangeKey, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements that make the table anew with the other key; none if it has that."""
    if not key_is_due(step, found):
        return []
    quote, rebuilt = compiler.quote, f"contraflow_rebuilt_{step.table}"
    table, copy = (compiler.table(name, step.schema) for name in (step.table, rebuilt))
    if found is None:
        create, columns, after = f"<the text of {table}, with the other key, named {copy}>", "<its columns>", []
    else:
        create = sqlite_text.named(_text(step, found), copy)
        columns = ", ".join(quote(name) for name in found.columns if name not in found.details["generated"])
        after = [_within(text, step.schema, compiler) for text in found.details["index_texts"]]
        after += [_within(text, step.schema, compiler) for text in found.triggers.values()]
    return [
        Statement(sql="PRAGMA legacy_alter_table = ON"),
        Statement(sql=create, lock=_RESERVED),
        Statement(sql=f"INSERT INTO {copy} ({columns}) SELECT {columns} FROM {table}", lock=_COPY),
        Statement(sql=f"DROP TABLE {table}", lock=_RESERVED),
        Statement(sql=f"ALTER TABLE {copy} RENAME TO {quote(step.table)}", lock=_RESERVED),
        Statement(sql="PRAGMA legacy_alter_table = OFF"),
        *(Statement(sql=text, lock=_COPY) for text in after),
    ]


def _within(text: str, schema: str | None, compiler: Compiler) -> str:
    """The text of an index or trigger, which SQLite keeps without the schema's name, for the table's schema."""
    if schema is None:
        return text
    return sqlite_text.placed(text, compiler.quote(schema))


def _text(step: ChangeKey, found: Found) -> str:
    text = sqlite_text.drop_primary(str(found.details["sql"]))
    if len(step.key.old) == 1 and found.details["types"][step.key.old[0]].upper() == "INTEGER":
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
    if not item.key.new and "WITHOUT" in sqlite_text.options(text):
        yield Problem(
            code="CF205",
            what=f"the primary key of {item.table} cannot be dropped.",
            why="the table is declared WITHOUT ROWID: its rows are stored by the key alone.",
            instead="let the change make another key: AddPrimaryKey(...).",
        )
