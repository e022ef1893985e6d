"""The page about the operators of others names operations and tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

import contraflow

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "operators.md"
OPERATORS = {"BiDEL": 14, "PRISM++": 9, "reshape": 10}
"""The rows of each table."""


def rows(heading: str) -> list[list[str]]:
    _, *sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    (text,) = (section for section in sections if section.startswith(f"{heading}\n"))
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def test_every_operator_is_answered() -> None:
    for heading, number in OPERATORS.items():
        found = rows(heading)
        assert len(found) == number
        for operator, by, test in found:
            operations = re.findall(r"`(\w+)`", by)
            assert all(hasattr(contraflow, operation) for operation in operations), operator
            assert bool(operations) is bool(test), operator
            assert operations or by in ("as above", "a plain revision", "refused, see below"), operator


def test_every_test_is_there() -> None:
    named = re.findall(r"`(tests/\S+\.py)::(test_\w+)`", PAGE.read_text(encoding="utf-8"))
    assert len(named) > sum(OPERATORS.values()) / 2
    for path, test in named:
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"
