#!/usr/bin/env python3
"""Write the table of faults into docs/faults.md; with --check only say whether it is there as it should be."""

from __future__ import annotations

import sys
from pathlib import Path

from contraflow import faults
from contraflow.faults import Fault
from contraflow.faults._codes import MYSQL, SQLITE, SQLSTATE, SQLSTATE_CLASS

PAGE = Path(__file__).parent.parent / "docs" / "faults.md"
BEGIN, END = "<!-- faults: made by tools/faults_table.py -->", "<!-- end of faults -->"


def table() -> str:
    """One row a fault."""
    classes = {found.declares: name for name, found in vars(faults).items() if getattr(found, "declares", None)}
    servers = "PostgreSQL, CockroachDB | MySQL, MariaDB | SQLite"
    lines = [
        f"| fault, exception | meaning | retried | loses the transaction | {servers} |",
        "|---|---|---|---|---|---|---|",
    ]
    for fault in Fault:
        sqlstates = [code for code, found in SQLSTATE.items() if found is fault]
        sqlstates += [f"{start}xxx" for start, found in SQLSTATE_CLASS.items() if found is fault]
        codes = [", ".join(str(code) for code, found in codes.items() if found is fault) for codes in (MYSQL, SQLITE)]
        lost = [
            name
            for name, server in (("PostgreSQL", "postgresql"), ("MySQL", "mysql"), ("SQLite", "sqlite"))
            if fault.loses_transaction(server)
        ]
        cells = [
            f"{fault.name} `{classes.get(fault, 'DatabaseFault')}`",
            fault.meaning,
            "yes" if fault.transient else "no",
            ", ".join(lost),
            ", ".join(sqlstates),
            *codes,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(check: bool) -> int:
    """0 if the page has the table (now)."""
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    wanted = f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"
    if not rest or not after:
        sys.stderr.write(f"{PAGE} has no place for the table\n")
        return 1
    if text != wanted and check:
        sys.stderr.write(f"{PAGE} is out of date: run tools/faults_table.py\n")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main("--check" in sys.argv[1:]))
