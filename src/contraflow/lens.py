"""Lenses: how two sets of columns of one table determine each other, and how lenses of one upgrade combine.

Pure values: nothing here opens a connection or knows a server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import sqlalchemy as sa
from sqlalchemy.sql.expression import ColumnElement

from contraflow import expressions
from contraflow.expressions.trees import Lookup
from contraflow.problems import Problem, ProblemError

__all__ = ["Group", "Lens", "Row", "Side", "combine"]

Side = Literal["old", "new"]
_Direction = Literal["forward", "backward"]
Expression = ColumnElement[Any]
LensFunction = Callable[["Row"], Mapping[str, Any]]


class Row:
    """What a lens function receives: its declared columns, as attributes (or items, for odd names)."""

    def __init__(self, cells: Mapping[str, Expression]) -> None:
        self.__dict__["_cells"] = dict(cells)

    def __getattr__(self, name: str) -> Expression:
        return self[name]

    def __getitem__(self, name: str) -> Expression:
        cells: dict[str, Expression] = self.__dict__["_cells"]
        if name not in cells:
            raise ProblemError(
                Problem(
                    code="CF102",
                    what=f"the lens reads row.{name}, which it does not declare.",
                    why="the sync would not notice when that column changes.",
                    instead=f"name {name!r} in old= or new= (declared: {', '.join(sorted(cells))}).",
                )
            )
        return cells[name]


def _nothing(_row: Row) -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Lens:
    """How the ``old`` columns of a row and the ``new`` ones determine each other.

    ``forward`` receives the row and gives an expression for each new column; ``backward`` gives one for each
    old column. They are
    written in the language of :mod:`contraflow.expressions`. Each may also read its own target's present
    value, so that a JSON
    document keeps keys the other side does not know.

    ``winner`` says which side counts when one statement writes both sides and they disagree. ``omitted`` says
    which release is
    taken to have sent an INSERT that gives neither side, where the values cannot tell (problem ``CF106`` asks for it).

    ``lossy`` accepts that ``backward(forward(old))`` is not always ``old``: without it, rows of which that is
    true are a problem (``CF108``).

    Raises :class:`~contraflow.problems.ProblemError` with ``CF102``, ``CF103`` or ``CF116`` when the
    declaration is not valid.
    """

    old: Sequence[str]
    new: Sequence[str]
    forward: LensFunction = _nothing
    backward: LensFunction = _nothing
    winner: Side = "new"
    omitted: Side | None = None
    lossy: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "old", tuple(self.old))
        object.__setattr__(self, "new", tuple(self.new))
        if not self.old and not self.new:
            raise _contradiction("a lens needs at least one column.", "name the columns in old= and new=.")
        if overlap := set(self.old) & set(self.new):
            raise _contradiction(
                f"{', '.join(sorted(overlap))} stands on both sides of a lens.",
                "a changed meaning needs a new column name: both releases see one physical column.",
            )
        if self.winner not in ("old", "new") or self.omitted not in ("old", "new", None):
            raise _contradiction("winner= and omitted= are 'old' or 'new'.", "write one of these two words.")
        row = Row({name: expressions.Ref(name) for name in (*self.old, *self.new)})
        _read_only_themselves("forward", self.images("forward", row))
        _read_only_themselves("backward", self.images("backward", row))

    def images(self, direction: _Direction, row: Row) -> dict[str, Expression]:
        """The expression for each column that ``direction`` writes, computed from ``row``."""
        function, targets = (self.forward, self.new) if direction == "forward" else (self.backward, self.old)
        try:
            result = function(row)
        except ProblemError:
            raise
        except Exception as error:
            raise _not_expressions(direction, f"raises {type(error).__name__}: {error}") from error
        if not isinstance(result, Mapping):
            raise _not_expressions(direction, f"returns {type(result).__name__}, not a mapping of column to expression")
        images = {name: expressions.validate(image) for name, image in result.items()}
        if strangers := set(images) - set(targets):
            raise ProblemError(
                Problem(
                    code="CF102",
                    what=f"{direction} writes {', '.join(sorted(strangers))}, which the lens does not declare.",
                    instead=f"{direction} may write: {', '.join(targets)}.",
                )
            )
        return images


def _not_expressions(direction: str, what: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF103",
            what=f"{direction} of a lens {what}.",
            why="it is called once, with columns instead of values, and must return expressions over them.",
            instead="sqlalchemy.case, and_, or_, not_ and the functions of contraflow.expressions,"
            " instead of Python's if, and, or, not and f-strings.",
        )
    )


def _read_only_themselves(direction: str, images: Mapping[str, Expression]) -> None:
    """Servers assign the columns of one statement at once or one after the other: no image may see another's target."""
    for name, image in images.items():
        if others := expressions.references(image) & images.keys() - {name}:
            other = min(others)
            raise ProblemError(
                Problem(
                    code="CF103",
                    what=f"the {direction} image of {name} reads row.{other}, which {direction} writes too.",
                    why="some servers would compute it from the value before the write, others from the one after it.",
                    instead=f"compute {name} from what {other} is computed from; of the columns it writes, an image may"
                    " read its own only.",
                )
            )


