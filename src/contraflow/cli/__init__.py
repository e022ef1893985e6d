"""The command line: ``contraflow``."""

from contraflow.cli.commands import main

__all__ = ["main"]
