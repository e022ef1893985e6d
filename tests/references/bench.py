"""Rows that refer to rows of another table, during an upgrade, on one server; and a model of what both tables hold.

The model shares no code with the library: it knows rows as dictionaries, and the words of the operation's description.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from contraflow import ReferColumns
from contraflow.operations.planning import plan
from contraflow.steps import Backfill, Block, Hold, Online, Probe
from contraflow.syncs import Sync
from tests.dialects.support import attached
from tests.servers.shared import Database
from tests.upgrades import upgrade_of
from tests.workbench import Refused, Workbench

__all__ = ["SCENES", "Bench", "Model", "Refused", "Scene", "Values"]

Values = dict[str, Any]
MARKER = "cf_marker"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A natural key of two columns, ``a`` and ``b``; the child's are ``x`` and ``y``, its new column is ``ref``."""

    name: str
    required: frozenset[str] = frozenset()
    """Columns of the child's natural key that are NOT NULL; of the parent's, these are, too."""
    ref_required: bool = False
    creates: bool = False
    lossy: bool = False

    def natural(self, names: str) -> list[sa.Column[Any]]:
        pairs = zip(names, "ab", strict=True)
        return [sa.Column(name, sa.String(20), nullable=of not in self.required) for name, of in pairs]

    @property
    def parent(self) -> sa.Table:
        return sa.Table(
            "par'ent",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True),
            *self.natural("ab"),
            sa.Column("note", sa.String(20)),
            sa.UniqueConstraint("a", "b", name="uq_parent"),
        )

    @property
    def child(self) -> sa.Table:
        return sa.Table(
            "child",
            sa.MetaData(),
            sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
            *self.natural("xy"),
            sa.Column("note", sa.String(20)),
        )

    @property
    def operation(self) -> ReferColumns:
        return ReferColumns(
            table="child",
            columns={"x": "a", "y": "b"},
            column=sa.Column("ref", sa.Integer, nullable=not self.ref_required),
            to="par'ent",
            key="id",
            create=self.creates,
            lossy=self.lossy,
            scans=True,
        )


SCENES = (
    Scene(name="found, both may be NULL, and lost where there is none", lossy=True),
    Scene(name="found, one may be NULL", required=frozenset("a"), ref_required=True),
    Scene(name="made", required=frozenset("ab"), ref_required=True, creates=True),
)


