"""The known counter-examples to simpler sync rules, by number: each history ends as the invariants demand.

Numbers 1 to 27 are those of the catalogue that the sync rule was built from. Where the answer is "refused" or "asked", the problem's
code is asserted; where it is "inherent", what happens is pinned down.
"""

# ruff: noqa: E501
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa

from contraflow import expressions as x
from contraflow.engine.checks import check_domain
from contraflow.lens import Lens
from contraflow.operations.base import Operation
from contraflow.operations.columns import AddColumn, ChangeType, RenameColumn, TransformColumns
from contraflow.operations.planning import Declared, Upgrade, plan
from contraflow.problems import ProblemError
from contraflow.steps import Hold, InstallSync, Phases
from tests.servers.shared import Database
from tests.sync.bench import Bench, Refused
from tests.sync.oracle import Model
from tests.sync.scenarios import KEY, Scenario, by_name

# --- ways to say it -----------------------------------------------------------------------------------------------


@contextmanager
def expanded(database: Database, scenario: Scenario | str) -> Iterator[Bench]:
    """A bench for a scenario."""
    found = by_name(scenario) if isinstance(scenario, str) else scenario
    bench = Bench.expanded(database, found)
    try:
        yield bench
    finally:
        bench.connection.close()


def declared(columns: Callable[[], list[sa.Column[Any]]], *changes: Operation | Sequence[Operation]) -> Scenario:
    """A scenario of this module's own; its histories are written out, so it needs no model."""
    revisions = [list(change) if isinstance(change, (list, tuple)) else [change] for change in changes]
    return Scenario(
        name="own",
        columns=lambda _product: columns(),
        changes=lambda: revisions,  # type: ignore[arg-type,return-value]
        model=lambda _product: Model(groups=()),
        pools={},
    )


def row(bench: Bench, key: int = 1) -> dict[str, Any]:
    """The row's columns without the note."""
    values = dict(bench.read()[key][0])
    del values["note"]
    return values


def unsynced(bench: Bench, key: int, **values: Any) -> None:
    """A row that was there before expand."""
    bench.insert([(key, {name: value for name, value in values.items() if value is not None})])
    bench.forget(key, values)


def planned(columns: list[sa.Column[Any]], *operations: Operation, constraints: Sequence[Any] = ()) -> Phases:
    """The phases of one change on a table with these columns."""
    table = sa.Table("things", sa.MetaData(), sa.Column(KEY, sa.Integer(), primary_key=True), *columns, *constraints)
    upgrade = Upgrade(old="r0", new="r1", changes=(Declared(revision="r1", operations=operations),))
    return plan(upgrade, {(None, "things"): table})


def refused(build: Callable[[], object]) -> set[str]:
    """The codes of the problems that a declaration or its planning raises."""
    with pytest.raises(ProblemError) as caught:
        build()
    return {problem.code for problem in caught.value.problems}


def change(
    old: str,
    new: sa.Column[Any],
    forward: Callable[[Any], Any],
    backward: Callable[[Any], Any],
    **options: Any,
) -> ChangeType:
    """A change of the column ``old`` of the table."""
    return ChangeType(table="things", column=old, new=new, forward=forward, backward=backward, **options)


def text(name: str, *, nullable: bool = True, default: str | None = None) -> sa.Column[Any]:
    """A column of text."""
    return sa.Column(name, sa.String(60), nullable=nullable, server_default=default)


# --- 1 to 27 ------------------------------------------------------------------------------------------------------


def test_01_tightening_fills_the_null_of_an_old_insert(database: Database) -> None:
    with expanded(database, "tighten") as bench:
        bench.insert([(1, {"nick": None})])
        assert row(bench) == {"nick": None, "nickname": ""}


def test_02_loosening_fills_the_old_column_of_a_new_insert(database: Database) -> None:
    with expanded(database, "loosen") as bench:
        bench.insert([(1, {"note": "-"})])
        assert row(bench) == {"nick": "", "nickname": None}


def test_03_a_live_row_is_not_born_deleted(database: Database) -> None:
    with expanded(database, "time_to_flag") as bench:
        bench.insert([(1, {"deleted_at": None})])
        assert row(bench) == {"deleted_at": None, "deleted": False}


def test_04_constants_for_null_on_both_sides_are_asked_about() -> None:
    assert refused(
        lambda: planned(
            [text("o")],
            change("o", text("n"), lambda r: sa.func.coalesce(r.o, "f"), lambda r: sa.func.coalesce(r.n, "g")),
        )
    ) == {"CF106"}


