"""A runner in a process of its own, which stops dead before a chosen statement and waits to be killed.

Arguments: the database's URL, the verb, and the beginning of the statement, with how many of its kind to let pass.
"""

from __future__ import annotations

import sys
import time

import sqlalchemy as sa

from contraflow.dialects.base import Statement
from tests.engine import service


def main(url: str, verb: str, beginning: str, pass_by: int) -> None:
    """Run ``verb`` up to the statement, say so, and wait."""
    seen = 0

    def before(statement: Statement) -> None:
        nonlocal seen
        if statement.sql.lstrip().startswith(beginning):
            seen += 1
            if seen > pass_by:
                sys.stdout.write("here\n")
                sys.stdout.flush()
                time.sleep(600)

    with service.runner(sa.make_url(url), service.upgrade(tables=("users",)), before_statement=before) as runner:
        getattr(runner, verb)()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
