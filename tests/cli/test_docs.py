"""The pages about the command line say what it does: help texts, settings, and a tutorial whose commands are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from contraflow.alembic.settings import KEYS
from tests.cli.helptext import PAGE, commands, help_of, page

DOCS = PAGE.parent
TUTORIAL = DOCS / "tutorial.md"


def test_the_page_holds_the_help_of_every_command() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.cli.helptext"


@pytest.mark.parametrize("name", [name for name, _ in commands()])
def test_every_help_has_an_example_of_its_own_command(name: str) -> None:
    command = dict(commands())[name]
    _, _, examples = help_of(name, command).partition("Examples:")
    assert any(line.strip().startswith(name) for line in examples.splitlines())


def test_the_page_about_alembic_holds_every_setting() -> None:
    text = (DOCS / "alembic.md").read_text(encoding="utf-8")
    for key, meaning in KEYS.items():
        assert f"| `{key}` | {meaning} |" in text


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    kind: str
    caption: str
    text: str


def blocks(text: str) -> list[Block]:
    found = []
    for kind, caption, body in re.findall(
        r"^```(?:\{code-block\} )?(\w+)\n(?::caption: (\S+)\n\n)?(.*?)^```$", text, re.DOTALL | re.MULTILINE
    ):
        found.append(Block(kind, caption, body))
    return found


def steps(block: Block) -> list[tuple[str, list[str]]]:
    """The commands of a console block, each with the lines it is shown to print."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        else:
            found[-1][1].append(line)
    return found


def as_shown(lines: list[str]) -> re.Pattern[str]:
    """What the output must look like: `...` stands for any text, alone on a line for any lines."""
    pattern = ""
    for line in lines:
        if line == "...":
            pattern += r"(?:.*\n)*?"
        else:
            words = (re.escape(word).replace(r"\.\.\.", ".*") for word in line.split())
            pattern += r"[^\S\n]*" + r"[^\S\n]*".join(words) + r"[^\S\n]*\n"
    return re.compile(pattern)


def test_the_tutorials_commands_do_what_it_says(tmp_path: Path) -> None:
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    for name in ("CONTRAFLOW_URL", "ALEMBIC_CONFIG", "PYTHONWARNINGS"):
        environment.pop(name, None)
    ran = 0
    for block in blocks(TUTORIAL.read_text(encoding="utf-8")):
        if block.caption:
            (tmp_path / block.caption).write_text(block.text, encoding="utf-8")
        if block.kind != "console":
            continue
        for command, shown in steps(block):
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            ran += 1
            assert done.returncode == 0, f"$ {command}\n{done.stdout}"
            if shown:
                output = "".join(f"{line.rstrip()}\n" for line in done.stdout.splitlines() if line.strip())
                assert as_shown(shown).search(output), f"$ {command}\n{output}"
    assert ran >= 15