def test_04_constants_for_null_do_not_change_what_old_wrote(database: Database) -> None:
    with expanded(database, "null_has_a_meaning_omitted_old") as bench:
        bench.insert([(1, {"nick": None})])
        assert row(bench) == {"nick": None, "label": "none"}


def test_05_a_dropped_required_column_is_filled_for_new_inserts(database: Database) -> None:
    with expanded(database, "drop_constant") as bench:
        bench.insert([(1, {"note": "-"})])
        assert row(bench) == {"legacy": "gone\\"}


def test_06_an_added_required_column_is_filled_for_old_inserts(database: Database) -> None:
    with expanded(database, "add_constant") as bench:
        bench.insert([(1, {"other": 5})])
        assert row(bench) == {"other": 5, "kind": "it's 50%"}


def test_07_a_correction_of_case_reaches_the_old_side(database: Database) -> None:
    with expanded(database, "fold_winner_new") as bench:
        bench.insert([(1, {"folded": "B"})])
        bench.update([1], {"folded": "b"})
        assert row(bench) == {"email": "b", "folded": "b"}


def test_08_a_correction_of_spaces_reaches_the_new_side(database: Database) -> None:
    with expanded(database, "trim_back") as bench:
        bench.insert([(1, {"name": " a"})])
        bench.update([1], {"name": "a"})
        assert row(bench) == {"name": "a", "padded": "a"}


def test_09_accidental_agreement_hides_no_row_from_sync_or_backfill(database: Database) -> None:
    with expanded(database, "loosen") as bench:
        unsynced(bench, 1, nick="x", nickname=None)
        unsynced(bench, 2, nick="", nickname=None)
        bench.update([1], {"nick": ""})
        assert row(bench, 1) == {"nick": "", "nickname": ""}
        assert bench.backfill(limit=10, batches=10) == 1
        assert row(bench, 2) == {"nick": "", "nickname": ""}


def test_10_coercion_by_the_stored_type_sends_no_echo(database: Database) -> None:
    with expanded(database, "text_to_integer") as bench:
        bench.insert([(1, {"code": "007"})])
        assert row(bench) == {"code": "007", "number": 7}
        bench.update([1], {"note": "x"})
        bench.update([1], {"code": "07"})
        assert row(bench) == {"code": "07", "number": 7}


def test_11_12_two_clocks_are_refused() -> None:
    clock = sa.Column("n", sa.DateTime())
    lens = change("o", clock, lambda _r: x.utcnow(), lambda _r: x.utcnow(), omitted="old")
    assert "CF115" in refused(lambda: planned([sa.Column("o", sa.DateTime())], lens))


def test_13_an_old_default_beside_a_nullable_new_column_is_asked_about() -> None:
    assert refused(lambda: planned([text("o", default="d")], change("o", text("n"), lambda r: r.o, lambda r: r.n))) == {
        "CF106"
    }


@pytest.mark.parametrize(("side", "value"), [("old", "d"), ("new", None)])
def test_13_the_declared_release_is_believed(database: Database, side: str, value: str | None) -> None:
    lens = change("o", text("n"), lambda r: r.o, lambda r: r.n, omitted=side)
    with expanded(database, declared(lambda: [text("o", default="d")], lens)) as bench:
        bench.insert([(1, {"note": "-"})])
        assert row(bench) == {"o": value, "n": value}


def test_14_an_old_default_does_not_hide_what_new_wrote(database: Database) -> None:
    lens = change("o", text("n", nullable=False), lambda r: x.lower(r.o), lambda r: r.n)
    with expanded(database, declared(lambda: [text("o", nullable=False, default="B")], lens)) as bench:
        bench.insert([(1, {"n": "b"})])
        assert row(bench) == {"o": "b", "n": "b"}


def test_15_an_image_of_null_is_asked_about() -> None:
    lens = change("o", text("n"), lambda r: sa.func.coalesce(r.o, "f"), lambda r: r.n)
    assert refused(lambda: planned([text("o")], lens)) == {"CF106"}
    lens = change("o", text("n"), lambda r: r.o, lambda r: sa.func.coalesce(r.n, "g"))
    assert refused(lambda: planned([text("o")], lens)) == {"CF106"}


def test_16_before_the_backfill_null_over_null_is_no_write(database: Database) -> None:
    """Inherent: therefore no node of the new release may write before MIGRATED."""
    with expanded(database, "rename_nullable") as bench:
        unsynced(bench, 1, name="a", title=None)
        bench.update([1], {"title": None})
        assert row(bench) == {"name": "a", "title": "a"}