def _contradiction(what: str, instead: str) -> ProblemError:
    return ProblemError(Problem(code="CF116", what=what, instead=instead))


@dataclass(frozen=True, kw_only=True)
class Group:
    """The lenses of one upgrade on one table that belong together, composed into one.

    ``forward`` has one expression for each new column, ``backward`` one for each old column that is written
    back; a column
    without one is only read. Expressions refer to end columns only.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    forward: Mapping[str, Expression]
    backward: Mapping[str, Expression]
    winner: Side = "new"
    omitted: Side | None = None
    once: frozenset[str] = field(default=frozenset())
    """Columns filled when a row is inserted or first synced, and then left to their writers."""
    lossy: bool = False
    """It is declared that the round trip from old to new and back may lose something."""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns of the group, old ones first."""
        return (*self.old, *self.new)

    @property
    def lookups(self) -> tuple[Lookup, ...]:
        """What the images look up in other tables."""
        images = (*self.forward.values(), *self.backward.values())
        return tuple(node for image in images for node in expressions.walk(image) if isinstance(node, Lookup))

    @property
    def forward_deterministic(self) -> bool:
        """Whether every forward image is deterministic."""
        return all(map(expressions.is_deterministic, self.forward.values()))

    @property
    def backward_deterministic(self) -> bool:
        """Whether every backward image is deterministic."""
        return all(map(expressions.is_deterministic, self.backward.values()))

    def describe(self) -> dict[str, Any]:
        """The group as plain data, stable for equal declarations: what fingerprints are made of."""
        return {
            "old": list(self.old),
            "new": list(self.new),
            "forward": {name: expressions.describe(image) for name, image in sorted(self.forward.items())},
            "backward": {name: expressions.describe(image) for name, image in sorted(self.backward.items())},
            "winner": self.winner,
            "omitted": self.omitted,
            "once": sorted(self.once),
        }


def combine(
    lenses: Sequence[tuple[Lens, frozenset[str]]],
    *,
    old_types: Mapping[str, sa.types.TypeEngine[Any]],
    new_types: Mapping[str, sa.types.TypeEngine[Any]],
) -> tuple[Group, ...]:
    """Combine the lenses of one table, in the order of their revisions, into groups over end columns.

    A lens comes with the set of its columns that are filled once. ``old_types`` are the columns that exist
    before the upgrade,
    ``new_types`` those that exist after it; a column that an earlier lens makes and a later one takes away is
    in neither: such
    lenses chain, and are composed. Lenses that share a column are merged.

    Raises :class:`~contraflow.problems.ProblemError`: ``CF104`` if two functions write one column, ``CF105``
    if the winners
    of one group differ, ``CF116`` if their ``omitted`` differ.
    """
    types = {**new_types, **old_types}
    once = frozenset[str]().union(*(names for _, names in lenses))
    chain = [lens for lens, _ in lenses]
    made, once = _composed(chain, "forward", types, once)
    back, once = _composed(chain[::-1], "backward", types, once)
    return tuple(_merge(cluster, once, made, back, old_types, new_types) for cluster in _clusters(chain))


