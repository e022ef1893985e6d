"""The flat API: every name is there, and nothing is loaded before it is used."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

import contraflow

SOURCE = Path(contraflow.__file__)


def declared() -> dict[str, str]:
    """What type checkers and editors are told: each name, and the module it comes from."""
    block = next(node for node in ast.parse(SOURCE.read_text()).body if isinstance(node, ast.If))
    found = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in found for alias in node.names}


def test_every_name_is_what_type_checkers_are_told() -> None:
    assert sorted(declared()) == sorted(contraflow.__all__)
    for name, module in declared().items():
        assert getattr(contraflow, name) is getattr(importlib.import_module(module), name)
    assert set(contraflow.__all__) <= set(dir(contraflow))


def test_a_name_that_is_not_there_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        contraflow.Nothing  # noqa: B018 - that it raises is the point


@pytest.mark.parametrize("name", ["retry", "install"])
def test_a_function_named_like_its_module_stays_a_function(name: str) -> None:
    code = f"import contraflow.{name}, contraflow; from contraflow import {name}; print(callable({name}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True"]
    assert isinstance(importlib.import_module(f"contraflow.{name}"), ModuleType)


@pytest.mark.parametrize(
    ("statement", "left_out"),
    [
        ("import contraflow.rehearsal.plugin", "sqlalchemy"),
        ("from contraflow import retry", "alembic"),
        ("from contraflow import retry", "contraflow.engine"),
    ],
)
def test_what_is_not_used_is_not_loaded(statement: str, left_out: str) -> None:
    code = f"{statement}; import sys; print({left_out!r} in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]
