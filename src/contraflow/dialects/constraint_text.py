"""Foreign keys and checks as SQL, alike on every server; and PostgreSQL's exclusion constraints."""

from __future__ import annotations

from contraflow.constraints import Check, Constraint, Exclusion
from contraflow.dialects.compiler import Compiler

__all__ = ["clause", "violated", "violating"]


def clause(constraint: Constraint, compiler: Compiler) -> str:
    """What stands behind ADD, or in a CREATE TABLE."""
    quote = compiler.quote
    if isinstance(constraint, Exclusion):
        compared = ", ".join(
            f"{quote(one) if one in constraint.columns else f'({one})'} WITH {operator}"
            for one, operator in constraint.elements
        )
        where = f" WHERE ({constraint.where})" if constraint.where else ""
        return f"CONSTRAINT {quote(constraint.name)} EXCLUDE USING {constraint.using} ({compared}){where}"
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
    if isinstance(constraint, Exclusion):
        return _excluded(compiler.table(table, schema), constraint, compiler)
    return f"{compiler.table(table, schema)} contraflow_row WHERE {violated('contraflow_row', constraint, compiler)}"


def violated(row: str, constraint: Constraint, compiler: Compiler) -> str:
    """The condition, over the table's own row, under which it violates a check or a foreign key.

    ``row`` is the name of the table, or what it is called in its place. Raises ``TypeError`` for an exclusion
    constraint: no row violates one by itself.
    """
    quote = compiler.quote
    if isinstance(constraint, Check):
        return f"NOT ({constraint.text})"
    if isinstance(constraint, Exclusion):
        raise TypeError(f"{constraint.title} is violated by two rows")
    given = [f"{quote(row)}.{quote(name)} IS NOT NULL" for name in constraint.columns]
    same = [
        f"contraflow_target.{quote(target)} = {quote(row)}.{quote(name)}"
        for name, target in zip(constraint.columns, constraint.target_columns, strict=True)
    ]
    target = f"{compiler.table(constraint.target, constraint.target_schema)} contraflow_target"
    return f"{' AND '.join(given)} AND NOT EXISTS (SELECT 1 FROM {target} WHERE {' AND '.join(same)})"


def _excluded(table: str, constraint: Exclusion, compiler: Compiler) -> str:
    """The rows that another one excludes."""
    values = "".join(
        f", {compiler.quote(one) if one in constraint.columns else f'({one})'} AS contraflow_{place}"
        for place, (one, _) in enumerate(constraint.elements)
    )
    where = f" WHERE {constraint.where}" if constraint.where else ""
    rows = f"(SELECT *, ctid AS contraflow_place{values} FROM {table}{where})"
    alike = [
        f"contraflow_row.contraflow_{place} {operator} contraflow_other.contraflow_{place}"
        for place, (_, operator) in enumerate(constraint.elements)
    ]
    other = ["contraflow_other.contraflow_place <> contraflow_row.contraflow_place", *alike]
    return f"{rows} contraflow_row WHERE EXISTS (SELECT 1 FROM {rows} contraflow_other WHERE {' AND '.join(other)})"
