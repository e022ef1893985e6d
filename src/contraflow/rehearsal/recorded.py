"""Recorded SQL as a workload: files of statements, or a server's log of them, as transactions to be replayed.

A file is one session: its transactions are replayed in its order, one after the other, and from the beginning again
once the last is done. A log is as many sessions as it tells of. Three kinds are read:

- statements, each ended by a semicolon; without any semicolon, one a line. BEGIN ... COMMIT makes one transaction of
  several; a statement outside of that is one by itself;
- PostgreSQL's log with ``log_statement = all`` or ``mod``, the process id in square brackets, as in the default
  ``log_line_prefix = '%m [%p] '`` (manual, "Error Reporting and Logging"). Parameters are put into their statements;
- MySQL's and MariaDB's general query log in a file.

What is neither a query nor a write is left out: SET, SHOW, DDL. So is what was rolled back.
"""

from __future__ import annotations

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from contraflow.rehearsal.nodes import Workload
from contraflow.rehearsal.project import Project
from contraflow.rehearsal.rule import Side
from contraflow.rehearsal.script import run_script, statements
from contraflow.rehearsal.servers import Server

__all__ = ["Recording", "Replay", "Session", "Transaction", "Without", "read", "replays"]

Transaction = tuple[str, ...]
"""The statements of one transaction."""
Session = tuple[Transaction, ...]
"""What one connection did, in order."""

_REPLAYED = re.compile(r"(?is)(insert|update|delete|replace|merge|select|with|values|table|call)\b")
_BEGIN = re.compile(r"(?i)(begin|start\s+transaction)\b")
_COMMIT = re.compile(r"(?i)(commit|end)\b")
_BACK = re.compile(r"(?i)rollback\b(?!.*\bto\b)")
_WITHIN = re.compile(r"(?i)(savepoint|release|rollback\b.*\bto)\b")
_MANUAL = re.compile(r"(?i)set\s+(?:session\s+|@@(?:session\.)?)?autocommit\s*=\s*(0|off|1|on)\b")


@dataclass(frozen=True, kw_only=True)
class Recording:
    """What a file holds.

    :ivar left_out: how many statements are not replayed, being neither queries nor writes.
    """

    sessions: tuple[Session, ...]
    left_out: int = 0


def read(path: str | Path) -> Recording:
    """The transactions of a file.

    :raises OSError: if it cannot be read.
    :raises ValueError: if there is none in it that can be replayed.
    """
    text = Path(path).read_text(encoding="utf-8", errors="replace")
    head = text[:200_000]
    if _POSTGRESQL.search(head):
        spoken = _postgresql(text)
    elif _MYSQL.search(head):
        spoken = _mysql(text)
    else:
        spoken = {"": _plain(text)}
    left_out = 0
    sessions: list[Session] = []
    for said in spoken.values():
        found, ignored = _transactions(said)
        left_out += ignored
        if found:
            sessions.append(tuple(found))
    if not sessions:
        raise ValueError(f"{path} holds no statement that can be replayed")
    return Recording(sessions=tuple(sessions), left_out=left_out)


def _plain(text: str) -> list[str]:
    found = list(statements(text))
    return text.splitlines() if len(found) == 1 and not text.rstrip().endswith(";") else found


def _transactions(said: Iterable[str]) -> tuple[list[Transaction], int]:
    """What one session said as transactions; and how much of it is left out."""
    found: list[Transaction] = []
    present: list[str] = []
    opened = manual = False
    left_out = 0
    for statement in filter(None, (each.strip().rstrip(";").strip() for each in said)):
        if _BEGIN.match(statement):
            opened = True
        elif _COMMIT.match(statement) or _BACK.match(statement):
            if present and _COMMIT.match(statement):
                found.append(tuple(present))
            present, opened = [], False
        elif _WITHIN.match(statement) or _REPLAYED.match(statement):
            present.append(statement)
            if not (opened or manual):
                found.append(tuple(present))
                present = []
        elif (match := _MANUAL.match(statement)) is not None:
            manual = match[1].lower() in ("0", "off")
        else:
            left_out += 1
    return found, left_out


# -- logs --------------------------------------------------------------------------------------------------------------

