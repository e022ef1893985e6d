"""A TCP proxy that hurts connections to a database at a chosen moment of its protocol.

Between an application and its server, on loopback; or between it and the nodes of a cluster, as a load balancer. It can
lose exactly the answer to a COMMIT, which no signal to a server process can be timed to do::

    with FaultProxy("127.0.0.1", 5432) as proxy:
        proxy.harm(COMMIT, Harm.CUT, when=When.ANSWERED)  # committed, but the client is never told
        ...  # connect to proxy.port

Messages are recognised by bytes in them, so encrypted connections cannot be hurt at a moment, only at once.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["COMMIT", "FaultProxy", "Harm", "When"]


COMMIT = "[\\x00-\\x1f]COMMIT"
"""COMMIT as a whole statement, as every driver of PostgreSQL and MySQL sends it; not SET AUTOCOMMIT."""


class Harm(enum.Enum):
    """What is done to a connection."""

    CUT = "reset: both sides notice at once"
    BLACK_HOLE = "it stays open, and nothing passes in either direction any more"
    DELAY = "what triggered it is held back for a time, then passes"
    REPLACE = "the server gets another statement in its place, such as one that fails"


class When(enum.Enum):
    """At which moment of a statement."""

    SENT = "the client has sent it, the server has not seen it"
    ANSWERED = "the server has carried it out, the client has not seen the answer"


@dataclass(kw_only=True, eq=False)
class _Rule:
    marker: re.Pattern[bytes]
    harm: Harm
    when: When
    seconds: float
    left: int | None
    instead: bytes = b""
    every: int = 1
    met: int = 0
    fired: int = 0


class _Link:
    """One client's connection and the one to the server that belongs to it."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self.client = client
        self.server = server
        self.hole = False
        self.closed = False
        self.armed: _Rule | None = None

    def cut(self) -> bool:
        """Reset both: no orderly farewell, as when a host or a firewall goes away. False if it was closed already."""
        was_open, self.closed = not self.closed, True
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RD)  # wakes the thread that reads it
            with contextlib.suppress(OSError):
                end.close()
        return was_open


class FaultProxy:
    """Listens on ``port`` of 127.0.0.1 and forwards to a server. Safe to use from several threads.

    :param more: further servers of the same cluster: connections go to one after the other, and past one that is not
        there.
    :ivar port: where it listens.
    :ivar fired: how often a rule of `harm` has been applied.
    :ivar accepted: how many connections were let through.
    """

    def __init__(self, host: str, port: int, *more: tuple[str, int]) -> None:
        self._targets = [(host, port), *more]
        self._order = itertools.cycle(self._targets)
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._links: list[_Link] = []
        self._threads: list[threading.Thread] = []
        self._refusing = False
        self._closing = threading.Event()
        self.fired = 0
        self.accepted = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    def harm(
        self, marker: str, harm: Harm, *, when: When = When.SENT, times: int | None = 1, seconds: float = 0.0
    ) -> None:
        """Do ``harm`` to a connection whose client sends ``marker``.

        :param marker: a regular expression, searched for in what the client sends, in upper or lower case; `COMMIT`
            is one.
        :param times: how many times, over all connections; None for always.
        :param seconds: how long, for `Harm.DELAY`.
        """
        with self._lock:
            self._rules.append(
                _Rule(
                    marker=re.compile(marker.encode(), re.IGNORECASE), harm=harm, when=when, seconds=seconds, left=times
                )
            )

    @contextlib.contextmanager
    def harming(
        self,
        marker: str,
        harm: Harm,
        *,
        when: When = When.SENT,
        seconds: float = 0.0,
        instead: str = "",
        times: int | None = None,
        every: int = 1,
    ) -> Iterator[Callable[[], int]]:
        """Do ``harm``, as the method of that name does, while the block runs; yields how often it was done so far.

        :param instead: the statement that the server gets, for `Harm.REPLACE`. Only a message that holds one whole
            statement can be replaced; others pass.
        :param every: spare all but one in so many.
        """
        rule = _Rule(
            marker=re.compile(marker.encode(), re.IGNORECASE),
            harm=harm,
            when=when,
            seconds=seconds,
            left=times,
            instead=instead.encode(),
            every=every,
        )
        with self._lock:
            self._rules.append(rule)
        try:
            yield lambda: rule.fired
        finally:
            with self._lock, contextlib.suppress(ValueError):  # `restore` has forgotten it
                for link in self._links:
                    if link.armed is rule:
                        link.armed = None
                self._rules.remove(rule)

    def cut(self, *, silent_only: bool = False) -> int:
        """Reset every connection now, or only those in a black hole; returns how many were open."""
        with self._lock:
            links = [link for link in self._links if link.hole or not silent_only]
            self._links = [link for link in self._links if link not in links]
        return sum([link.cut() for link in links])

    def black_hole(self) -> int:
        """Let nothing pass on the present connections from now on; returns how many there are."""
        with self._lock:
            open_links = [link for link in self._links if not link.closed]
            for link in open_links:
                link.hole = True
        return len(open_links)

    def refuse(self) -> None:
        """Reset new connections as soon as they are made, until `restore`."""
        self._refusing = True

    def restore(self) -> None:
        """Forget all rules and let new connections pass; one in a black hole stays there."""
        with self._lock:
            self._rules.clear()
            self._refusing = False

    def close(self) -> None:
        """Stop listening, reset what is open and wait for the threads."""
        self._closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="contraflow-proxy", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = self._connect()
            if server is None:
                client.close()
                continue
            link = _Link(client, server)
            if self._refusing:
                link.cut()
                continue
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self.accepted += 1
                self._links.append(link)
            self._start(self._pump, link, True)
            self._start(self._pump, link, False)

    def _connect(self) -> socket.socket | None:
        """A connection to the next server that takes one."""
        for _ in self._targets:
            with contextlib.suppress(OSError):
                return socket.create_connection(next(self._order))
        return None

    def _pump(self, link: _Link, upward: bool) -> None:
        source, sink = (link.client, link.server) if upward else (link.server, link.client)
        try:
            while data := self._whole(source) if upward else source.recv(_CHUNK):
                rule = self._due(link, data) if upward else self._armed(link)
                if rule is not None and not self._apply(link, rule):
                    return
                if rule is not None and rule.harm is Harm.REPLACE:
                    data = replaced(data, rule.instead) or data
                if not link.hole:
                    sink.sendall(data)
            link.closed = True
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            # Either end has gone, or `cut` has closed them.
            link.cut()

    def _whole(self, client: socket.socket) -> bytes:
        """What the client sends next. A statement to replace is whole, however many pieces it comes in: libpq sends
        each 8 KiB as soon as they are full.
        """
        data = client.recv(_CHUNK)
        if unfinished(data) and self._to_replace(data):
            pieces = bytearray(data)
            while unfinished(pieces) and (more := client.recv(_CHUNK)):
                pieces += more
            data = bytes(pieces)
        return data

    def _to_replace(self, data: bytes) -> bool:
        with self._lock:
            rules = [rule for rule in self._rules if rule.harm is Harm.REPLACE and rule.left != 0]
        return any(rule.marker.search(data) for rule in rules)

    def _due(self, link: _Link, data: bytes) -> _Rule | None:
        """The rule that this message of the client's sets off now; one for the answer is kept for that."""
        with self._lock:
            for rule in self._rules:
                if rule.marker.search(data) and rule.left != 0:
                    if rule.harm is Harm.REPLACE and replaced(data, rule.instead) is None:
                        continue
                    rule.met += 1
                    if rule.met % rule.every:
                        continue
                    if rule.left is not None:
                        rule.left -= 1
                    if rule.when is When.SENT:
                        return self._counted(rule)
                    link.armed = rule
        return None

    def _armed(self, link: _Link) -> _Rule | None:
        with self._lock:
            rule, link.armed = link.armed, None
            return self._counted(rule) if rule is not None else None

    def _counted(self, rule: _Rule) -> _Rule:
        """The rule, which is about to be applied; the lock is held."""
        self.fired += 1
        rule.fired += 1
        return rule

    def _apply(self, link: _Link, rule: _Rule) -> bool:
        """Do what ``rule`` says; False if the connection is gone."""
        if rule.harm is Harm.CUT:
            link.cut()
            return False
        if rule.harm is Harm.BLACK_HOLE:
            link.hole = True
        elif rule.harm is Harm.DELAY:
            self._closing.wait(rule.seconds)
        return True


