"""All of pgroll's example migrations, told in own words, and the table of what Contraflow makes of them."""

from __future__ import annotations

import sys

from tests.operations.pgroll.early import EARLY
from tests.operations.pgroll.example import Example
from tests.operations.pgroll.late import LATE

EXAMPLES = (*EARLY, *LATE)


def _names(example: Example) -> str:
    if example.operations is None or example.problem:
        return ""
    return ", ".join(dict.fromkeys(f"`{type(operation).__name__}`" for operation in example.operations()))


def table() -> str:
    """The page's table, in Markdown."""
    verdicts = [example.verdict for example in EXAMPLES]
    counts = ", ".join(f"{verdicts.count(verdict)} *{verdict}*" for verdict in dict.fromkeys(verdicts))
    lines = [f"{len(EXAMPLES)} examples: {counts}.", "", "| example | what it does | verdict | by | why |"]
    lines.append("|---|---|---|---|---|")
    for example in EXAMPLES:
        reason = f"{example.reason} `{example.problem}`" if example.problem else example.reason
        cells = (f"`{example.name}`", example.title, f"*{example.verdict}*", _names(example), reason)
        lines.append(f"| {' | '.join(cells)} |".replace("|  |", "| |").replace("|  |", "| |"))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
