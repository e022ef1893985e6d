"""The command line: ``contraflow``."""

from contraflow.cli.entry import main

__all__ = ["main"]
