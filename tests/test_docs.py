"""The documentation keeps up with the code."""

from __future__ import annotations

import re
from pathlib import Path

from contraflow.problems import CODES

DOCS = Path(__file__).parents[1] / "docs"


def sections(page: Path) -> dict[str, str]:
    """Heading and text of each second-level section."""
    _, *parts = re.split(r"^## ", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {heading.strip(): text.strip() for heading, _, text in (part.partition("\n") for part in parts)}


def test_every_problem_has_its_section_and_no_other_has() -> None:
    found = sections(DOCS / "problems.md")
    assert list(found) == [f"{code}: {title}" for code, title in CODES.items()]


def test_every_problem_is_explained() -> None:
    short = [heading for heading, text in sections(DOCS / "problems.md").items() if len(text.split()) < 20]
    assert short == []
