"""The sync rule, written once: what an INSERT or UPDATE does to a group, as small decision trees."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy.sql.expression import ColumnElement

from contraflow.expressions import Ref
from contraflow.lens import Group, Side
from contraflow.syncs import Sync

__all__ = [
    "Agrees",
    "AtDefault",
    "Changed",
    "Condition",
    "Fill",
    "If",
    "Null",
    "Tree",
    "Unsynced",
    "Write",
    "insert_tree",
    "judged",
    "update_tree",
]


@dataclass(frozen=True, kw_only=True)
class Null:
    """All of the columns are NULL; true of no columns."""

    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AtDefault:
    """Each of the columns equals its server default, or is NULL if it has none."""

    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Changed:
    """The statement changed the value of at least one of the columns."""

    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Agrees:
    """The group's images in one direction equal what is stored, after coercion; true of no images."""

    group: Group
    direction: Side
    """``new``: the new side is the forward image of the old one; ``old``: the reverse."""


@dataclass(frozen=True, kw_only=True)
class Unsynced:
    """The row was never synced."""


Condition: TypeAlias = Null | AtDefault | Changed | Agrees | Unsynced


@dataclass(frozen=True, kw_only=True)
class Write:
    """Set columns to their images: forward images if ``side`` is ``new``, backward images if it is ``old``."""

    group: Group
    side: Side
    columns: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Fill:
    """Set columns that are NULL to the default of their schema, then go on."""

    columns: tuple[str, ...]
    then: Tree


@dataclass(frozen=True, kw_only=True)
class If:
    """A decision."""

    condition: Condition
    then: Tree = None
    otherwise: Tree = None


Tree: TypeAlias = "If | Fill | Write | None"
"""What to do with one group; None is: nothing."""


