"""Which Changes a run of Alembic has to carry out, and as which sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from contraflow.alembic.change import Change, change_of
from contraflow.alembic.discovery import (
    absolute,
    behind,
    resumed,
    revision_of,
    sets,
    to_downgrade,
    to_upgrade,
)
from contraflow.engine.report import State, Status
from contraflow.problems import ProblemError
from tests.alembic.project import PLAIN, RENAME_MAIL, Project

CHANGE = RENAME_MAIL

History = dict[str, tuple[str | Sequence[str] | None, str]]


def project(folder: Path, history: History) -> Project:
    made = Project(folder, "sqlite:///unused.db")
    for name, (down, body) in history.items():
        made.revision(name, down, body)
    return made


@pytest.fixture
def linear(tmp_path: Path) -> Project:
    """Plain, Change, Change, plain, Change."""
    return project(
        tmp_path,
        {
            "r1": (None, PLAIN),
            "r2": ("r1", CHANGE),
            "r3": ("r2", CHANGE),
            "r4": ("r3", PLAIN),
            "r5": ("r4", CHANGE),
        },
    )


def ids(found: Sequence[Any]) -> list[str]:
    return [one.id for one in found]


def problem(error: pytest.ExceptionInfo[ProblemError]) -> Any:
    (only,) = error.value.problems
    return only


def past(state: State | None, *revisions: str, old: str | None = "r1") -> Status:
    return Status(
        state=state,
        upgrade=f"{old}:{revisions[-1]}" if revisions else None,
        old=old if revisions else None,
        new=revisions[-1] if revisions else None,
        revisions=revisions,
    )


def test_consecutive_changes_are_one_set(linear: Project) -> None:
    scripts = to_upgrade(linear.directory(), ["r1"], "r4")
    (one,) = sets(scripts)
    assert one.id == "r1:r3"
    assert [change.revision for change in one.changes] == ["r2", "r3"]
    assert one.changes[0].doc == "Revision r2."


def test_plain_revisions_before_and_after_the_set_do_not_matter(linear: Project) -> None:
    directory = linear.directory()
    assert ids(sets(to_upgrade(directory, [], "r4"))) == ["r1:r3"]
    assert ids(sets(to_upgrade(directory, ["r3"], "head"))) == ["r4:r5"]


def test_a_plain_revision_between_two_changes_is_refused_with_the_way_out(linear: Project) -> None:
    with pytest.raises(ProblemError) as error:
        sets(to_upgrade(linear.directory(), ["r1"], "head"))
    found = problem(error)
    assert found.code == "CF302"
    assert "r4" in found.what
    assert "alembic upgrade r3; roll the nodes; contraflow contract" in found.instead
    assert "contraflow.through=contract" in found.instead


def test_apart_makes_a_set_of_each_chain(linear: Project) -> None:
    found = sets(to_upgrade(linear.directory(), [], "head"), apart=True)
    assert ids(found) == ["r1:r3", "r4:r5"]


def test_a_change_at_the_base_starts_from_nothing(tmp_path: Path) -> None:
    made = project(tmp_path, {"r1": (None, CHANGE)})
    assert ids(sets(to_upgrade(made.directory(), [], "head"))) == ["base:r1"]


def test_nothing_to_run_is_no_set(linear: Project) -> None:
    assert sets(to_upgrade(linear.directory(), ["r5"], "head")) == ()


def test_changes_on_two_branches_are_refused(tmp_path: Path) -> None:
    made = project(tmp_path, {"r1": (None, PLAIN), "a1": ("r1", CHANGE), "b1": ("r1", CHANGE)})
    with pytest.raises(ProblemError) as error:
        sets(to_upgrade(made.directory(), ["r1"], "heads"))
    found = problem(error)
    assert found.code == "CF302"
    assert "two branches" in found.what
    assert {"a1", "b1"} <= set(found.what.replace(",", "").split())


def test_a_branch_of_changes_beside_a_plain_one_is_one_set(tmp_path: Path) -> None:
    made = project(
        tmp_path,
        {
            "r1": (None, PLAIN),
            "a1": ("r1", CHANGE),
            "b1": ("r1", PLAIN),
            "a2": ("a1", CHANGE),
            "m": (("a2", "b1"), PLAIN),
        },
    )
    assert ids(sets(to_upgrade(made.directory(), ["r1"], "head"))) == ["r1:a2"]


def test_a_merge_may_not_declare_a_change(tmp_path: Path) -> None:
    made = project(
        tmp_path,
        {"r1": (None, PLAIN), "a1": ("r1", PLAIN), "b1": ("r1", PLAIN), "m": (("a1", "b1"), CHANGE)},
    )
    with pytest.raises(ProblemError) as error:
        sets(to_upgrade(made.directory(), ["r1"], "head"))
    assert problem(error).code == "CF302"
    assert "alembic merge" in problem(error).instead


def test_changes_before_and_after_a_plain_merge_are_refused(tmp_path: Path) -> None:
    made = project(
        tmp_path,
        {
            "r1": (None, PLAIN),
            "a1": ("r1", CHANGE),
            "b1": ("r1", PLAIN),
            "m": (("a1", "b1"), PLAIN),
            "r9": ("m", CHANGE),
        },
    )
    with pytest.raises(ProblemError) as error:
        sets(to_upgrade(made.directory(), ["r1"], "head"))
    assert "the plain revision m stands between" in problem(error).what


def test_only_one_of_the_two_functions_is_refused(tmp_path: Path) -> None:
    half = CHANGE.replace("upgrade, downgrade = change.upgrade, change.downgrade", "upgrade = change.upgrade")
    made = project(tmp_path, {"r1": (None, half + "\ndef downgrade():\n    pass\n")})
    with pytest.raises(ProblemError) as error:
        sets(to_upgrade(made.directory(), [], "head"))
    assert problem(error).code == "CF302"
    assert "upgrade, downgrade = change.upgrade, change.downgrade" in problem(error).instead


def test_an_open_upgrade_is_resumed_as_a_whole(linear: Project) -> None:
    directory = linear.directory()
    rest = to_upgrade(directory, ["r2"], "r3")
    for state in (State.PENDING, State.EXPANDED, State.MIGRATED, State.VERIFIED):
        assert ids(sets(resumed(directory, rest, past(state, "r2", "r3")))) == ["r1:r3"]


def test_an_upgrade_that_was_stamped_whole_is_not_resumed(linear: Project) -> None:
    directory = linear.directory()
    rest = to_upgrade(directory, ["r3"], "head")
    assert ids(sets(resumed(directory, rest, past(State.VERIFIED, "r2", "r3")))) == ["r4:r5"]


def test_the_stamps_that_a_contracted_upgrade_lacks_are_no_work(linear: Project) -> None:
    directory = linear.directory()
    rest = to_upgrade(directory, ["r2"], "head")
    candidates = resumed(directory, rest, past(State.CONTRACTED, "r2", "r3"))
    assert [script.revision for script in candidates] == ["r4", "r5"]


def test_half_a_rollback_must_be_finished_first(linear: Project) -> None:
    directory = linear.directory()
    rest = to_upgrade(directory, ["r2"], "r3")
    with pytest.raises(ProblemError) as error:
        resumed(directory, rest, past(State.ROLLED_BACK, "r2", "r3"))
    assert problem(error).code == "CF305"
    assert "alembic downgrade r1" in problem(error).instead


def test_a_rolled_back_upgrade_is_begun_anew(linear: Project) -> None:
    directory = linear.directory()
    rest = to_upgrade(directory, ["r1"], "r3")
    assert ids(sets(resumed(directory, rest, past(State.ROLLED_BACK, "r2", "r3")))) == ["r1:r3"]


def test_no_journal_leaves_the_revisions_as_they_are(linear: Project) -> None:
    directory = linear.directory()
    rest = to_upgrade(directory, ["r1"], "r3")
    assert resumed(directory, rest, past(None)) == rest


def test_the_revision_of_a_change_is_found_from_its_functions(linear: Project) -> None:
    directory = linear.directory()
    scripts = to_upgrade(directory, [], "r3")
    change = change_of(scripts[1])
    assert change is not None
    assert revision_of(scripts, change).revision == "r2"


def test_a_change_called_by_a_function_is_refused(linear: Project) -> None:
    scripts = to_upgrade(linear.directory(), [], "r3")
    change = change_of(scripts[1])
    assert change is not None
    with pytest.raises(ProblemError) as error:
        revision_of(scripts, Change(*change.operations))
    assert problem(error).code == "CF302"


@pytest.mark.parametrize("destination", ["head", "r3", "+1", "r1+2", "base", None])
def test_a_target_that_still_means_the_same_is_kept(linear: Project, destination: str | None) -> None:
    directory = linear.directory()
    change = change_of(directory.get_revision("r2"))
    assert change is not None
    assert absolute(directory, destination, change, down=False) == destination


def test_counting_from_a_place_that_is_no_longer_known_is_refused(linear: Project) -> None:
    directory = linear.directory()
    change = change_of(directory.get_revision("r2"))
    assert change is not None
    with pytest.raises(ProblemError) as error:
        absolute(directory, "+2", change, down=False)
    assert "alembic upgrade REVISION" in problem(error).instead
    last = change_of(directory.get_revision("r3"))
    assert last is not None
    # r4, plain, may have been taken back just now.
    with pytest.raises(ProblemError, match="alembic downgrade REVISION"):
        absolute(directory, "-2", last, down=True)
    # Below r3 stands a Change: had it run, the set would be done.
    assert absolute(directory, "+2", last, down=False) == "+2"
    newest = change_of(directory.get_revision("r5"))
    assert newest is not None
    assert absolute(directory, "-2", newest, down=True) == "-2"


def test_the_walks_are_alembics(linear: Project) -> None:
    directory = linear.directory()
    assert [script.revision for script in to_upgrade(directory, ["r1"], "+2")] == ["r2", "r3"]
    assert [script.revision for script in to_downgrade(directory, ["r5"], "r3")] == ["r5", "r4"]
    assert [script.revision for script in to_downgrade(directory, ["r2"], "base")] == ["r2", "r1"]


def test_behind(linear: Project) -> None:
    directory = linear.directory()
    assert behind(directory, [], "r1")
    assert behind(directory, ["r2"], "r3")
    assert not behind(directory, ["r4"], "r3")
    assert not behind(directory, ["r4"], "gone")