def _composed(
    lenses: Sequence[Lens], direction: _Direction, types: Mapping[str, sa.types.TypeEngine[Any]], once: frozenset[str]
) -> tuple[dict[str, Expression], frozenset[str]]:
    """What each column is that the lenses, in this order, compute in one direction, in terms of end columns (and
    targets' own present values); and ``once`` with those that follow from it.
    """
    made: dict[str, Expression] = {}
    for lens in lenses:
        sources, targets = (lens.old, lens.new) if direction == "forward" else (lens.new, lens.old)
        cells = {name: made.get(name, expressions.Ref(name, types.get(name))) for name in sources}
        cells |= {name: expressions.Ref(name, types.get(name)) for name in targets}
        for name, image in lens.images(direction, Row(cells)).items():
            if name in made:
                raise _two_functions(name, direction)
            made[name] = image
        once |= _filled_once(lens, direction, once & made.keys())
    return made, once


def _filled_once(lens: Lens, direction: _Direction, filled: frozenset[str]) -> frozenset[str]:
    """What the lens computes from columns that are ``filled`` once, and so is filled once as well.

    Raises ``CF116`` for what it computes from such a column and from another one that goes on changing it.
    """
    sources = lens.old if direction == "forward" else lens.new
    if filled.isdisjoint(sources):
        return frozenset()
    follows = set()
    row = Row({name: expressions.Ref(name) for name in (*lens.old, *lens.new)})
    for name, image in lens.images(direction, row).items():
        reads = expressions.references(image) & set(sources)
        if reads & filled and (others := reads - filled):
            raise _contradiction(
                f"{name} is computed from {min(reads & filled)}, which is filled once, and from {min(others)}, with"
                " which it would change.",
                'say keep="track" of the one, or compute the other from columns that are filled once as well.',
            )
        if reads & filled:
            follows.add(name)
    return frozenset(follows)


def _clusters(lenses: Iterable[Lens]) -> list[list[Lens]]:
    """Lenses that share a column, directly or through others, stand together."""
    clusters: list[list[Lens]] = []
    for lens in lenses:
        touching = [
            cluster
            for cluster in clusters
            if any({*lens.old, *lens.new} & {*other.old, *other.new} for other in cluster)
        ]
        clusters = [cluster for cluster in clusters if cluster not in touching]
        clusters.append([*(other for cluster in touching for other in cluster), lens])
    return clusters


def _merge(
    cluster: list[Lens],
    once: frozenset[str],
    made: Mapping[str, Expression],
    back: Mapping[str, Expression],
    old_types: Mapping[str, Any],
    new_types: Mapping[str, Any],
) -> Group:
    columns = list(dict.fromkeys(name for lens in cluster for name in (*lens.old, *lens.new)))
    targets = {name for lens in cluster for name in lens.new}
    new = tuple(name for name in columns if name in new_types and name in targets)
    old = tuple(name for name in columns if name in old_types and name not in targets)
    winners = {lens.winner for lens in cluster}
    omitted = {lens.omitted for lens in cluster} - {None}
    title = ", ".join(columns)
    if len(winners) > 1:
        raise ProblemError(
            Problem(
                code="CF105",
                what=f"the lenses over {title} name different winners.",
                why="a statement that writes both sides would leave them torn for good.",
                instead="give all of them the same winner=.",
            )
        )
    if len(omitted) > 1:
        raise _contradiction(f"the lenses over {title} give different omitted=.", "give all of them the same omitted=.")
    return Group(
        old=old,
        new=new,
        forward={name: made[name] for name in new if name in made},
        backward={name: back[name] for name in old if name in back},
        winner=winners.pop(),
        omitted=omitted.pop() if omitted else None,
        once=once & {*old, *new},
        lossy=any(lens.lossy for lens in cluster),
    )


def _two_functions(name: str, direction: str) -> ProblemError:
    return ProblemError(
        Problem(
            code="CF104",
            what=f"two lenses write {name} {direction}.",
            why="a write to either source would undo the other's.",
            instead="write one Lens over all the columns that determine each other.",
        )
    )
