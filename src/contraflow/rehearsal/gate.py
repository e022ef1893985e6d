"""Holds all clients of a rehearsal or demo between two of their requests."""

from __future__ import annotations

import threading

__all__ = ["Gate"]


class Gate:
    """What clients pass between two requests; whoever closes it knows that none is under way.

    :param clients: how many threads pass it.
    """

    def __init__(self, clients: int) -> None:
        self._running = clients
        self._closed = False
        self._changed = threading.Condition()

    def close(self) -> None:
        """Return when every client stands between two requests."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: self._running == 0)

    def open(self) -> None:
        """Let the clients go on."""
        with self._changed:
            self._closed = False
            self._changed.notify_all()

    def leave(self) -> None:
        """A client has ended."""
        with self._changed:
            self._running -= 1
            self._changed.notify_all()

    def pause(self) -> None:
        """Stand still here while the gate is closed."""
        with self._changed:
            if not self._closed:
                return
            self._running -= 1
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._closed)
            self._running += 1
