"""The page about rehearsals names what there is."""

from __future__ import annotations

import typing
from pathlib import Path

import pytest

from contraflow.rehearsal import plugin
from contraflow.rehearsal.faults import KINDS
from contraflow.rehearsal.record import FindingKind

PAGE = (Path(__file__).parents[2] / "docs" / "rehearse.md").read_text(encoding="utf-8")


def test_every_kind_of_fault_is_on_the_page() -> None:
    rows = [f"| `{kind.name}` | {kind.title} |" for kind in KINDS.values()]
    assert [row for row in rows if row not in PAGE] == []


def test_everything_that_can_be_found_is_on_the_page() -> None:
    assert [kind for kind in typing.get_args(FindingKind) if f"| `{kind}` |" not in PAGE] == []


def test_every_option_of_the_plugin_is_on_the_page() -> None:
    parser = pytest.Parser(_ispytest=True)
    plugin.pytest_addoption(parser)
    names = [name for group in parser._groups for option in group.options for name in option.names()]
    assert len(names) == 5
    assert [name for name in names if f"`{name} " not in PAGE] == []
