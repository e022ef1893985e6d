"""A stand-in for CockroachDB: PostgreSQL's protocol in front of a real PostgreSQL, with CockroachDB's manners.

It introduces itself as CockroachDB, refuses statements at chosen points with CockroachDB's codes and texts, turns
PostgreSQL's serialization failures into CockroachDB's, and honours the protocol of ``SAVEPOINT cockroach_restart``
(RELEASE is the commit; ROLLBACK TO begins again with a new snapshot; after RELEASE nothing but COMMIT). Isolation is
PostgreSQL's SERIALIZABLE. What it is not: CockroachDB's SQL, its schema changes, its locks.

Statements are understood when they come as simple queries, as psycopg2 sends all, and psycopg those without
parameters unless it prepares them; the others pass.
"""

from __future__ import annotations

import contextlib
import re
import socket
import struct
import threading
from dataclasses import dataclass
from types import TracebackType

import sqlalchemy as sa
from typing_extensions import Self

VERSION = b"CockroachDB CCL v25.2.2 (x86_64-pc-linux-gnu, built 2025/06/23 15:40:10, go1.23.7)"
RETRY = "restart transaction: TransactionRetryWithProtoRefreshError: TransactionRetryError: retry txn "
SAVEPOINT = b"cockroach_restart"
_SSL, _GSS = 80877103, 80877104


@dataclass
class Refusal:
    """Refuse statements that match, with ``sqlstate`` and ``text``, so many times."""

    pattern: re.Pattern[bytes]
    sqlstate: str
    text: str
    times: int


class CockroachDouble:
    """Listens on ``port``; ``log`` has every simple query, in order; ``refused`` counts."""

    def __init__(self, target: sa.URL) -> None:
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
    """One client's session: ``state`` is I(dle), T(ransaction), E(rror) or R(eleased), as CockroachDB sees it."""

    def __init__(self, double: CockroachDouble, client: socket.socket, server: socket.socket) -> None:
        self.double = double
        self.client = client
        self.server = server
        self.state = b"I"
        self.restartable = False

    def run(self) -> None:
        with self.client, self.server, contextlib.suppress(OSError, EOFError):
            self._greet()
            while True:
                kind, body = _message(self.client)
                if kind == b"Q":
                    self._query(body.rstrip(b"\0"))
                elif kind == b"X":
                    return
                else:
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

    def _query(self, statement: bytes) -> None:
        self.double.log.append(statement.decode())
        word = statement.strip().rstrip(b";").upper()
        ends = word in (b"ROLLBACK", b"ABORT")
        to_restart = word.startswith(b"ROLLBACK TO") and SAVEPOINT.upper() in word
        refusal = self.double.due(statement)
        if refusal is not None:
            self._refuse(refusal.sqlstate, refusal.text)
        elif self.state == b"R":
            if word == b"COMMIT" or ends:
                self._answer(b"COMMIT", b"I")
            else:
                self._refuse(
                    "25000", "current transaction is committed, commands ignored until end of transaction block"
                )
        elif to_restart and self.restartable:
            self._swallow(b"ROLLBACK")
            self._swallow(b"BEGIN ISOLATION LEVEL SERIALIZABLE")
            self._swallow(b"SAVEPOINT " + SAVEPOINT)
            self._answer(b"ROLLBACK", b"T")
        elif self.state == b"E" and not ends and word != b"COMMIT":
            self._refuse("25P02", "current transaction is aborted, commands ignored until end of transaction block")
        elif word.startswith(b"RELEASE") and SAVEPOINT.upper() in word:
            error = self._swallow(b"COMMIT")
            if error is None:
                self._answer(b"RELEASE", b"R")
            else:
                self.client.sendall(error)
                self._ready(b"E")
        else:
            if self.state == b"E":
                statement = b"ROLLBACK"
            self.restartable = (self.restartable and not ends) or SAVEPOINT.upper() in word
            self.server.sendall(_packed(b"Q", statement + b"\0"))
            self._relay()

    def _extended(self, kind: bytes, body: bytes) -> None:
        """Statements with parameters, and prepared ones: passed on, up to the answer to Sync."""
        self.server.sendall(_packed(kind, body))
        if kind == b"S":
            self._relay()

    def _relay(self) -> None:
        while True:
            kind, body = _message(self.server)
            if kind == b"Z":
                self._ready(body)
                return
            self.client.sendall(_as_cockroachdb(kind, body))

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

    def _answer(self, tag: bytes, state: bytes) -> None:
        self.client.sendall(_packed(b"C", tag + b"\0"))
        self._ready(state)

    def _refuse(self, sqlstate: str, text: str) -> None:
        fields = f"SERROR\0VERROR\0C{sqlstate}\0M{text}\0\0"
        self.client.sendall(_packed(b"E", fields.encode()))
        self._ready(b"E" if self.state != b"I" else b"I")

    def _ready(self, state: bytes) -> None:
        self.state = state
        self.client.sendall(_packed(b"Z", b"T" if state == b"R" else state))


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
