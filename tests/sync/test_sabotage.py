"""The property test is worth something: each of these deliberately wrong syncs is caught by it."""

# ruff: noqa: ARG005, PLW0108
from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from contraflow.dialects import rule as rule_module
from contraflow.dialects import sync as sync_module
from contraflow.dialects.rule import Agrees, Changed, If, Null
from contraflow.operations.planning import MARKER
from tests.servers.shared import Database
from tests.sync.bench import Bench, Refused
from tests.sync.conftest import PROFILES
from tests.sync.machine import machine_for
from tests.sync.scenarios import by_name

pytestmark = pytest.mark.filterwarnings("ignore:Dialect sqlite.*does \\*not\\* support Decimal")

Rule = rule_module._Rule
Patch = Callable[[pytest.MonkeyPatch], None]
SEARCH = settings(PROFILES["ci"], max_examples=400)
MARKER_QUOTED = rf'["`]{MARKER}["`]'


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One wrong sync: a change of the rule, or of the trigger's text, and a scenario that must notice."""

    name: str
    scenario: str
    patch: Patch | None = None
    text: Callable[[str], str] | None = None
    products: tuple[str, ...] = ("sqlite", "postgresql", "mysql", "mariadb")


def _flip_winner(patch: pytest.MonkeyPatch) -> None:
    settle = Rule.settle

    def flipped(self: Any) -> Any:
        other = "old" if self.group.winner == "new" else "new"
        return settle(Rule(sync=self.sync, group=replace(self.group, winner=other)))

    patch.setattr(Rule, "settle", flipped)


def _forget_the_marker(text: str) -> str:
    text = re.sub(rf"(NEW\.{MARKER_QUOTED}) (:?=) 1;", r"\1 \2 \1;", text)
    return re.sub(rf"({MARKER_QUOTED}) = CASE NEW\.\1 WHEN 1 THEN 2 ELSE 1 END", r"\1 = NEW.\1", text)


def _follow_the_backfill(text: str) -> str:
    same = r"(IS NOT DISTINCT FROM|<=>|IS)"
    return re.sub(rf"NEW\.{MARKER_QUOTED} {same} OLD\.{MARKER_QUOTED} (AND|THEN)", r"1 = 1 \2", text)


def _see_no_case(text: str) -> str:
    for exact, blind in (
        ("COLLATE BINARY", "COLLATE NOCASE"),
        ('COLLATE "C"', 'COLLATE "blind"'),
        ("utf8mb4_0900_bin", "utf8mb4_0900_ai_ci"),
        ("utf8mb4_nopad_bin", "utf8mb4_general_ci"),
    ):
        text = text.replace(exact, blind)
    return re.sub(r"CAST\((NEW|OLD)(\.`\w+`) AS BINARY\)", r"\1\2", text)


def _recompute_on_every_update(patch: pytest.MonkeyPatch) -> None:
    def update(self: Any) -> Any:
        return If(condition=Changed(columns=self.new), then=self.write("old"), otherwise=self.write("new"))

    condition = sync_module._Words.condition

    def always(self: Any, found: Any, *rest: Any) -> str:
        if isinstance(found, Changed) and found.columns == self.sync.synced.columns:
            return self.compiler.true  # type: ignore[no-any-return]
        return condition(self, found, *rest)

    patch.setattr(Rule, "update", update)
    patch.setattr(sync_module._Words, "condition", always)


def _be_content_with_either_side(patch: pytest.MonkeyPatch) -> None:
    def write_unless_agreed(self: Any, side: Any, *, tracked_only: bool = False) -> Any:
        write = self.write(side, tracked_only=tracked_only)
        one, other = (Agrees(group=self.group, direction=found) for found in ("new", "old"))
        return If(condition=one, otherwise=If(condition=other, otherwise=write))

    patch.setattr(Rule, "write_unless_agreed", write_unless_agreed)


def _insert_by_the_simple_rule(patch: pytest.MonkeyPatch) -> None:
    def insert(self: Any) -> Any:
        return If(condition=Null(columns=self.new), then=self.write("new"), otherwise=self.settle())

    patch.setattr(Rule, "insert", insert)


