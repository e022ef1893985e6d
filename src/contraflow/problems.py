"""Problems: the obstacles Contraflow reports, each with what, why and the way out.

Exceptions raised by the library form one tree::

    ContraflowError
    ├── ProblemError        one or more problems: nothing was begun, or nothing is half done
    └── Interrupted         the runner was asked to stop; the journal says how to go on
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = ["CODES", "ContraflowError", "Interrupted", "Problem", "ProblemError"]

CODES: dict[str, str] = {
    # CF0xx: the state of an upgrade
    "CF001": "another runner holds the lock",
    "CF002": "a revision changed after it was expanded",
    "CF003": "the journal was written by a newer Contraflow",
    "CF004": "the phase is not possible from the present state",
    "CF005": "an earlier upgrade is not contracted yet",
    "CF006": "a lock could not be had in time",
    "CF007": "an upgrade grew after the new release may have written",
    "CF008": "the installed sync differs from the journal",
    "CF009": "the server refused a statement",
    "CF012": "rows differ between the two sides",
    "CF013": "a NULL stands where the new schema forbids it",
    "CF014": "rows are alike where the new schema wants them unique",
    "CF015": "rows do not fit the old type any more",
    "CF016": "rows violate a constraint that the new schema has",
    # CF1xx: declarations
    "CF101": "unknown table, column, index or constraint",
    "CF102": "the lens names a column it does not declare",
    "CF103": "the expression is not portable",
    "CF104": "two functions write one column",
    "CF105": "mixed winners in one group",
    "CF106": "an INSERT is undecidable",
    "CF107": "the lens is not total",
    "CF108": "the lens does not round-trip",
    "CF109": "the image is not injective under a unique constraint",
    "CF110": "a generated column cannot be a target",
    "CF111": "the column is held by a constraint or an index",
    "CF112": "the column exists already",
    "CF113": "a column changes its type under its own name",
    "CF114": "fill once or keep tracking",
    "CF115": "a non-deterministic lens has no exact inverse",
    "CF116": "the declaration is incomplete or contradicts itself",
    "CF117": "the index or constraint exists already",
    "CF118": "the name is too long for the server",
    "CF119": "prepared statements of the old release would fail",
    "CF120": "the table's name is taken",
    "CF121": "a foreign key could refuse the other release's deletes",
    "CF122": "a routine names what contract drops or renames",
    # CF2xx: servers
    "CF201": "the server cannot be reached",
    "CF202": "a privilege is missing",
    "CF203": "the server is too old or not supported",
    "CF204": "the driver is not installed",
    "CF205": "the server's settings make a phase unsafe",
    "CF206": "a server program is missing and cannot be installed",
    "CF207": "a scratch server does not start",
    "CF208": "the server was not started here",
    "CF209": "a fault cannot strike on this server",
    # CF3xx: configuration and Alembic
    "CF301": "no configuration or database URL was found",
    "CF302": "the revisions cannot be planned as one upgrade",
    "CF303": "a contracted upgrade cannot be downgraded",
    "CF304": "SQL output needs a recorded server profile",
    "CF305": "the database is not at the upgrade's starting revision",
    "CF306": "the migration environment keeps its transaction to itself",
    "CF307": "the configuration is not valid",
    # CF4xx: nodes
    "CF401": "nodes of the other release are alive",
    "CF402": "no such node",
    # CF5xx: notices, which refuse nothing: what a server imposes on statements while an upgrade lasts
    "CF501": "a prepared SELECT * fails once",
    "CF502": "an INSERT that names no columns fails",
    "CF503": "one statement may not use both tables",
    "CF504": "transactions may deadlock",
    "CF505": "a schema change aborts open transactions",
    "CF506": "a snapshot is older than the table's definition",
    "CF507": "an INSERT ... SELECT is checked before its triggers",
    "CF508": "writers wait while a table is copied",
}
"""Every problem code and its title. Codes are stable: they are never reused or renumbered."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One obstacle: stable ``code``, ``what`` happened, ``why`` it matters, what to do ``instead``."""

    code: str
    what: str
    why: str = ""
    instead: str = ""

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise ValueError(f"unknown problem code {self.code!r}")

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.what}"]
        for label, text in (("why", self.why), ("do", self.instead)):
            if text:
                first, *rest = text.splitlines()
                lines.append(f"  {label + ':':<5}{first}")
                lines.extend(f"       {line}" for line in rest)
        return "\n".join(lines)

    def as_dict(self) -> dict[str, str]:
        """The problem as plain data, for ``--json``."""
        return {"code": self.code, "what": self.what, "why": self.why, "instead": self.instead}


class ContraflowError(Exception):
    """Base of every exception that Contraflow raises on purpose."""


class ProblemError(ContraflowError):
    """Raised when something cannot be done; ``problems`` says what, why and what to do instead."""

    def __init__(self, *problems: Problem) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))

    @classmethod
    def raise_any(cls, problems: Iterable[Problem]) -> None:
        """Raise one ``ProblemError`` for all ``problems``; return if there are none."""
        found = tuple(problems)
        if found:
            raise cls(*found)


class Interrupted(ContraflowError):
    """Raised between two statements after a stop was requested; the same verb resumes the work."""
