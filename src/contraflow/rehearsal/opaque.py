"""The model of a table with an opaque lens, whose columns only Python can compute from each other.

The lens's own functions tell what the old release must read of what the new one has written. The other way round they
need not give the same answer twice: what the new release reads must be one that gives the old columns back.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from contraflow import expressions
from contraflow.opaque import Opaque
from contraflow.rehearsal.oracle import Stage, TableOracle, World
from contraflow.rehearsal.rule import Side, Values, same
from contraflow.rehearsal.shapes import ANY, TableShape, value_for

__all__ = ["OpaqueOracle"]


@dataclass(frozen=True)
class _Computed:
    """A value of the new side that is some answer of ``forward`` to these old columns."""

    old: Values

    def __repr__(self) -> str:
        return f"computed from {self.old!r}"


class OpaqueOracle(TableOracle):
    """The model of one table with an opaque lens.

    :param lens: the lens, whose functions are called here.
    """

    opaque = True

    def __init__(
        self,
        *,
        old: TableShape,
        new: TableShape,
        lens: Opaque,
        conditions: Sequence[expressions.Expression] = (),
    ) -> None:
        super().__init__(old=old, new=new, sync=None, conditions=conditions)
        self._lens = lens

    def insert(self, given: Mapping[str, Any], stage: Stage) -> list[World]:
        """See `TableOracle.insert`."""
        return [self._followed(world, given, stage, fresh=True) for world in super().insert(given, stage)]

    def update(self, world: World, assigned: Mapping[str, Any], stage: Stage) -> list[World]:
        """See `TableOracle.update`."""
        return [self._followed(after, assigned, stage) for after in super().update(world, assigned, stage)]

    def moved(self, worlds: list[World], stage: Stage) -> list[World]:
        """See `TableOracle.moved`: whatever the old release has written by then is computed."""
        moved = super().moved(worlds, stage)
        return [self._computed(world) for world in moved] if stage is Stage.BOTH else moved

    def breaks(self, worlds: Iterable[World]) -> bool:
        """See `TableOracle.breaks`; what is computed cannot be foretold, and meets every check."""
        told = [
            world for world in worlds if not any(isinstance(one, _Computed) for one in (world.values or {}).values())
        ]
        return super().breaks(told)

    def whole(
        self, release: Side, values: Mapping[str, Any], rng: random.Random, token: Callable[[], int]
    ) -> dict[str, Any]:
        """See `TableOracle.whole`: the new side together, as what the application makes of something."""
        if release == "old" or not set(self._lens.new) & values.keys():
            return dict(values)
        old = self.shape("old")
        unique = {name for columns in old.unique for name in columns}
        plain = {
            name: value_for(old.columns[name], rng, token=token() if name in unique else None)
            for name in self._lens.old
        }
        return {**values, **self._lens.new_from(plain)}

    # -- one row -----------------------------------------------------------------------------------------------------

    def _followed(self, world: World, written: Mapping[str, Any], stage: Stage, *, fresh: bool = False) -> World:
        """The world with the side that was not written."""
        if world.values is None or stage in (Stage.OLD, Stage.NEW):
            return world
        if any(written.get(name) is not None for name in self._lens.new):
            old = self._lens.old_from(world.values)
            return replace(world, values={**world.values, **self.coerced(old)})
        if fresh or set(self._lens.old) & written.keys():
            return self._computed(world)
        return world

    def _computed(self, world: World) -> World:
        if world.values is None:
            return world
        computed = _Computed({name: world.values[name] for name in self._lens.old})
        return replace(world, values={**world.values, **dict.fromkeys(self._lens.new, computed)})

    def _agrees(self, world: World, release: Side, seen: Values | None) -> bool:
        told = _told(world)
        if not super()._agrees(_open(world), release, seen):
            return False
        if release == "old" or told is None or seen is None or self._lens.lossy:
            return True
        try:
            back = self.coerced(self._lens.old_from(seen))
        except Exception:  # noqa: BLE001 - whatever an application's function makes of a wrong value: it is wrong
            return False
        return all(value is ANY or same(value, back[name]) for name, value in told.old.items())

    def _differences(self, world: World, release: Side, seen: Values | None) -> list[str]:
        wrong = super()._differences(_open(world), release, seen)
        told = _told(world)
        if told is None or wrong != [self.UNTOLD]:
            return wrong
        return [f"{', '.join(self._lens.new)} do not give back {told.old!r}"]


def _told(world: World) -> _Computed | None:
    """What is known of the new side, if it is only what it was computed from."""
    return next((one for one in (world.values or {}).values() if isinstance(one, _Computed)), None)


def _open(world: World) -> World:
    """The world with whatever is computed left open."""
    if world.values is None:
        return world
    values = {name: ANY if isinstance(one, _Computed) else one for name, one in world.values.items()}
    return replace(world, values=values)