def _take_defaults_for_given(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rule, "_old_has_defaults", property(lambda _self: False))


def _forget_new_defaults(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Rule, "fill_new_defaults", lambda _self, then: then)


def _track_what_is_filled_once(patch: pytest.MonkeyPatch) -> None:
    write = Rule.write
    patch.setattr(Rule, "write", lambda self, side, *, tracked_only=False: write(self, side))


def _forget_all_groups_but_one(patch: pytest.MonkeyPatch) -> None:
    tree = rule_module.update_tree
    patch.setattr(
        sync_module,
        "update_tree",
        lambda sync, group: tree(sync, group) if group is sync.groups[0] else None,
    )


def _no_trigger(event: str) -> Callable[[str], str]:
    return lambda text: "SELECT 1" if re.search(rf"(AFTER|BEFORE) {event}", text) else text


def _let_null_stand(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if "RAISE(ABORT" not in line)


MUTANTS = [
    Mutant(name="the winner loses", scenario="fold_winner_new", patch=_flip_winner),
    Mutant(name="the loser wins", scenario="fold_winner_old", patch=_flip_winner),
    Mutant(name="the marker is not set", scenario="trim_back", text=_forget_the_marker),
    Mutant(name="the backfill is followed", scenario="fold_both_ways", text=_follow_the_backfill),
    Mutant(name="comparison is blind to case", scenario="rename_blind_collation", text=_see_no_case),
    Mutant(name="unrelated updates recompute", scenario="trim_back", patch=_recompute_on_every_update),
    Mutant(name="either agreement is enough", scenario="fold_winner_new", patch=_be_content_with_either_side),
    Mutant(name="either agreement is enough, back", scenario="trim_back", patch=_be_content_with_either_side),
    Mutant(name="INSERT knows no NOT NULL", scenario="loosen", patch=_insert_by_the_simple_rule),
    Mutant(name="INSERT knows no default", scenario="rename_default_omitted_old", patch=_take_defaults_for_given),
    Mutant(name="new defaults are forgotten", scenario="new_default_applied", patch=_forget_new_defaults),
    Mutant(name="filled once is tracked", scenario="add_computed_fill", patch=_track_what_is_filled_once),
    Mutant(name="one group is followed", scenario="many_groups", patch=_forget_all_groups_but_one),
    Mutant(name="no INSERT trigger", scenario="rename_nullable", text=_no_trigger("INSERT")),
    Mutant(name="no UPDATE trigger", scenario="rename_nullable", text=_no_trigger("UPDATE")),
    Mutant(name="NULL stands", scenario="rename_required", text=_let_null_stand, products=("sqlite",)),
]


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda found: found.name.replace(" ", "_"))
def test_wrong_sync_is_caught(database: Database, mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    scenario = by_name(mutant.scenario)
    if mutant.patch is not None:
        mutant.patch(monkeypatch)
    bench = Bench.expanded(database, scenario, mutant.text)
    try:
        with pytest.raises((AssertionError, Refused, sa.exc.DBAPIError)):
            run_state_machine_as_test(machine_for(bench), settings=SEARCH)
    finally:
        bench.connection.close()


def test_backfill_that_ignores_the_marker_is_caught(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backfill of rows that differ, or of all rows, overwrites what the new release wrote."""
    bench = Bench.expanded(database, by_name("fold_both_ways"))
    backfill = type(bench.adapter).backfill
    unsynced = re.compile(rf"{MARKER_QUOTED} IS NULL")

    def all_rows(self: Any, step: Any, found: Any = None) -> Any:
        text = backfill(self, step, found)
        wrong: dict[str, Any] = {
            field.name: unsynced.sub("1 = 1", getattr(text, field.name))
            for field in fields(text)
            if field.name.endswith("fill")
        }
        return replace(text, **wrong)

    monkeypatch.setattr(type(bench.adapter), "backfill", all_rows)
    try:
        with pytest.raises(AssertionError):
            run_state_machine_as_test(machine_for(bench), settings=SEARCH)
    finally:
        bench.connection.close()
