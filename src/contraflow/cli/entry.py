"""The way in and out: a problem, Ctrl-C or a traceback becomes what a person and a program understand."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click

from contraflow.cli import commands, scratch  # noqa: F401 - each command joins the group, in this order
from contraflow.cli.group import cli
from contraflow.cli.output import Output
from contraflow.cli.session import Common, without_reflection_warnings
from contraflow.problems import Interrupted, ProblemError

__all__ = ["main"]

INTERRUPTED = 130
"""The exit code after Ctrl-C, as a shell has it: 128 + SIGINT."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line: the console script ``contraflow``. Exits with 0, 1 (an error) or 130 (stopped).

    ``status --check`` has exit codes of its own.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    common = Common(as_json="--json" in given)
    output = Output(as_json=common.as_json)
    try:
        with without_reflection_warnings():
            cli.main(given, prog_name="contraflow", standalone_mode=False, obj=common)
    except ProblemError as error:
        output.problems(error.problems)
        sys.exit(1)
    except (Interrupted, KeyboardInterrupt, click.Abort):
        _stopped(output, common, given)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        # 2, click's own code for wrong usage, would mean "expand is due" to a caller of status --check.
        if output.as_json:
            output.answer({"ok": False, "error": error.format_message()})
        else:
            error.show(file=sys.stderr)
        sys.exit(1)
    except Exception as error:
        # Of env.py or of a revision, whose author needs the traceback; or ours. A program gets its document.
        if output.as_json:
            output.answer({"ok": False, "error": f"{type(error).__name__}: {error}"})
        raise


def _stopped(output: Output, common: Common, given: Sequence[str]) -> None:
    """Say how to go on. The URL is left out: it may hold a password."""
    verb = next((word for word in given if word in cli.commands), "")
    words = ["contraflow", *(["-c", common.config] if common.config else []), verb]
    resume = " ".join(word for word in words if word)
    if output.as_json:
        output.answer({"ok": False, "interrupted": True, "resume": resume})
    else:
        output.note(f"stopped; nothing is half done. Go on with: {resume}")
