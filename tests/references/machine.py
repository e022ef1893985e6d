"""A state machine that sends random statements of both releases to two tables, and to the model."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.references.bench import Bench, Model, Refused, Values

CHILDREN = st.integers(min_value=1, max_value=4)
PARENTS = st.integers(min_value=1001, max_value=1003)
"""Far from the keys that a server gives first; SQLite goes on behind the highest one."""
SOME = st.lists(CHILDREN, min_size=1, max_size=3, unique=True)


def machine_for(bench: Bench) -> type[RuleBasedStateMachine]:  # noqa: C901 - a rule a statement
    """The state machine over one bench, which every example empties first."""
    scene = bench.scene
    words = {of: ["p", "q", *([] if of in scene.required else [None])] for of in "ab"}

    def given_of(names: str, *, whole: bool = False) -> st.SearchStrategy[Values]:
        columns = {name: st.sampled_from(words[of]) for name, of in zip(names, "ab", strict=True)}
        note = {"note": st.sampled_from(["n", "m"])}
        return st.fixed_dictionaries(columns if whole else {}, optional=note if whole else {**columns, **note})

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(scene=scene)
            self.filled = False
            self.keys: dict[int, int] = {}
            """Places of made parents to the keys that the server gave them."""

        @initialize(
            parents=st.dictionaries(PARENTS, given_of("ab", whole=True), max_size=3),
            children=st.dictionaries(CHILDREN, given_of("xy", whole=True), max_size=3),
        )
        def expand(self, parents: dict[int, Values], children: dict[int, Values]) -> None:
            """Rows from before, then the triggers."""
            bench.clear()
            for key, given in parents.items():
                if self._is_free(given):
                    self._insert_parent(key, given)
            for key, given in children.items():
                self._insert(key, given)
            bench.expand()
            self.model.expanded = True

        def _both(self, real: Callable[[], object], modelled: Callable[[Model], object]) -> None:
            """Both carry the statement out, or both refuse it."""
            model = self.model.copy()
            wanted = got = ""
            try:
                modelled(model)
            except Refused as error:
                wanted = str(error)
            else:
                self.model = model
            try:
                real()
            except Refused as error:
                got = str(error)
            assert bool(wanted) == bool(got), f"model: {wanted or 'carried out'}; server: {got or 'carried out'}"
            self._name_made()

        def _name_made(self) -> None:
            """The keys that the server gave to parents which were made by now."""
            for place, row in self.model.parents.items():
                if place < 0 and place not in self.keys:
                    found = [
                        key
                        for key, one in bench.read(bench.parent).items()
                        if (one["a"], one["b"]) == (row["a"], row["b"])
                    ]
                    assert len(found) == 1, f"made {len(found)} times: {row}"
                    self.keys[place] = found[0]

        def _is_free(self, given: Values, key: int | None = None) -> bool:
            """Whether no other parent is alike but for NULLs, which a unique key would let be."""
            row = {"a": None, "b": None, **(self.model.parents.get(key or 0, {})), **given}
            return None not in (row["a"], row["b"]) or all(
                (one["a"], one["b"]) != (row["a"], row["b"])
                for place, one in self.model.parents.items()
                if place != key
            )

        # -- children --

        @rule(key=CHILDREN, given=given_of("xy"))
        def old_insert(self, key: int, given: Values) -> None:
            self._insert(key, given)

        def _insert(self, key: int, given: Values) -> None:
            self._both(
                lambda: bench.run(sa.insert(bench.child).values(id=key, **given)),
                lambda model: model.insert(key, given),
            )

        @rule(keys=SOME, given=given_of("xy").filter(bool))
        def old_update(self, keys: list[int], given: Values) -> None:
            self._both(
                lambda: bench.run(sa.update(bench.child).where(bench.child.c.id.in_(keys)).values(given)),
                lambda model: model.update(keys, given),
            )

        def _place(self, number: int) -> int | None:
            """One of the parents, none, or one that is not there."""
            places = [*sorted(self.model.parents), None, 4711]
            return places[number % len(places)]

        def _key(self, place: int | None) -> int | None:
            return self.keys.get(place, place) if place is not None else None

        @precondition(lambda self: self.filled)
        @rule(key=CHILDREN, number=st.integers(min_value=0, max_value=9), old=st.none() | given_of("xy", whole=True))
        def new_insert(self, key: int, number: int, old: Values | None) -> None:
            """By key; at times with the old columns, as only a copy of whole rows does."""
            place = self._place(number)
            given = {**(old or {}), "ref": place}
            self._both(
                lambda: bench.run(sa.insert(bench.child).values(id=key, **{**given, "ref": self._key(place)})),
                lambda model: model.insert(key, given),
            )

        @precondition(lambda self: self.filled)
        @rule(keys=SOME, number=st.integers(min_value=0, max_value=9))
        def new_update(self, keys: list[int], number: int) -> None:
            place = self._place(number)
            self._both(
                lambda: bench.run(
                    sa.update(bench.child).where(bench.child.c.id.in_(keys)).values(ref=self._key(place))
                ),
                lambda model: model.update(keys, {"ref": place}),
            )

        @rule(keys=SOME)
        def delete(self, keys: list[int]) -> None:
            self._both(
                lambda: bench.run(sa.delete(bench.child).where(bench.child.c.id.in_(keys))),
                lambda model: model.delete(keys),
            )

        # -- parents --

        def _insert_parent(self, key: int, given: Values) -> None:
            self._both(
                lambda: bench.run(sa.insert(bench.parent).values(id=key, **given)),
                lambda model: model.insert_parent(key, given),
            )

        @rule(key=PARENTS, given=given_of("ab", whole=True))
        def insert_parent(self, key: int, given: Values) -> None:
            if self._is_free(given) and key not in self.keys.values():
                self._insert_parent(key, given)

        @rule(number=st.integers(min_value=0, max_value=9), given=given_of("ab").filter(bool))
        def update_parent(self, number: int, given: Values) -> None:
            place = self._place(number)
            if place in self.model.parents and self._is_free(given, place):
                self._both(
                    lambda: bench.run(
                        sa.update(bench.parent).where(bench.parent.c.id == self._key(place)).values(given)
                    ),
                    lambda model: model.update_parent(place, given),
                )

        @rule(key=PARENTS, to=st.integers(min_value=1001, max_value=1006))
        def rekey_parent(self, key: int, to: int) -> None:
            if key in self.model.parents and key != to and to not in self.keys.values():
                self._both(
                    lambda: bench.run(sa.update(bench.parent).where(bench.parent.c.id == key).values(id=to)),
                    lambda model: model.update_parent(key, {}, to),
                )

        @rule(number=st.integers(min_value=0, max_value=9))
        def delete_parent(self, number: int) -> None:
            place = self._place(number)
            if place is not None:
                self._both(
                    lambda: bench.run(sa.delete(bench.parent).where(bench.parent.c.id == self._key(place))),
                    lambda model: model.delete_parents([place]),
                )

        @rule()
        def migrate(self) -> None:
            """The backfill; a second one finds nothing to do."""
            wanted = self.model.backfill()
            assert bench.backfill() == wanted
            self._name_made()
            self.filled = True

        @invariant()
        def alike(self) -> None:
            parents = {self.keys.get(place, place): row for place, row in self.model.parents.items()}
            assert bench.read(bench.parent) == parents
            children = {key: {**row, "ref": self._key(row["ref"])} for key, row in self.model.children.items()}
            if self.model.expanded:
                assert bench.read(bench.child) == children
                assert bench.differing() == self.model.differing

    return Machine