_POSTGRESQL = re.compile(r"(?m)^(?P<prefix>.*?\[(?P<session>\d+)\].*?)(?P<level>LOG|DETAIL|ERROR|STATEMENT|[A-Z]+):  ")
_STATEMENT = re.compile(r"(?s)(?:duration: [\d.]+ ms  )?(?:statement|execute [^:]*): (.*)")
_PARAMETER = re.compile(r"(?s)\$(\d+) = (NULL|'(?:[^']|'')*')")
_PLACE = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|\$(\d+)""")


def _postgresql(text: str) -> dict[str, list[str]]:
    """The statements of each process. A line that begins with a tab belongs to the one before."""
    spoken: dict[str, list[str]] = defaultdict(list)
    for line in re.split(r"\n(?!\t)", text):
        match = _POSTGRESQL.match(line)
        if match is None:
            continue
        said, message = spoken[match["session"]], line[match.end() :].replace("\n\t", "\n")
        if match["level"] == "LOG" and (statement := _STATEMENT.match(message)) is not None:
            said.append(statement[1].strip())
        elif match["level"] == "DETAIL" and message.lower().startswith("parameters: ") and said:
            said[-1] = _filled(said[-1], dict(_PARAMETER.findall(message)))
        elif match["level"] == "ERROR" and said:
            said.pop()  # it was carried out by nobody
    return spoken


def _filled(statement: str, given: Mapping[str, str]) -> str:
    """A statement with its parameters in their places, which are not in quotes."""
    return _PLACE.sub(lambda place: given.get(place[1] or "", place[0]), statement)


_MYSQL = re.compile(
    r"(?m)^(?:\d{4}-\d\d-\d\dT\S+|\d{6}\s+\d{1,2}:\d\d:\d\d|)[ \t]+(?P<session>\d+) "
    r"(?P<command>Connect|Query|Execute|Prepare|Quit|Init DB|Close stmt|Reset stmt|Field List|Statistics|Ping)\b[ \t]?"
)


def _mysql(text: str) -> dict[str, list[str]]:
    """The statements of each connection: everything up to the next line that begins an entry."""
    spoken: dict[str, list[str]] = defaultdict(list)
    found = list(_MYSQL.finditer(text))
    for match, following in zip(found, [*found[1:], None], strict=True):
        if match["command"] in ("Query", "Execute"):
            end = following.start() if following is not None else len(text)
            spoken[match["session"]].append(text[match.end() : end].strip())
    return spoken


# -- replaying ---------------------------------------------------------------------------------------------------------


@dataclass(kw_only=True)
class _Stream:
    """One session while it is replayed."""

    session: Session
    position: int = 0
    due: float = 0.0
    busy: bool = False


@dataclass(kw_only=True)
class Replay:
    """Gives out the transactions of one release's sessions. Safe to use from several threads.

    :ivar rate: transactions a second of each session; None: as fast as they are answered.
    """

    sessions: Sequence[Session]
    rate: float | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _streams: list[_Stream] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._streams = [_Stream(session=session) for session in self.sessions]

    def take(self, now: float) -> tuple[Transaction, Callable[[], None]] | None:
        """The next transaction of a session that has none under way, and what to call once it is answered."""
        with self._lock:
            ready = [stream for stream in self._streams if not stream.busy and stream.due <= now]
            if not ready:
                return None
            stream = min(ready, key=lambda one: one.due)
            transaction = stream.session[stream.position]
            stream.position = (stream.position + 1) % len(stream.session)
            stream.busy, stream.due = True, now + (1 / self.rate if self.rate else 0.0)

        def done() -> None:
            stream.busy = False

        return transaction, done


class Without:
    """The same statements without the upgrade: a database in one release's own schema, with the same first rows.

    :param url: that database; nobody else writes it.
    """

    def __init__(self, url: sa.URL) -> None:
        self._engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        self._lock = threading.Lock()

    def fails(self, transaction: Transaction) -> bool:
        """Carry a transaction out; whether one of its statements fails, and so nothing of it is done."""
        with self._lock, self._engine.connect() as connection:
            try:
                for statement in transaction:
                    connection.exec_driver_sql(statement, execution_options={"no_parameters": True})
            except sa.exc.DBAPIError:
                connection.rollback()
                return True
            connection.commit()
            return False

    def close(self) -> None:
        """Close what is open."""
        self._engine.dispose()


def replays(
    workloads: Mapping[Side, Workload],
    *,
    project: Project,
    server: Server,
    data: str | Path | None,
    rate: float | None,
    stack: ExitStack,
) -> dict[Side, tuple[Replay, Without]]:
    """What is recorded of each release, and a database of its own to compare with, with the same first rows."""
    made: dict[Side, tuple[Replay, Without]] = {}
    for release, workload in workloads.items():
        sessions = [session for path in workload.recordings for session in read(path).sessions]
        if not sessions:
            continue
        url = server.create_database()
        stack.callback(server.drop_database, url)
        project.prepare(url, project.old)
        if data is not None:
            run_script(url, Path(data).read_text(encoding="utf-8"))
        if release == "new":
            project.prepare(url, project.new)
        without = Without(url)
        stack.callback(without.close)
        made[release] = Replay(sessions=sessions, rate=rate), without
    return made
