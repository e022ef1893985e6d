"""The per-user cache: server programs and initialised data folders, each built once and whole."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["ensure", "folder"]

_COMPLETE = ".contraflow-complete"


def folder() -> Path:
    """``$CONTRAFLOW_CACHE``, else ``$XDG_CACHE_HOME/contraflow``, else ``~/.cache/contraflow``; created."""
    own = os.environ.get("CONTRAFLOW_CACHE")
    general = os.environ.get("XDG_CACHE_HOME")
    path = Path(own) if own else Path(general or "~/.cache").expanduser() / "contraflow"
    path = path.expanduser().absolute()
    path.mkdir(parents=True, exist_ok=True)
    return path


def ensure(name: str, build: Callable[[Path, Path], None]) -> Path:
    """The finished folder ``name`` of the cache, which ``build`` makes if it is not there.

    ``build(work, final)`` fills the empty folder ``work``, which is then renamed to ``final``: after a kill
    or an error nothing half made is ever taken for whole. A parallel run waits and uses the first one's.
    """
    cache = folder()
    final = cache / name
    if _complete(final):
        return final
    with _locked(cache / f".{name}.lock"):
        if _complete(final):
            return final
        work = cache / f".{name}.building"
        for left in (work, final):
            shutil.rmtree(left, ignore_errors=True)
        work.mkdir()
        try:
            build(work, final)
            # Programs are patched with the path of their libraries, so a cache that was moved is no good.
            (work / _COMPLETE).write_text(str(final), encoding="utf-8")
            work.rename(final)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return final


def _complete(path: Path) -> bool:
    try:
        return (path / _COMPLETE).read_text(encoding="utf-8") == str(path)
    except OSError:
        return False


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
