"""The page of the twelve cases names the tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "keystone.md"


def test_the_page_names_every_case_and_its_test() -> None:
    rows = re.findall(r"^\| ([A-L]) \|.*\|([^|]*)\|$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert [case for case, _ in rows] == list("ABCDEFGHIJKL")
    named = {test: case for case, cell in rows for test in re.findall(r"`(test_\w+)`", cell)}
    cases = {path.stem: path.stem[5].upper() for path in HERE.glob("test_*.py") if path.stem[6] == "_"}
    assert named == cases
