"""Foreign keys and checks as SQL: alike on every server."""

from __future__ import annotations

from contraflow.constraints import Check, Constraint
from contraflow.dialects.compiler import Compiler

__all__ = ["clause", "violating"]


def clause(constraint: Constraint, compiler: Compiler) -> str:
    """What stands behind ADD, or in a CREATE TABLE."""
    quote = compiler.quote
    named = f"CONSTRAINT {quote(constraint.name)} " if constraint.name else ""
    if isinstance(constraint, Check):
        return f"{named}CHECK ({constraint.text})"
    target = compiler.table(constraint.target, constraint.target_schema)
    columns, targets = (", ".join(map(quote, names)) for names in (constraint.columns, constraint.target_columns))
    parts = [f"{named}FOREIGN KEY ({columns}) REFERENCES {target} ({targets})"]
    if constraint.ondelete:
        parts.append(f"ON DELETE {constraint.ondelete}")
    if constraint.onupdate:
        parts.append(f"ON UPDATE {constraint.onupdate}")
    if constraint.deferrable:
        parts.append(f"DEFERRABLE INITIALLY {'DEFERRED' if constraint.deferred else 'IMMEDIATE'}")
    return " ".join(parts)


def violating(table: str, schema: str | None, constraint: Constraint, compiler: Compiler) -> str:
    """What stands behind FROM to get the rows of the table, called ``contraflow_row``, that violate the constraint."""
    quote = compiler.quote
    rows = f"{compiler.table(table, schema)} contraflow_row"
    if isinstance(constraint, Check):
        return f"{rows} WHERE NOT ({constraint.text})"
    given = [f"contraflow_row.{quote(name)} IS NOT NULL" for name in constraint.columns]
    same = [
        f"contraflow_target.{quote(target)} = contraflow_row.{quote(name)}"
        for name, target in zip(constraint.columns, constraint.target_columns, strict=True)
    ]
    target = f"{compiler.table(constraint.target, constraint.target_schema)} contraflow_target"
    return f"{rows} WHERE {' AND '.join(given)} AND NOT EXISTS (SELECT 1 FROM {target} WHERE {' AND '.join(same)})"
