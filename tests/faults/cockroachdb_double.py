"""A stand-in for CockroachDB: PostgreSQL's protocol in front of a real PostgreSQL, with CockroachDB's manners.

It introduces itself as CockroachDB, refuses statements at chosen points with CockroachDB's codes and texts, turns
PostgreSQL's serialization failures into CockroachDB's, and honours the protocol of ``SAVEPOINT cockroach_restart``
(RELEASE is the commit; ROLLBACK TO begins again with a new snapshot; after RELEASE nothing but COMMIT). Isolation is
PostgreSQL's SERIALIZABLE. What it is not: CockroachDB's SQL, its schema changes, its locks.

Statements are understood however they come: as simple queries (psycopg2 sends all so, psycopg most that have no
parameters), and prepared ones when they are executed (asyncpg sends all but BEGIN, COMMIT and ROLLBACK so).
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

import sqlalchemy as sa
from typing_extensions import Self

VERSION = b"CockroachDB CCL v25.2.2 (x86_64-pc-linux-gnu, built 2025/06/23 15:40:10, go1.23.7)"
RETRY = "restart transaction: TransactionRetryWithProtoRefreshError: TransactionRetryError: retry txn "
SAVEPOINT = b"cockroach_restart"
_SSL, _GSS = 80877103, 80877104
# The last message of the server's answer to each message of the extended protocol, if there is no error: ParseComplete,
# BindComplete, CloseComplete, RowDescription or NoData, CommandComplete or EmptyQueryResponse or PortalSuspended
# (PostgreSQL's manual, "Message Formats").
_LAST = {b"P": b"1", b"B": b"2", b"C": b"3", b"D": b"Tn", b"E": b"CIs"}


@dataclass
class Refusal:
    """Refuse statements that match, with ``sqlstate`` and ``text``, so many times."""

    pattern: re.Pattern[bytes]
    sqlstate: str
    text: str
    times: int


class CockroachDouble:
    """Listens on ``port``; ``log`` has every statement that was run, in order; ``refused`` counts.

    :param words: what the server behind gets in place of words that it does not know, in simple queries.
    """

    def __init__(self, target: sa.URL, words: Mapping[bytes, bytes] | None = None) -> None:
        self.words = words or {}
        self._target = (str(target.host), int(target.port or 0))
        self._refusals: list[Refusal] = []
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.log: list[str] = []
        self.refused = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def refuse(self, pattern: str, sqlstate: str, text: str = RETRY + "(RETRY_SERIALIZABLE)", times: int = 1) -> None:
        """Refuse the next ``times`` statements that match ``pattern``."""
        self._refusals.append(Refusal(re.compile(pattern.encode(), re.IGNORECASE), sqlstate, text, times))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for end in self._open:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def due(self, statement: bytes) -> Refusal | None:
        """The refusal that this statement meets, counted down."""
        with self._lock:
            for refusal in self._refusals:
                if refusal.times and refusal.pattern.search(statement):
                    refusal.times -= 1
                    self.refused += 1
                    return refusal
        return None

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._target)
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open += (client, server)
            threading.Thread(target=_Conversation(self, client, server).run, daemon=True).start()


class _Conversation:
    """One client's session: ``state`` is I(dle), T(ransaction), E(rror) or R(eleased), as CockroachDB sees it.

    ``differs`` says whether the double has answered last, so that the server behind may be in another state.
    """

    def __init__(self, double: CockroachDouble, client: socket.socket, server: socket.socket) -> None:
        self.double = double
        self.client = client
        self.server = server
        self.state = b"I"
        self.differs = False
        self.restartable = False
        self.failed = False  # in the extended protocol: nothing is done until Sync
        self.prepared: dict[bytes, bytes] = {}
        self.portals: dict[bytes, bytes] = {}

    def run(self) -> None:
        with self.client, self.server, contextlib.suppress(OSError, EOFError):
            self._greet()
            while True:
                kind, body = _message(self.client)
                if kind == b"Q":
                    self._query(body)
                elif kind == b"S":
                    self._sync()
                elif kind == b"X":
                    return
                elif kind in _LAST and not self.failed:
                    self._extended(kind, body)

    def _greet(self) -> None:
        while True:
            (length,) = struct.unpack("!i", _exactly(self.client, 4))
            body = _exactly(self.client, length - 4)
            (code,) = struct.unpack("!i", body[:4])
            if code not in (_SSL, _GSS):
                break
            self.client.sendall(b"N")
        self.server.sendall(struct.pack("!i", length) + body)
        while True:
            kind, body = _message(self.server)
            if kind == b"R" and body != b"\0\0\0\0":
                raise EOFError("the double only stands before servers that trust")
            if kind == b"Z":
                self.client.sendall(_packed(b"S", b"crdb_version\0" + VERSION + b"\0"))
            self.client.sendall(_packed(kind, body))
            if kind == b"Z":
                return

    def _query(self, body: bytes) -> None:
        answer = self._own_answer(body.rstrip(b"\0"))
        if answer is None:
            for known, instead in self.double.words.items():
                body = body.replace(known, instead)
            self.server.sendall(_packed(b"Q", body))
            self._ready(self._relay(b"Z"), differs=False)
        else:
            message, state = answer
            self.client.sendall(message)
            self._ready(state, differs=True)

    def _extended(self, kind: bytes, body: bytes) -> None:
        """One message for a prepared statement; Flush makes the server answer each at once, as nobody needs it to."""
        name, _, rest = body.partition(b"\0")
        if kind == b"P":
            self.prepared[name] = rest.partition(b"\0")[0]
        elif kind == b"B":
            self.portals[name] = self.prepared[rest.partition(b"\0")[0]]
        elif kind == b"E":
            answer = self._own_answer(self.portals[name])
            if answer is not None:
                message, self.state = answer
                self.differs = True
                self.failed = message.startswith(b"E")
                self.client.sendall(message)
                return
            self.differs = False
        self.server.sendall(_packed(kind, body) + _packed(b"H", b""))
        if self._relay(_LAST[kind] + b"E") == b"E":
            self.failed = True
            self.differs = False

    def _sync(self) -> None:
        self.failed = False
        self.server.sendall(_packed(b"S", b""))
        state = self._relay(b"Z")
        self._ready(self.state if self.differs else state, differs=self.differs)

    def _own_answer(self, statement: bytes) -> tuple[bytes, bytes] | None:
        """The double's answer and the state after it; nothing if the server behind shall answer."""
        self.double.log.append(statement.decode())
        word = statement.strip().rstrip(b";").upper()
        ends = word in (b"ROLLBACK", b"ABORT")
        refusal = self.double.due(statement)
        if refusal is not None:
            return self._error(refusal.sqlstate, refusal.text)
        if self.state == b"R":
            if word == b"COMMIT" or ends:
                return _complete(b"COMMIT"), b"I"
            return self._error(
                "25000", "current transaction is committed, commands ignored until end of transaction block"
            )
        if word.startswith(b"ROLLBACK TO") and SAVEPOINT.upper() in word and self.restartable:
            self._swallow(b"ROLLBACK")
            self._swallow(b"BEGIN ISOLATION LEVEL SERIALIZABLE")
            self._swallow(b"SAVEPOINT " + SAVEPOINT)
            return _complete(b"ROLLBACK"), b"T"
        if self.state == b"E":
            if ends or word == b"COMMIT":
                self._swallow(b"ROLLBACK")
                self.restartable = False
                return _complete(b"ROLLBACK"), b"I"
            return self._error(
                "25P02", "current transaction is aborted, commands ignored until end of transaction block"
            )
        if word.startswith(b"RELEASE") and SAVEPOINT.upper() in word:
            error = self._swallow(b"COMMIT")
            return (_complete(b"RELEASE"), b"R") if error is None else (error, b"E")
        self.restartable = (self.restartable and not ends) or SAVEPOINT.upper() in word
        return None

    def _relay(self, last: bytes) -> bytes:
        """Pass on what the server says, up to a message of a kind in ``last``: that kind, or the state if it is Z."""
        while True:
            kind, body = _message(self.server)
            if kind == b"Z":
                return body
            self.client.sendall(_as_cockroachdb(kind, body))
            if kind in last:
                return kind

    def _swallow(self, statement: bytes) -> bytes | None:
        """Run ``statement`` on the server behind; what it says if it fails."""
        self.server.sendall(_packed(b"Q", statement + b"\0"))
        error = None
        while True:
            kind, body = _message(self.server)
            if kind == b"E":
                error = _as_cockroachdb(kind, body)
            if kind == b"Z":
                return error

    def _error(self, sqlstate: str, text: str) -> tuple[bytes, bytes]:
        fields = f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0"
        return _packed(b"E", fields.encode()), b"E" if self.state != b"I" else b"I"

    def _ready(self, state: bytes, *, differs: bool) -> None:
        self.state, self.differs = state, differs
        self.client.sendall(_packed(b"Z", b"T" if state == b"R" else state))


def _complete(tag: bytes) -> bytes:
    return _packed(b"C", tag + b"\0")


def _as_cockroachdb(kind: bytes, body: bytes) -> bytes:
    if kind == b"E" and re.search(rb"\0C40(001|P01)\0", body):  # it reports a deadlock in the same way
        body = body.replace(b"\0C40P01\0", b"\0C40001\0", 1)
        body = re.sub(rb"\0M[^\0]*\0", b"\0M" + RETRY.encode() + b"(RETRY_SERIALIZABLE)\0", body, count=1)
    return _packed(kind, body)


def _message(end: socket.socket) -> tuple[bytes, bytes]:
    kind = _exactly(end, 1)
    (length,) = struct.unpack("!i", _exactly(end, 4))
    return kind, _exactly(end, length - 4)


def _packed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _exactly(end: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = end.recv(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found
