"""Values of enumerated types, added without reading a row."""

from __future__ import annotations

import re

from contraflow.dialects.base import Found, Statement
from contraflow.dialects.compiler import Compiler, plain_literal
from contraflow.dialects.mysql_text import declared_type, retyped
from contraflow.dialects.remaining import require
from contraflow.steps import ExtendEnums

__all__ = ["mysql_labels", "postgresql_labels"]

_LABEL = re.compile(r"'((?:[^'\\]|\\.|'')*)'")


def postgresql_labels(step: ExtendEnums, found: Found | None, compiler: Compiler) -> list[Statement]:
    """One statement a value, each for good (https://www.postgresql.org/docs/current/sql-altertype.html)."""
    standing = {} if found is None else found.details["labels"]
    sent = []
    for one in step.labels:
        add = f"ALTER TYPE {compiler.table(one.type_name, one.type_schema)} ADD VALUE IF NOT EXISTS"
        missing = (value for value in one.values if value not in standing.get(one.column, ()))
        sent += [Statement(sql=f"{add} {plain_literal(value)}") for value in missing]
    return sent


def mysql_labels(step: ExtendEnums, found: Found | None, compiler: Compiler) -> list[Statement]:
    """One statement for all columns of the table, which the server refuses if it would read a row.

    (MySQL manual, InnoDB, Online DDL Operations, "Modifying the definition of an ENUM or SET column")
    """
    parts = []
    for one in step.labels:
        added = [value.replace("\\", "\\\\").replace("'", "''") for value in one.values]
        name = compiler.quote(one.column)
        if found is None:
            listed = ", ".join(f"'{value}'" for value in added)
            parts.append(f"MODIFY COLUMN {name} enum(<its values>, {listed}) <the rest as it is>")
            continue
        require(found, step.table, [one.column])
        labels = _LABEL.findall(declared_type(found.details["create"], one.column))
        if missing := [value for value in added if value not in labels]:
            listed = ",".join(f"'{value}'" for value in (*labels, *missing))
            parts.append(f"MODIFY COLUMN {name} {retyped(found.details['create'], one.column, f'enum({listed})')}")
    if not parts:
        return []
    sql = f"ALTER TABLE {compiler.table(step.table, step.schema)} {', '.join(parts)}, ALGORITHM=INSTANT"
    return [Statement(sql=sql, lock="EXCLUSIVE metadata lock, ALGORITHM=INSTANT")]
