"""Opaque lenses: two sets of columns that only Python can compute from each other.

A blob that is encrypted with a key which the application alone holds is the standing example. No trigger can compute
it, so the parts are shared out: the database *notices* when one side was written without the other, Python *computes*.
Pure values: nothing here opens a connection or knows a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from contraflow.problems import Problem, ProblemError

__all__ = ["Opaque"]

Values = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Opaque:
    """How the ``old`` columns and the ``new`` ones are computed from each other, by Python functions over values.

    ``forward`` receives the values of the old columns and gives one for each new column, ``backward`` the other way
    round: plain Python values, not expressions. Both are called by whoever runs ``migrate`` and by the new release's
    nodes, so both must be able to import what they need (keys, libraries). ``forward`` need not give the same answer
    twice (a random nonce), but ``backward`` must undo every answer, unless ``lossy`` accepts the loss (``CF108``).

    What is stored of the functions is their names: a change of what they do is not noticed by ``CF002``.

    ``lock`` refuses every write of the old release to the old columns from expand on: an explicit write lock, for data
    that must not be written in the old form any more. Without it the old release goes on writing, and the rows it wrote
    are computed by ``migrate``.

    Raises :class:`~contraflow.problems.ProblemError` with ``CF116`` when the declaration is not valid.
    """

    old: Sequence[str]
    new: Sequence[str]
    forward: Callable[[Values], Values]
    backward: Callable[[Values], Values]
    lossy: bool = False
    lock: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "old", tuple(self.old))
        object.__setattr__(self, "new", tuple(self.new))
        if not self.old or not self.new or len({*self.old, *self.new}) < len(self.old) + len(self.new):
            raise ProblemError(
                Problem(
                    code="CF116",
                    what="an opaque lens needs old and new columns, each named once.",
                    why="each side is computed from the other.",
                    instead='name them: Opaque(old=["blob"], new=["encrypted_blob"], forward=..., backward=...).',
                )
            )

    def new_from(self, row: Values) -> dict[str, Any]:
        """The new columns' values from the old ones. Raises what ``forward`` raises; ``CF102`` for other columns."""
        return _exactly(self.new, "forward", self.forward({name: row[name] for name in self.old}))

    def old_from(self, row: Values) -> dict[str, Any]:
        """The old columns' values from the new ones. Raises what ``backward`` raises; ``CF102`` for other columns."""
        return _exactly(self.old, "backward", self.backward({name: row[name] for name in self.new}))

    def describe(self) -> dict[str, Any]:
        """The declaration as plain data; of the functions, where they stand."""
        return {
            "old": list(self.old),
            "new": list(self.new),
            "forward": _place(self.forward),
            "backward": _place(self.backward),
            "lossy": self.lossy,
            "lock": self.lock,
        }


def _exactly(names: Sequence[str], direction: str, values: Values) -> dict[str, Any]:
    if not isinstance(values, Mapping) or set(values) != set(names):
        found = ", ".join(sorted(map(str, values))) if isinstance(values, Mapping) else type(values).__name__
        raise ProblemError(
            Problem(
                code="CF102",
                what=f"{direction} of an opaque lens gives {found or 'nothing'}.",
                why="each of its columns is written together with the others.",
                instead=f"return a value for each of {', '.join(names)}, and for no other column.",
            )
        )
    return {name: values[name] for name in names}


def _place(function: Callable[..., Any]) -> str:
    return f"{getattr(function, '__module__', '')}:{getattr(function, '__qualname__', type(function).__qualname__)}"
