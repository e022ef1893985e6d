"""The cache of server programs and data folders: each thing is there whole, once, or not at all."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from contraflow.rehearsal.servers import cache


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONTRAFLOW_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def test_environment_chooses_the_folder(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.folder() == own_cache
    monkeypatch.delenv("CONTRAFLOW_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache.folder() == tmp_path / "xdg" / "contraflow"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache.folder() == tmp_path / "home" / ".cache" / "contraflow"


def test_parallel_callers_build_once() -> None:
    builds = []
    arrived = threading.Barrier(4)

    def build(work: Path, final: Path) -> None:
        builds.append(final)
        (work / "file").write_text("whole")

    def call() -> None:
        arrived.wait()
        assert (cache.ensure("thing", build) / "file").read_text() == "whole"

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(builds) == 1


def test_failed_build_leaves_nothing(own_cache: Path) -> None:
    def fail(work: Path, _final: Path) -> None:
        (work / "half").touch()
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space"):
        cache.ensure("thing", fail)
    assert visible(own_cache) == []


def test_what_a_killed_build_left_is_built_anew(own_cache: Path) -> None:
    for half in (own_cache / ".thing.building", own_cache / "thing"):
        half.mkdir(parents=True)
        (half / "half").touch()
    built = cache.ensure("thing", lambda work, _final: (work / "file").touch())
    assert (built / "file").exists()
    assert not (built / "half").exists()
    assert visible(own_cache) == ["thing"]


def test_moved_cache_is_built_anew(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(work: Path, final: Path) -> None:
        (work / "path").write_text(str(final))

    cache.ensure("thing", build)
    own_cache.rename(tmp_path / "moved")
    monkeypatch.setenv("CONTRAFLOW_CACHE", str(tmp_path / "moved"))
    assert (cache.ensure("thing", build) / "path").read_text() == str(tmp_path / "moved" / "thing")
