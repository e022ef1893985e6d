"""Imports point only downward: design of the package, kept by reading every module's import statements."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"

LAYERS: list[set[str]] = [
    {"problems"},
    {"constraints", "copies", "references", "lens", "opaque", "installed", "steps", "syncs", "expressions"},
    {"dialects"},
    {"operations"},
    {"engine"},
    {"alembic"},
    {"rehearsal"},
    {"integrations"},
    {"cli"},
    {"install", "writer", ""},  # what an application calls once, and contraflow/__init__.py: the flat public API
]
"""Parts of the package from the bottom up; a part imports from its own layer and those below it."""

APART: dict[str, set[str]] = {
    "faults": {"problems"},
    "retry": {"problems", "faults"},
}
"""Parts that application code may use alone, and all that they may import. Everybody above may import them."""

FORBIDDEN: dict[str, set[str]] = {
    "operations": {"dialects"},  # they plan steps, and are blind to who carries them out
    "dialects": {"operations"},
}
"""What is forbidden besides."""


def part(module: str) -> str:
    """The part of the package that ``module`` belongs to; empty for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports(source: str, module: str, is_package: bool) -> Iterator[str]:
    """Every module of this package that the source of ``module`` imports, wherever in the file."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.split(".")[0] == "contraflow")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".")[: -node.level if not is_package else 1 - node.level or None]
                base = ".".join([*parents, *([base] if base else [])])
            if base == "contraflow":
                # A part is imported from the package (`from contraflow import faults`), or a name of its API.
                yield from (f"contraflow.{alias.name}" if is_part(alias.name) else base for alias in node.names)
            elif base.startswith("contraflow."):
                yield base


def is_part(name: str) -> bool:
    return name in APART or any(name in layer for layer in LAYERS)


def level(name: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if name in layer)


def objection(importer: str, imported: str) -> str | None:
    """Why the part ``importer`` may not import the part ``imported``, None if it may."""
    if importer == imported:
        return None
    if importer in APART:
        return None if imported in APART[importer] else f"it stands alone, beside {sorted(APART[importer])}"
    if imported in FORBIDDEN.get(importer, ()):
        return "the two must not know each other"
    if imported in APART:
        return None
    return "that is upward" if level(imported) > level(importer) else None


def modules() -> list[Path]:
    return sorted((SOURCE / "contraflow").rglob("*.py"))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(SOURCE)))
def test_module_imports_only_downward(path: Path) -> None:
    is_package = path.name == "__init__.py"
    parts = path.relative_to(SOURCE).with_suffix("").parts
    module = ".".join(parts[:-1] if is_package else parts)
    importer = part(module)
    wrong = [
        f"{module} imports {imported}: {reason}"
        for imported in imports(path.read_text(encoding="utf-8"), module, is_package)
        if (reason := objection(importer, part(imported)))
    ]
    assert wrong == []


def test_every_part_is_in_a_layer() -> None:
    found = {part(".".join(path.relative_to(SOURCE).with_suffix("").parts)) for path in modules()} - {"__init__"}
    assert {name for name in found if not is_part(name)} == set()


@pytest.mark.parametrize(
    ("importer", "imported", "allowed"),
    [
        ("operations", "steps", True),
        ("operations", "dialects", False),
        ("dialects", "operations", False),
        ("dialects", "engine", False),
        ("engine", "faults", True),
        ("retry", "faults", True),
        ("faults", "lens", False),
        ("faults", "problems", True),
        ("problems", "lens", False),
        ("cli", "", False),
        ("", "cli", True),
    ],
)
def test_rules_mean_what_they_say(importer: str, imported: str, allowed: bool) -> None:
    assert (objection(importer, imported) is None) is allowed


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import contraflow.cli", ["contraflow.cli"]),
        ("from contraflow import faults, Change", ["contraflow.faults", "contraflow"]),
        ("from . import base", ["contraflow.dialects"]),
        ("from .. import cli", ["contraflow.cli"]),
        ("from ..engine.journal import Journal", ["contraflow.engine.journal"]),
        ("def f():\n    from contraflow.cli import main", ["contraflow.cli"]),
        ("import sqlalchemy.dialects\nfrom contraflower import x", []),
    ],
)
def test_imports_are_found(source: str, found: list[str]) -> None:
    assert list(imports(source, "contraflow.dialects.mysql", is_package=False)) == found


def test_imports_of_a_package_are_relative_to_itself() -> None:
    assert list(imports("from . import base", "contraflow.dialects", is_package=True)) == ["contraflow.dialects"]
    assert list(imports("from ..cli import main", "contraflow.dialects", is_package=True)) == ["contraflow.cli"]