_CHUNK = 65536
_SYNC = b"S\x00\x00\x00\x04"
_OF_EXTENDED = frozenset({b"P", b"B", b"D", b"E", b"C"})
"""Parse, Bind, Describe, Execute, Close: more follows."""
_OF_QUERIES = _OF_EXTENDED | {b"Q", b"S", b"H"}
"""And Query, Sync, Flush."""
_NO_ATTRIBUTES = b"\x00\x01"


def replaced(data: bytes, statement: bytes) -> bytes | None:
    """The message with which a client would send ``statement`` instead; None if ``data`` is not one whole statement.

    Of PostgreSQL's protocol (manual, chapter "Frontend/Backend Protocol"): a Query, or all of an extended query up to
    its Sync; both are answered alike. Of MySQL's: a COM_QUERY, with or without (no) query attributes.
    """
    length = len(data)
    simple = data[:1] == b"Q" and int.from_bytes(data[1:5], "big") == length - 1
    if simple or (data[:1] in (b"P", b"B") and data.endswith(_SYNC)):
        return b"Q" + (len(statement) + 5).to_bytes(4, "big") + statement + b"\x00"
    if int.from_bytes(data[:3], "little") == length - 4 and data[3:5] == b"\x00\x03":
        body = (_NO_ATTRIBUTES if data[5:7] == _NO_ATTRIBUTES else b"") + statement
        return (len(body) + 1).to_bytes(3, "little") + b"\x00\x03" + body
    return None


def unfinished(data: bytes | bytearray) -> bool:
    """Whether more is to come of the statement that ``data`` begins, in the protocols of `replaced`.

    Of PostgreSQL's, an extended query ends with a Sync, or with a Flush, after which the client waits for an answer.
    What is none of the messages that queries are made of is never waited for.
    """
    if data[3:5] == b"\x00\x03":  # as no message of PostgreSQL's of less than 64 KiB
        return len(data) < 4 + int.from_bytes(data[:3], "little")
    place, kind = 0, b""
    while place < len(data):
        kind, length = bytes(data[place : place + 1]), data[place + 1 : place + 5]
        if kind not in _OF_QUERIES:
            return False
        if len(length) < 4:
            return True
        place += 1 + int.from_bytes(length, "big")
    return place > len(data) or kind in _OF_EXTENDED
