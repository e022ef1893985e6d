"""The commands' help as docs/cli.md shows it. `python -m tests.cli.helptext` writes it there."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from contraflow.cli.group import cli

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"
BEGIN = "<!-- The help of each command follows, written by tests/cli/helptext.py. -->\n"


def commands(command: click.Command = cli, name: str = "contraflow") -> Iterator[tuple[str, click.Command]]:
    """Every command with its full name."""
    yield name, command
    if isinstance(command, click.Group):
        for word, inner in command.commands.items():
            yield from commands(inner, f"{name} {word}")


def help_of(name: str, command: click.Command) -> str:
    """What `--help` prints on a terminal of 100 columns."""
    context = click.Context(command, info_name=name, terminal_width=100, help_option_names=["-h", "--help"])
    return command.get_help(context)


def section() -> str:
    """The part of the page that is written from the commands."""
    parts = [f"## {name}\n\n```text\n{help_of(name, command).rstrip()}\n```\n" for name, command in commands()]
    return BEGIN + "\n" + "\n".join(parts)


def page() -> str:
    """The page as it must be."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[0] + section()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
