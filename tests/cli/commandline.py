"""Running the command line within the test's process."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from contraflow.cli import main


@dataclass(frozen=True, kw_only=True)
class Done:
    """What one command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The JSON document; fails if stdout holds anything else."""
        document = json.loads(self.out)
        assert isinstance(document, dict)
        return document

    @property
    def codes(self) -> list[str]:
        """The codes of the problems that were printed as JSON."""
        return [problem["code"] for problem in self.document["problems"]]


def contraflow(*arguments: object) -> Done:
    """`contraflow arguments...`"""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as end:
            code = int(end.code or 0)
    return Done(code=code, out=out.getvalue(), err=err.getvalue())
