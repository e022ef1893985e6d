"""Trigger functions of PostgreSQL that look at, or write, more than their own table."""

from __future__ import annotations

from collections.abc import Sequence

from contraflow.dialects.compiler import Compiler, plain_literal

__all__ = ["definer_function", "natural_lock", "quoted_body"]


def quoted_body(lines: Sequence[str]) -> str:
    """The body in dollar quotes that do not occur in it."""
    body = "\n".join(lines)
    tag = "$contraflow$"
    while tag in body:
        tag = f"{tag[:-1]}_$"
    return f"{tag}\n{body}\n{tag}"


def definer_function(compiler: Compiler, name: str, schema: str | None, lines: Sequence[str]) -> str:
    """The statement that creates a trigger function which has its owner's rights.

    The application's role may have no rights on a table that its release does not know. ``schema`` is where names
    without one are found.
    """
    path = ", ".join(["pg_catalog", *([compiler.quote(schema)] if schema else []), "pg_temp"])
    return (
        f"CREATE FUNCTION {compiler.table(name, schema)}() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER"
        f" SET search_path = {path} AS {quoted_body(lines)}"
    )


def natural_lock(table: str, values: Sequence[str]) -> str:
    """The number of an advisory lock for rows of the table with this natural key, there or not."""
    name = plain_literal(f"contraflow {table}")
    texts = ", ".join(f"CAST({value} AS text)" for value in values)
    return f"hashtextextended(concat_ws(chr(31), {name}, {texts}), 0)"
