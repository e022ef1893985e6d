"""Runs a file of SQL statements, such as a dump or a sample of real rows."""

from __future__ import annotations

import re
from collections.abc import Iterator

import sqlalchemy as sa

from contraflow.problems import Problem, ProblemError

__all__ = ["run_script", "statements"]

_PIECE = re.compile(
    r"""--[^\n]*          # a comment to the end of the line
    | /\*.*?\*/           # a comment
    | '(?:[^'\\]|''|\\.)*' | "(?:[^"]|"")*" | `[^`]*`   # quoted
    | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$                    # PostgreSQL's dollar quotes
    | ;
    | [^;'"`$/-]+ | .""",
    re.VERBOSE | re.DOTALL,
)


def statements(text: str) -> Iterator[str]:
    """The statements of a script; comments are left out, but not MySQL's executable ones."""
    present: list[str] = []
    for match in _PIECE.finditer(text):
        piece = match[0]
        if piece == ";":
            if statement := "".join(present).strip():
                yield statement
            present.clear()
        elif not piece.startswith("--") and (not piece.startswith("/*") or piece.startswith("/*!")):
            present.append(piece)
    if statement := "".join(present).strip():
        yield statement


def run_script(url: sa.URL, text: str) -> None:
    """Run every statement of a script, in one transaction where the server can.

    :raises ProblemError: CF205 with the statement that the server refuses.
    """
    engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
    with engine.begin() as connection:
        for statement in statements(text):
            try:
                connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            except sa.exc.DBAPIError as error:
                short = statement if len(statement) <= 200 else f"{statement[:200]}..."
                raise ProblemError(
                    Problem(
                        code="CF205",
                        what=f"the server refuses: {short}",
                        why=str(error.orig),
                        instead="give statements that the old release's schema takes: INSERT, in the order of foreign"
                        " keys; pg_dump --data-only --inserts, mysqldump --no-create-info --skip-add-locks.",
                    )
                ) from error