def test_17_an_enum_with_a_hole_is_refused() -> None:
    lens = change(
        "o",
        sa.Column("n", sa.Enum("x", "y", "z", native_enum=False), nullable=False),
        lambda r: x.recode(r.o, {"a": "x", "b": "y"}),
        lambda r: x.recode(r.n, {"x": "a", "y": "b"}),
    )
    phases = planned([sa.Column("o", sa.Enum("a", "b", native_enum=False), nullable=False)], lens)
    problems = check_domain([sync_of(phases)])
    assert {problem.code for problem in problems} == {"CF107"}
    assert "'z'" in problems[0].what


def sync_of(phases: Phases) -> Any:
    """The planned sync."""
    return next(
        step.sync
        for block in phases.expand
        if isinstance(block, Hold)
        for step in block.steps
        if isinstance(step, InstallSync)
    )


def test_18_an_image_onto_a_unique_column_is_refused() -> None:
    lens = change("o", text("n"), lambda r: r.o, lambda r: x.lower(r.n))
    codes = refused(lambda: planned([text("o")], lens, constraints=[sa.UniqueConstraint("o", name="u")]))
    assert codes & {"CF109", "CF111"}


def test_19_keys_of_a_document_that_the_other_side_does_not_know_survive(database: Database) -> None:
    with expanded(database, "columns_to_json") as bench:
        bench.insert([(1, {"theme": "a", "size": 1})])
        bench.update([1], {"settings": {"theme": "a", "size": 1, "extra": [1]}})
        bench.update([1], {"theme": "b"})
        assert row(bench)["settings"] == {"theme": "b", "size": 1, "extra": [1]}
    with expanded_again(database, "json_to_columns") as bench:
        bench.insert([(1, {"settings": {"z": 1, "theme": "a"}})])
        bench.update([1], {"theme": "b"})
        assert row(bench)["settings"] == {"z": 1, "theme": "b"}


@contextmanager
def expanded_again(database: Database, scenario: str) -> Iterator[Bench]:
    """A second scenario in the same database."""
    with database.engine.begin() as connection:
        connection.exec_driver_sql("DROP TABLE things")
        if connection.dialect.name == "postgresql":
            functions = connection.exec_driver_sql(
                "SELECT oid::regprocedure::text FROM pg_proc WHERE proname LIKE 'cf\\_%%'"
            ).scalars()
            for function in functions.all():
                connection.exec_driver_sql(f"DROP FUNCTION {function}")
    with expanded(database, scenario) as bench:
        yield bench


def test_20_a_chain_agrees_as_a_whole(database: Database) -> None:
    with expanded(database, "chain_of_three") as bench:
        bench.insert([(1, {"c": " b"})])
        assert row(bench) == {"a": "b", "c": " b"}
        bench.update([1], {"a": "B"})
        assert row(bench) == {"a": "B", "c": "b"}


def test_21_a_chain_does_not_overwrite_what_old_wrote(database: Database) -> None:
    first = change(
        "a", text("b"), lambda r: sa.case((r.a == "Q", None), else_=r.a), lambda r: x.recode(r.b, {"none": "Z"})
    )
    second = change("b", text("c", nullable=False), lambda r: sa.func.coalesce(r.b, "none"), lambda r: r.c)
    with expanded(database, declared(lambda: [text("a")], [first], [second])) as bench:
        bench.insert([(1, {"a": "Q"})])
        assert row(bench) == {"a": "Q", "c": "none"}


def test_22_a_chain_with_a_tightening_leaves_no_null(database: Database) -> None:
    first = RenameColumn(table="things", old="a", new="b")
    second = change("b", text("c", nullable=False), lambda r: sa.func.coalesce(r.b, ""), lambda r: r.c)
    with expanded(database, declared(lambda: [text("a")], [first], [second])) as bench:
        bench.insert([(1, {"a": None})])
        assert row(bench) == {"a": None, "c": ""}


def test_23_mixed_winners_are_refused() -> None:
    first = RenameColumn(table="things", old="a", new="b", winner="old")
    second = change("b", text("c"), lambda r: r.b, lambda r: r.c, winner="new")
    assert refused(lambda: planned([text("a")], first, second)) == {"CF105"}


def test_24_two_columns_of_one_source_are_one_group(database: Database) -> None:
    with expanded(database, "shared_source") as bench:
        assert len(bench.sync.groups) == 1
        bench.insert([(1, {"a": "x"})])
        bench.update([1], {"b": "y"})
        assert row(bench)["a"] == "y"
        bench.update([1], {"a": "z"})
        assert row(bench) == {"a": "z", "b": "z", "c": "Z"}
        assert bench.probe()[1] == [0]


