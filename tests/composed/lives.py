"""The whole life of one composition: there and back again, there once more with kills, and to its end."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from contraflow import Declared, Options, Problem, ProblemError, Runner, Upgrade
from contraflow.dialects.base import Statement
from contraflow.engine.journal import Tables
from tests.composed.changes import Composition
from tests.composed.oracle import Oracle
from tests.composed.tables import Row, build
from tests.operations.lives import Killed, dying_after, exact, shape
from tests.servers.shared import Database, fresh_database

__all__ = ["Life"]

JOURNAL = frozenset(table.name for table in Tables().metadata.tables.values())


class Life:
    """One composition on a database that has the old release's tables, with these ``rows``."""

    def __init__(
        self,
        database: Database,
        composition: Composition,
        rng: random.Random,
        rows: Mapping[int, Mapping[int, Row]] | None = None,
    ) -> None:
        self._database, self._composition, self._rng = database, composition, rng
        self._engine = database.engine
        self._oracle = Oracle(composition, rng, rows or {})
        number, operations = composition.number, tuple(composition.operations)
        old, new = None if number == 1 else f"r{number - 1}", f"r{number}"
        self._cut = rng.choice([done for done, _ in composition.draws])
        first = Declared(revision=f"{new}_first", operations=operations[: self._cut])
        last = Declared(revision=new, operations=operations[self._cut :])
        self._begun = Upgrade(old=old, new=first.revision, changes=(first,))
        self._whole = Upgrade(old=old, new=new, changes=(first, last) if last.operations else (first,))

    def carry(self) -> tuple[list[Problem], dict[int, dict[int, Row]]]:
        """To the end, or up to the problems for which it is refused before anything is changed; and the rows then."""
        oracle = self._oracle
        for _ in range(2):
            oracle.write(self._engine, "old")
        start = self._state()
        with self._runner() as run:
            if refused := run.check():
                with pytest.raises(ProblemError):
                    run.expand()
                assert self._state() == start
                assert all(problem.instead for problem in refused)
                return refused, oracle.rows["old"]
        oracle.begin()
        self._killed("expand")
        oracle.write(self._engine, "old")
        self._killed("rollback")
        self._is_back(start)

        self._grow()
        oracle.write(self._engine, "old")
        self._killed("migrate")
        oracle.migrate()
        self._write("old", "new", "old", "new")
        with self._runner() as run:
            run.verify()
            run.rollback()
        self._is_back(start)

        with self._runner() as run:
            run.upgrade()
        oracle.migrate()
        self._write("new", "old", "new")
        self._killed("contract")
        oracle.contract()
        oracle.check(self._engine, "new")
        self._is_new()
        return [], oracle.rows["new"]

    # --- steps ---

    def _runner(
        self, upgrade: Upgrade | None = None, before_statement: Callable[[Statement], None] | None = None
    ) -> Runner:
        options = Options(lock_timeout=0.3)
        return Runner(self._database.url, upgrade or self._whole, options=options, before_statement=before_statement)

    def _killed(self, verb: str) -> None:
        """The verb, begun by a runner that is killed."""
        names = [table.name for tables in (self._composition.old, self._composition.new) for table in tables.values()]
        die = dying_after(self._rng.randint(0, 8), *names)
        with self._runner(before_statement=die) as run, contextlib.suppress(Killed):
            getattr(run, verb)()
        with self._runner() as run:
            getattr(run, verb)()

    def _grow(self) -> None:
        """Expand the first part alone, if that can be, and then the whole."""
        with self._runner(self._begun) as run:
            alone = not run.check() and len(self._whole.changes) > 1
            if alone:
                run.expand()
        if alone:
            self._oracle.write(self._engine, "old")
        with self._runner() as run:
            run.expand()
        if alone:
            done = [line for count, line in self._composition.draws if count > self._cut]
            self._oracle.expand_anew(set(done))

    def _write(self, *releases: Any) -> None:
        for release in releases:
            self._oracle.write(self._engine, release)
            self._oracle.check(self._engine, "old")
            self._oracle.check(self._engine, "new")

    # --- what there is ---

    def _names(self) -> set[str]:
        inspector = sa.inspect(self._engine)
        return {*inspector.get_table_names(), *inspector.get_view_names()} - JOURNAL

    def _state(self) -> dict[str, Any]:
        return {name: exact(self._engine, name) for name in sorted(self._names())}

    def _is_back(self, start: Mapping[str, Any]) -> None:
        self._oracle.roll_back()
        assert self._state() == start
        self._oracle.check(self._engine, "old")

    def _is_new(self) -> None:
        """The schema is what the new release's models make, and autogenerate finds nothing to do."""
        build(self._composition.new, metadata := sa.MetaData())
        assert self._names() == {table.name for table in metadata.tables.values()}
        for name in self._names():
            assert exact(self._engine, name)["triggers"] == {}
        shapes = {name: shape(self._engine, name) for name in self._names()}
        with fresh_database(self._database.server) as made:
            metadata.create_all(made.engine)
            assert shapes == {name: shape(made.engine, name) for name in shapes}
        with self._engine.connect() as connection:
            context = MigrationContext.configure(connection, opts={"compare_type": True, "include_object": _is_own})
            found = compare_metadata(context, metadata)
        if self._database.kind == "sqlite":  # where AddUnique makes a unique index
            made_unique = [_unique(one) for one in found if one[0] == "add_constraint"]
            assert made_unique == [_unique(one) for one in found if one[0] == "remove_index"]
            found = [one for one in found if one[0] not in ("add_constraint", "remove_index")]
        assert found == []


def _is_own(_item: object, name: str | None, kind: str, _reflected: bool, _compared: object) -> bool:
    return kind != "table" or name not in JOURNAL


def _unique(found: Any) -> tuple[str, list[str]]:
    _, made = found
    return made.name, [column.name for column in made.columns]
