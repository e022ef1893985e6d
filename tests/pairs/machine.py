"""A state machine that sends random statements of both releases to the two tables of a pair, and to the model."""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.pairs.bench import Bench, Model, Refused, Values

KEYS = st.integers(min_value=1, max_value=4)
SOME = st.lists(KEYS, min_size=1, max_size=3, unique=True)


def machine_for(bench: Bench) -> type[RuleBasedStateMachine]:  # noqa: C901 - a rule a statement
    """The state machine over one bench, which every example empties first."""
    scene = bench.scene

    def given_for(table: sa.Table) -> st.SearchStrategy[Values]:
        columns = {
            name.split(".", 1)[1]: st.sampled_from(values)
            for name, values in scene.values.items()
            if name.split(".", 1)[0] == table.name
        }
        return st.fixed_dictionaries({}, optional={**columns, "note": st.sampled_from(["n", "m"])})

    main_given, companion_given = given_for(bench.main), given_for(bench.companion)

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.model = Model(scene=scene)
            self.filled = False

        @initialize(rows=st.dictionaries(KEYS, main_given, max_size=3), others=st.dictionaries(KEYS, companion_given))
        def expand(self, rows: dict[int, Values], others: dict[int, Values]) -> None:
            """Rows from before, then the triggers."""
            bench.remove()
            bench.clear()
            if scene.old == "companion":
                # The new columns stand in the main table, empty; the old release knows the rest of it.
                rows = {key: {"note": "n"} for key in {*rows, *others}}
            for key, given in rows.items():
                self._before(bench.main, key, given)
            for key, given in others.items() if scene.old == "companion" else ():
                self._before(bench.companion, key, given)
            bench.install()

        def _before(self, table: sa.Table, key: int, given: Values) -> None:
            """A row from before the triggers."""
            model = self.model
            self._both(lambda: bench.insert(table, key, given), lambda: model.put(table is bench.main, key, given))

        def _both(self, real: Callable[[], object], modelled: Callable[[], object]) -> None:
            """Both carry the statement out, or both refuse it."""
            main = {key: dict(row) for key, row in self.model.main.items()}
            companion = {key: dict(row) for key, row in self.model.companion.items()}
            wanted = got = ""
            try:
                modelled()
            except Refused as error:
                wanted = str(error)
                self.model.main, self.model.companion = main, companion
            try:
                real()
            except Refused as error:
                got = str(error)
            assert bool(wanted) == bool(got), f"model: {wanted or 'carried out'}; server: {got or 'carried out'}"

        # -- the old release's table, all the time; the new one's, after migrate --

        @property
        def may_main(self) -> bool:
            return self.filled or scene.old == "main"

        @property
        def may_companion(self) -> bool:
            return self.filled or scene.old == "companion"

        def _allowed(self, given: Values) -> Values:
            """Before migrate, nobody writes the new columns."""
            return given if self.may_main else {name: value for name, value in given.items() if name == "note"}

        @rule(key=KEYS, given=main_given)
        def insert_main(self, key: int, given: Values) -> None:
            given = self._allowed(given)
            self._both(lambda: bench.insert(bench.main, key, given), lambda: self.model.insert_main(key, given))

        @rule(keys=SOME, given=main_given.filter(bool))
        def update_main(self, keys: list[int], given: Values) -> None:
            given = self._allowed(given) or {"note": "o"}
            self._both(lambda: bench.update(bench.main, keys, given), lambda: self.model.update_main(keys, given))

        @rule(key=KEYS, given=main_given.filter(bool))
        def upsert_main(self, key: int, given: Values) -> None:
            given = self._allowed(given) or {"note": "o"}
            self._both(lambda: bench.upsert(bench.main, key, given), lambda: self.model.upsert_main(key, given))

        @rule(keys=SOME)
        def delete_main(self, keys: list[int]) -> None:
            self._both(lambda: bench.delete(bench.main, keys), lambda: self.model.delete_main(keys))

        # Before: the foreign key's cascade fills a row early, where the server tells triggers of it.
        @precondition(lambda self: self.may_main)
        @rule(key=KEYS, to=st.integers(min_value=5, max_value=6))
        def rekey_main(self, key: int, to: int) -> None:
            if key in self.model.main and to not in self.model.main:
                self._both(lambda: bench.rekey(bench.main, key, to), lambda: self.model.rekey_main(key, to))

        @precondition(lambda self: self.may_companion)
        @rule(key=KEYS, given=companion_given)
        def insert_companion(self, key: int, given: Values) -> None:
            self._both(
                lambda: bench.insert(bench.companion, key, given), lambda: self.model.insert_companion(key, given)
            )

        @precondition(lambda self: self.may_companion)
        @rule(keys=SOME, given=companion_given.filter(bool))
        def update_companion(self, keys: list[int], given: Values) -> None:
            self._both(
                lambda: bench.update(bench.companion, keys, given), lambda: self.model.update_companion(keys, given)
            )

        @precondition(lambda self: self.may_companion)
        @rule(key=KEYS, given=companion_given.filter(bool))
        def upsert_companion(self, key: int, given: Values) -> None:
            self._both(
                lambda: bench.upsert(bench.companion, key, given), lambda: self.model.upsert_companion(key, given)
            )

        @precondition(lambda self: self.may_companion)
        @rule(keys=SOME)
        def delete_companion(self, keys: list[int]) -> None:
            self._both(lambda: bench.delete(bench.companion, keys), lambda: self.model.delete_companion(keys))

        @precondition(lambda self: self.may_companion)
        @rule(key=KEYS, to=KEYS)
        def rekey_companion(self, key: int, to: int) -> None:
            if key in self.model.companion and key != to:
                self._both(lambda: bench.rekey(bench.companion, key, to), lambda: self.model.rekey_companion(key, to))

        @rule()
        def migrate(self) -> None:
            """The backfill; a second one finds nothing to do."""
            old = bench.main if scene.old == "main" else bench.companion
            unsynced = [key for key, marker in bench.markers(old).items() if marker is None]
            assert bench.backfill() == len(unsynced)
            self.model.backfill(unsynced)
            self.filled = True

        @invariant()
        def alike(self) -> None:
            assert bench.read(bench.main) == self.model.main
            assert bench.read(bench.companion) == self.model.companion
            if self.filled:
                assert bench.differing() == 0

    return Machine
