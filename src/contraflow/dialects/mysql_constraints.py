"""Foreign keys and checks of MySQL and MariaDB.

Measured on MySQL 9.7 and MariaDB 10.11: with ``foreign_key_checks`` off a foreign key is added in place beside writers,
without a look at the rows; both drop foreign keys and checks without reading a row, under LOCK TABLES too. A check is
added by copying the table only (error 1845), and MySQL's NOT ENFORCED is no way round: enforcing it copies as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from contraflow.constraints import Check, Constraint, ForeignKey
from contraflow.dialects.base import Found, Statement
from contraflow.dialects.compiler import Compiler
from contraflow.dialects.constraint_text import clause
from contraflow.dialects.mysql_text import redefined
from contraflow.dialects.remaining import Remaining, require
from contraflow.installed import Installed
from contraflow.problems import Problem
from contraflow.steps import AllowNull, BuildConstraint

__all__ = ["allow_null", "build", "drop", "find", "problems"]

_ONLINE = (
    "SHARED_UPGRADABLE metadata lock, EXCLUSIVE metadata lock for a moment at both ends;"
    " ALGORITHM=INPLACE, LOCK=NONE (writers go on)"
)
_COPY = "SHARED_NO_WRITE metadata lock: writers wait while the table is copied"


def find(connection: sa.Connection, table: str, schema: str | None) -> dict[str, Any]:
    """The names of the table's foreign keys and checks, and the indexes that the server made for a key by itself.

    Such an index has the columns of the key, and its name, or that of its first column if the key was given none.
    """
    name = {"table": table, "schema": schema}
    here = "table_schema = coalesce(:schema, database()) AND table_name = :table"
    names = connection.execute(
        sa.text(
            "SELECT constraint_name FROM information_schema.table_constraints"
            f" WHERE {here} AND constraint_type IN ('FOREIGN KEY', 'CHECK')"
        ),
        name,
    ).scalars()
    keys = _grouped(
        connection.execute(
            sa.text(
                "SELECT constraint_name, column_name FROM information_schema.key_column_usage"
                f" WHERE {here} AND referenced_table_name IS NOT NULL ORDER BY constraint_name, ordinal_position"
            ),
            name,
        ).all()
    )
    indexes = _grouped(
        connection.execute(
            sa.text(
                "SELECT index_name, column_name FROM information_schema.statistics"
                f" WHERE {here} AND non_unique = 1 AND column_name IS NOT NULL ORDER BY index_name, seq_in_index"
            ),
            name,
        ).all()
    )
    firsts = [columns[0] for columns in keys.values()]
    made = {
        key: index
        for key, columns in keys.items()
        for index in (key, columns[0])
        if indexes.get(index) == columns and firsts.count(columns[0]) == 1
    }
    return {"constraints": {str(name): True for name in sorted(names)}, "key_indexes": made}


def _grouped(rows: Sequence[Any]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, column in rows:
        found.setdefault(str(name), []).append(str(column))
    return found


def build(step: BuildConstraint, found: Found | None, compiler: Compiler) -> list[Statement]:
    """The statements that make a constraint; none if it stands."""
    constraint = step.constraint
    if found is not None:
        require(found, step.table, constraint.columns)
        if constraint.name in found.details["constraints"]:
            return []
    add = f"ALTER TABLE {compiler.table(step.table, step.schema)} ADD {clause(constraint, compiler)}"
    if isinstance(constraint, Check):
        return [Statement(sql=f"{add}, ALGORITHM=COPY, LOCK=SHARED", lock=_COPY)]
    return [
        Statement(sql="SET SESSION foreign_key_checks = 0"),
        Statement(sql=f"{add}, ALGORITHM=INPLACE, LOCK=NONE", lock=_ONLINE),
        Statement(sql="SET SESSION foreign_key_checks = DEFAULT"),
    ]


def allow_null(step: AllowNull, found: Found | None, compiler: Compiler, *, copies: bool) -> list[Statement]:
    """The statement that lets columns hold NULLs, which rebuilds the table beside the writers, or ``copies`` it."""
    if found is not None:
        require(found, step.table, step.names)
    parts = []
    for name in step.names:
        if found is None:
            parts.append(f"MODIFY COLUMN {compiler.quote(name)} <its definition> NULL")
        elif not found.columns[name]:
            definition = redefined(found.details["create"], name, not_null=False, default=None)
            parts.append(f"MODIFY COLUMN {compiler.quote(name)} {definition}")
    if not parts:
        return []
    sql = f"ALTER TABLE {compiler.table(step.table, step.schema)} {', '.join(parts)}"
    if copies:
        return [Statement(sql=sql, lock=_COPY)]
    return [Statement(sql=f"{sql}, ALGORITHM=INPLACE, LOCK=NONE", lock=_ONLINE)]


def drop(work: Remaining, found: Found | None, compiler: Compiler) -> list[Statement]:
    """Drop constraints in a hold, with the indexes that the server made for them."""
    parts: list[str] = []
    for constraint in work.drop_constraints:
        name = str(constraint.name)
        if isinstance(constraint, Check):
            parts.append(f"DROP CONSTRAINT {compiler.quote(name)}")
            continue
        parts.append(f"DROP FOREIGN KEY {compiler.quote(name)}")
        index = name if found is None else found.details["key_indexes"].get(name)
        if index is not None:
            parts.append(f"DROP INDEX {compiler.quote(index)}")
    if not parts:
        return []
    sql = f"ALTER TABLE {compiler.table(work.table, work.schema)} {', '.join(parts)}, ALGORITHM=INPLACE"
    return [Statement(sql=sql, lock="EXCLUSIVE metadata lock, ALGORITHM=INPLACE (no rows are read)")]


def problems(
    connection: sa.Connection, item: Installed, types: Mapping[str, sa.types.TypeEngine[Any]], compiler: Compiler
) -> Iterator[Problem]:
    """What the server would refuse, at a time when it would be too late to know."""
    for constraint in item.constrained:
        yield from _name_taken(connection, item, constraint)
        if isinstance(constraint, Check):
            if not constraint.copies:
                yield Problem(
                    code="CF205",
                    what=f"{constraint.name} cannot be added to {item.table} beside writers.",
                    why="MySQL and MariaDB copy the table to add a check, and writers wait for that long (error 1845).",
                    instead="for a small table, accept the wait: AddCheck(..., copies=True);"
                    "\nor let the application check, or declare the check on a new table.",
                )
        elif isinstance(constraint, ForeignKey):
            yield from _key_problems(connection, item, constraint, types, compiler)


def _name_taken(connection: sa.Connection, item: Installed, constraint: Constraint) -> Iterator[Problem]:
    table = connection.execute(
        sa.text(
            "SELECT table_name FROM information_schema.table_constraints WHERE constraint_name = :name"
            " AND constraint_type IN ('FOREIGN KEY', 'CHECK') AND table_name <> :table"
            " AND constraint_schema = coalesce(:schema, database())"
        ),
        {"name": constraint.name, "table": item.table, "schema": item.schema},
    ).scalar()
    if table is not None:
        yield Problem(
            code="CF117",
            what=f"the table {table} has a constraint {constraint.name} already.",
            why="foreign keys and checks of one database share their names here.",
            instead="choose another name for the new one.",
        )


def _key_problems(
    connection: sa.Connection,
    item: Installed,
    key: ForeignKey,
    types: Mapping[str, sa.types.TypeEngine[Any]],
    compiler: Compiler,
) -> Iterator[Problem]:
    if key.deferrable or "SET DEFAULT" in (key.ondelete, key.onupdate):
        yield Problem(
            code="CF205",
            what=f"{key.name} is {'deferrable' if key.deferrable else 'SET DEFAULT'}, which InnoDB does not have.",
            why="it checks each row at once, and knows CASCADE, SET NULL, RESTRICT and NO ACTION only.",
            instead="declare it without.",
        )
    targets = {
        column["name"]: column["type"]
        for column in sa.inspect(connection).get_columns(key.target, schema=key.target_schema)
    }
    for name, target in zip(key.columns, key.target_columns, strict=True):
        # A target column of the same upgrade is left to the server.
        one, other = (_integer(compiler.type_text(type_)) for type_ in (types[name], targets.get(target, types[name])))
        if one != other:
            yield Problem(
                code="CF205",
                what=f"{item.table}.{name} cannot refer to {key.target}.{target}: their types differ.",
                why="InnoDB wants integers of one size and sign on both sides of a foreign key.",
                instead=f"give {name} the type of {key.target}.{target}.",
            )


def _integer(type_text: str) -> str:
    """The type, if it is an integer, by its one name; empty for others, which the server itself compares."""
    text = re.sub(r"\(\d+\)", "", type_text.upper()).replace("INTEGER", "INT")
    return text if re.fullmatch(r"(TINY|SMALL|MEDIUM|BIG)?INT( UNSIGNED)?( ZEROFILL)?", text) else ""