def test_24_two_functions_back_onto_one_source_are_refused() -> None:
    both = [RenameColumn(table="things", old="a", new="b"), RenameColumn(table="things", old="a", new="c")]
    assert refused(lambda: planned([text("a")], *both)) <= {"CF104", "CF101"}
    lenses = [
        TransformColumns(
            table="things",
            columns=[text(name)],
            keep=["a"],
            lens=Lens(
                old=["a"],
                new=[name],
                forward=lambda r, n=name: {n: r.a},  # type: ignore[misc]
                backward=lambda r, n=name: {"a": r[n]},  # type: ignore[misc]
            ),
        )
        for name in ("b", "c")
    ]
    assert refused(lambda: planned([text("a")], *lenses)) == {"CF104"}


def test_25_two_functions_onto_one_target_are_refused() -> None:
    lenses = [
        TransformColumns(
            table="things",
            columns=[text("c")] if name == "a" else [],
            lens=Lens(
                old=[name],
                new=["c"],
                forward=lambda r, n=name: {"c": r[n]},  # type: ignore[misc]
                backward=lambda r, n=name: {n: r.c},  # type: ignore[misc]
            ),
        )
        for name in ("a", "b")
    ]
    assert refused(lambda: planned([text("a"), text("b")], *lenses)) == {"CF104"}


def test_26_writing_the_same_value_is_not_seen_as_writing(database: Database) -> None:
    """Inherent: "written" means "changed"."""
    with expanded(database, "fold_winner_new") as bench:
        bench.insert([(1, {"email": "A", "folded": "x"})])
        assert row(bench) == {"email": "x", "folded": "x"}
        bench.update([1], {"email": "B", "folded": "x"})
        assert row(bench) == {"email": "B", "folded": "b"}


@pytest.mark.only_on("sqlite", "mysql", "mariadb")
def test_27_replace_is_delete_and_insert(database: Database) -> None:
    """Inherent: what only the new side knew is gone when the old release replaces the row."""
    with expanded(database, "trim_back") as bench:
        bench.insert([(1, {"padded": " a "})])
        assert row(bench) == {"name": "a", "padded": " a "}
        bench.replace([(1, {"name": "a", "note": "x"})])
        assert row(bench) == {"name": "a", "padded": "a"}


# --- beyond the catalogue -----------------------------------------------------------------------------------------


def test_fill_or_track_is_asked_about() -> None:
    assert refused(
        lambda: AddColumn(table="things", column=text("slug"), value=lambda r: x.lower(r.name), reads=["name"])
    ) == {"CF114"}


def test_an_image_may_not_read_another_target() -> None:
    """BEFORE triggers assign one column after the other, AFTER triggers all at once."""
    assert refused(
        lambda: Lens(
            old=["v"], new=["now", "sum"], forward=lambda r: {"now": r.v, "sum": sa.func.coalesce(r.now, 1) + r.v}
        )
    ) == {"CF103"}


def test_a_new_default_beside_nullable_columns_is_asked_about() -> None:
    lens = change("o", text("n", default="d"), lambda r: r.o, lambda r: r.n)
    assert refused(lambda: planned([text("o")], lens)) == {"CF106"}


def test_generated_columns_are_no_targets() -> None:
    lens = change("o", sa.Column("n", sa.Integer(), sa.Computed("id + 1")), lambda r: r.o, lambda r: r.n)
    assert "CF110" in refused(lambda: planned([sa.Column("o", sa.Integer())], lens))


def test_an_upgrade_that_grows_plans_as_if_it_had_been_whole() -> None:
    """The group over a chain is the same whether its lenses come in one revision or in two."""
    first = RenameColumn(table="things", old="a", new="b")
    second = change("b", text("c"), lambda r: x.lower(r.b), lambda r: r.c)
    table = sa.Table("things", sa.MetaData(), sa.Column(KEY, sa.Integer(), primary_key=True), text("a"))
    one = Upgrade(old="r0", new="r1", changes=(Declared(revision="r1", operations=(first, second)),))
    two = Upgrade(
        old="r0",
        new="r2",
        changes=(Declared(revision="r1", operations=(first,)), Declared(revision="r2", operations=(second,))),
    )
    prints = {sync_of(plan(upgrade, {(None, "things"): table})).fingerprint for upgrade in (one, two)}
    assert len(prints) == 1


def test_old_writes_of_null_fail_whole(database: Database) -> None:
    """The old schema's NOT NULL is enforced for the old release, on every server, and nothing is half done."""
    with expanded(database, "rename_required") as bench:
        bench.insert([(1, {"name": "a"}), (2, {"name": "b"})])
        before = bench.read()
        for values in ({"name": None}, {"title": None}):
            with pytest.raises(Refused):
                bench.update([1, 2], values)
        with pytest.raises(Refused):
            bench.insert([(3, {"name": "c"}), (4, {"name": None})])
        assert bench.read() == before