@dataclass(kw_only=True)
class Model:
    """What both tables must hold after each statement. Knows nothing of triggers or SQL.

    A child's ``ref`` is the parent's place in ``parents``; a parent that was made has a place below zero, as nobody
    knows the key that the server gives it.
    """

    scene: Scene
    parents: dict[int, Values] = field(default_factory=dict)
    children: dict[int, Values] = field(default_factory=dict)
    unsynced: set[int] = field(default_factory=set)
    expanded: bool = False
    made: int = 0

    def copy(self) -> Model:
        return replace(
            self,
            parents={key: dict(row) for key, row in self.parents.items()},
            children={key: dict(row) for key, row in self.children.items()},
            unsynced=set(self.unsynced),
        )

    def find(self, x: Any, y: Any) -> int | None:
        """The parent that the natural key means; NULL means NULL, but nothing but NULLs mean nobody."""
        if x is None and y is None:
            return None
        return next((key for key, row in sorted(self.parents.items()) if (row["a"], row["b"]) == (x, y)), None)

    def look_up(self, row: Values) -> None:
        """The new side from the old one."""
        found = self.find(row["x"], row["y"])
        if found is None and self.scene.creates and row["x"] is not None and row["y"] is not None:
            self.made -= 1
            found = self.made
            self.parents[found] = {"a": row["x"], "b": row["y"], "note": None}
        row["ref"] = found

    def look_back(self, row: Values) -> None:
        """The old side from the new one."""
        parent = self.parents.get(row["ref"], {"a": None, "b": None})
        row["x"], row["y"] = parent["a"], parent["b"]

    def check(self, row: Values) -> None:
        for name, of in zip("xy", "ab", strict=True):
            if of in self.scene.required and row[name] is None:
                raise Refused(f"{name} is NULL")

    # -- children --

    def insert(self, key: int, given: Values) -> None:
        if key in self.children:
            raise Refused("duplicate key")
        row: Values = {"x": None, "y": None, "ref": None, "note": None, **given}
        if self.expanded:
            old, new = (row["x"], row["y"]) != (None, None), row["ref"] is not None
            if old and not new:
                self.look_up(row)
            elif new and not old:
                self.look_back(row)
            elif new:
                self.settle(row)
        self.check(row)
        self.children[key] = row
        if not self.expanded:
            self.unsynced.add(key)

    def settle(self, row: Values) -> None:
        """Both sides are given, and the new one wins, unless they agree in one direction."""
        parent = self.parents.get(row["ref"], {"a": None, "b": None})
        if self.find(row["x"], row["y"]) != row["ref"] and (parent["a"], parent["b"]) != (row["x"], row["y"]):
            self.look_back(row)

    def update(self, keys: Sequence[int], given: Values) -> None:
        for key in keys:
            if key not in self.children:
                continue
            before = self.children[key]
            row = {**before, **given}
            if self.expanded:
                old = (row["x"], row["y"]) != (before["x"], before["y"])
                new = row["ref"] != before["ref"]
                if old and new:
                    self.settle(row)
                elif new:
                    self.look_back(row)
                elif old or (key in self.unsynced and row["ref"] is None):
                    self.look_up(row)
                self.unsynced.discard(key)
            self.check(row)
            self.children[key] = row

    def delete(self, keys: Sequence[int]) -> None:
        for key in keys:
            self.children.pop(key, None)
            self.unsynced.discard(key)

    def backfill(self) -> int:
        keys = sorted(self.unsynced)
        for key in keys:
            self.look_up(self.children[key])
        self.unsynced.clear()
        return len(keys)

    # -- parents --

    def _claim(self, key: int, row: Values) -> None:
        """The unique key: NULLs are not alike to it; but the tests make no two parents that are alike but for them."""
        if any(other != key and (row["a"], row["b"]) == (one["a"], one["b"]) for other, one in self.parents.items()):
            raise Refused("duplicate natural key")
        if any(row[name] is None for name in self.scene.required):
            raise Refused("NULL in the natural key")

    def insert_parent(self, key: int, given: Values) -> None:
        if key in self.parents:
            raise Refused("duplicate key")
        row: Values = {"a": None, "b": None, "note": None, **given}
        self._claim(key, row)
        self.parents[key] = row
        self._adopt(key)

    def _adopt(self, key: int) -> None:
        parent = self.parents[key]
        natural = (parent["a"], parent["b"])
        if not self.expanded or self.scene.creates or natural == (None, None):
            return
        for number, row in self.children.items():
            if number not in self.unsynced and row["ref"] is None and (row["x"], row["y"]) == natural:
                row["ref"] = key

    def update_parent(self, key: int, given: Values, to: int | None = None) -> None:
        """Change a parent, and perhaps its key."""
        if key not in self.parents:
            return
        before = self.parents.pop(key)
        row, to = {**before, **given}, key if to is None else to
        if to in self.parents:
            raise Refused("duplicate key")
        self._claim(to, row)
        self.parents[to] = row
        old, new = (before["a"], before["b"]), (row["a"], row["b"])
        if not self.expanded or (old == new and key == to):
            return
        for number, child in self.children.items():
            if child["ref"] == key:
                child.update(x=row["a"], y=row["b"], ref=to)
            elif number in self.unsynced and (child["x"], child["y"]) == old != (None, None):
                child.update(x=row["a"], y=row["b"])
                self.look_up(child)
                self.unsynced.discard(number)
            self.check(child)
        self._adopt(to)

    def delete_parents(self, keys: Sequence[int]) -> None:
        for key in keys:
            if self.parents.pop(key, None) is None or not self.expanded:
                continue
            for child in self.children.values():
                if child["ref"] == key:
                    child["ref"] = None

    # -- what verify counts --

    @property
    def differing(self) -> int:
        """Rows whose natural key contract would lose."""
        if self.scene.lossy:
            return 0
        return sum(
            row["ref"] is None and (row["x"], row["y"]) != (None, None)
            for key, row in self.children.items()
            if key not in self.unsynced
        )


@dataclass(kw_only=True)
class Bench(Workbench):
    """The two tables on a server."""

    scene: Scene
    expand_blocks: Sequence[Block]
    rollback_blocks: Sequence[Block]
    sync: Sync
    parent: sa.Table
    child: sa.Table
    """As both releases together see it."""

    @classmethod
    def made(cls, database: Database, scene: Scene) -> Bench:
        connection, adapter = attached(database)
        if adapter.product == "sqlite":  # the harder setting: triggers fire for what triggers write to their own table
            connection.exec_driver_sql("PRAGMA recursive_triggers = ON")
        old, parent = scene.child, scene.parent
        old.create(connection)
        parent.create(connection)
        upgrade = upgrade_of(scene.operation)
        phases = plan(upgrade, {(None, table.name): table for table in (old, parent)})
        step = phases.migrate[0]
        assert isinstance(step, Online)
        assert isinstance(step.step, Backfill)
        child = sa.Table("child", sa.MetaData(), *(column._copy() for column in old.columns))
        child.append_column(sa.Column("ref", sa.Integer))
        return cls(
            scene=scene,
            connection=connection,
            adapter=adapter,
            expand_blocks=phases.expand,
            rollback_blocks=phases.rollback,
            sync=step.step.sync,
            parent=parent,
            child=child,
        )

    def clear(self) -> None:
        """Take the upgrade back, and empty both tables."""
        self._carry_out(self.rollback_blocks)
        self.run(sa.delete(self.child))
        self.run(sa.delete(self.parent))

    def expand(self) -> None:
        self._carry_out(self.expand_blocks)

    def _carry_out(self, blocks: Sequence[Block]) -> None:
        for block in blocks:
            assert isinstance(block, Hold)
            self.hold(block)

    def backfill(self) -> int:
        """Fill all rows, two at a time."""
        text = self.adapter.backfill(Backfill(sync=self.sync), self.adapter.find(self.connection, "child", None))
        return self.fill(text, size=2)

    def differing(self) -> int:
        """The rows that a verification counts."""
        ((_title, query),) = self.adapter.probe(Probe(sync=self.sync)).differing
        return self.count(query)