@dataclass(frozen=True, kw_only=True)
class _Rule:
    """The rule for one group of a sync."""

    sync: Sync
    group: Group

    @property
    def old(self) -> tuple[str, ...]:
        return self.group.old

    @property
    def new(self) -> tuple[str, ...]:
        return self.group.new

    def write(self, side: Side, *, tracked_only: bool = False) -> Tree:
        images = self.group.forward if side == "new" else self.group.backward
        columns = tuple(name for name in images if not (tracked_only and name in self.group.once))
        return Write(group=self.group, side=side, columns=columns) if columns else None

    def write_unless_agreed(self, side: Side, *, tracked_only: bool = False) -> Tree:
        """Write the images of ``side`` unless they are there already.

        Writing an image that is there changes nothing, so only a non-deterministic image needs the question,
        and it is answered by the
        other direction.
        """
        deterministic = self.group.forward_deterministic if side == "new" else self.group.backward_deterministic
        write = self.write(side, tracked_only=tracked_only)
        if deterministic or write is None:
            return write
        return If(condition=Agrees(group=self.group, direction=_other(side)), otherwise=write)

    def settle(self) -> Tree:
        """Both sides are given: nothing if they agree in one direction, else the winner's images."""
        loser = _other(self.group.winner)
        if self._mirrored:
            return self.write(loser, tracked_only=True)
        # The winner's own image onto the loser needs no question; the other direction does, unless it cannot
        # be computed twice.
        counter = self.group.winner
        deterministic = self.group.forward_deterministic if counter == "new" else self.group.backward_deterministic
        write = self.write_unless_agreed(loser, tracked_only=True)
        if write is None or not deterministic:
            return write
        return If(
            condition=Agrees(group=self.group, direction=counter),
            otherwise=self.write(loser, tracked_only=True),
        )

    def fill_new_defaults(self, then: Tree) -> Tree:
        columns = tuple(
            name for name in self.new if name in self.group.forward and self.sync.columns[name].default is not None
        )
        return Fill(columns=columns, then=then) if columns else then

    def omitted(self) -> Tree:
        """Neither side is given, or the old one only as its defaults: what the declaration says."""
        if self.group.omitted is None:
            return None
        if self.group.omitted == "old":
            return self.write_unless_agreed("new")
        return self.fill_new_defaults(self.write_unless_agreed("old"))

    def insert_given(self) -> Tree:
        """The new side is given."""
        at_default: Condition = Null(columns=self.old)
        if self._old_has_defaults:
            at_default = AtDefault(columns=self.old)
            empty: Tree = If(
                condition=Null(columns=self.old),
                then=self.write_unless_agreed("old"),
                otherwise=If(condition=at_default, then=self.write_unless_agreed("old"), otherwise=self.settle()),
            )
        else:
            empty = If(condition=at_default, then=self.write_unless_agreed("old"), otherwise=self.settle())
        return self.fill_new_defaults(empty)

    def insert(self) -> Tree:
        columns = self.sync.columns
        required_old = any(not columns[name].nullable and columns[name].default is None for name in self.group.backward)
        # Where nobody had to say whose omission it is (CF106), a default is its column's image.
        asked = self.group.omitted is not None or required_old
        required_new = any(
            not columns[name].nullable and (columns[name].default is None or not asked) for name in self.group.forward
        )
        if required_new:
            neither = self.write("new")
        elif required_old:
            neither = self.fill_new_defaults(self.write("old"))
        else:
            neither = self.omitted()
        old_given = self.write("new")
        if self._old_has_defaults and all(columns[name].nullable for name in self.new):
            old_given = If(condition=AtDefault(columns=self.old), then=self.omitted(), otherwise=old_given)
        return If(
            condition=Null(columns=self.new),
            then=If(condition=Null(columns=self.old), then=neither, otherwise=old_given),
            otherwise=self.insert_given(),
        )

    def update(self) -> Tree:
        only_old: Tree = self.write_unless_agreed("new", tracked_only=True)
        if self.group.once:
            only_old = If(condition=Unsynced(), then=self.write("new"), otherwise=only_old)
        never_synced = If(condition=Null(columns=self.new), then=self.write("new"), otherwise=self.insert_given())
        changed_old = If(
            condition=Changed(columns=self.old),
            then=only_old,
            otherwise=If(condition=Unsynced(), then=never_synced),
        )
        return If(
            condition=Changed(columns=self.new),
            then=If(
                condition=Changed(columns=self.old),
                then=self.settle(),
                otherwise=self.write_unless_agreed("old", tracked_only=True),
            ),
            otherwise=changed_old,
        )

    @property
    def _mirrored(self) -> bool:
        """Both directions only copy, column by column of the same type: agreeing in one is agreeing in both.

        Then writing the image of a side that agrees changes nothing, and the question is not worth its cost.
        """
        forward = _copies(self.group.forward)
        backward = _copies(self.group.backward)
        return (
            forward is not None
            and backward is not None
            and forward == {new: old for old, new in backward.items()}
            and all(
                repr(self.sync.columns[new].type) == repr(self.sync.columns[old].type) for new, old in forward.items()
            )
        )

    @property
    def _old_has_defaults(self) -> bool:
        return any(self.sync.columns[name].default is not None for name in self.old)


def _copies(images: Mapping[str, object]) -> dict[str, str] | None:
    """Each column and the one it is copied from; None if an image is more than a copy."""
    copies = {name: image.name for name, image in images.items() if isinstance(image, Ref)}
    return copies if len(copies) == len(images) else None


def _other(side: Side) -> Side:
    return "old" if side == "new" else "new"


def _prune(tree: Tree) -> Tree:
    """The tree without decisions that cannot matter."""
    if isinstance(tree, Fill):
        return Fill(columns=tree.columns, then=_prune(tree.then))
    if not isinstance(tree, If):
        return tree
    then, otherwise = _prune(tree.then), _prune(tree.otherwise)
    condition = tree.condition
    if isinstance(condition, Null) and not condition.columns:
        return then
    if isinstance(condition, Changed) and not condition.columns:
        return otherwise
    if isinstance(condition, Agrees) and not judged(condition):
        return then
    if then == otherwise:
        return then
    return If(condition=condition, then=then, otherwise=otherwise)


def judged(condition: Agrees) -> dict[str, ColumnElement[Any]]:
    """The images that are compared with what is stored."""
    group = condition.group
    images = group.forward if condition.direction == "new" else group.backward
    return {name: image for name, image in images.items() if name not in group.once}


def insert_tree(sync: Sync, group: Group) -> Tree:
    """What an INSERT does to the group."""
    return _prune(_Rule(sync=sync, group=group).insert())


def update_tree(sync: Sync, group: Group) -> Tree:
    """What an UPDATE that leaves the marker alone does to the group."""
    return _prune(_Rule(sync=sync, group=group).update())
