"""Bounding the wait for a metadata lock in fractions of a second, on servers that count whole ones.

A statement of ours that waits for a metadata lock makes every later statement on the table wait behind it.
``lock_wait_timeout`` counts seconds, so a second connection watches the state that the server shows, and ends the
statement with ``KILL QUERY``.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

import sqlalchemy as sa

__all__ = ["Watch", "watching"]


class Watch:
    """Looks every few milliseconds whether one session waits for a metadata lock, and for how long."""

    def __init__(self, connection: sa.Connection, session: int, timeout: float) -> None:
        self.fired = False
        self._connection = connection
        self._session = session
        self._timeout = timeout
        self._interval = max(0.01, timeout / 10)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="contraflow-watch", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; nothing is killed after this returns."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        query = sa.text("SELECT state FROM information_schema.processlist WHERE id = :session")
        seen = time.monotonic()
        # A lost connection ends the watch: lock_wait_timeout still bounds the wait.
        with contextlib.suppress(sa.exc.DBAPIError):
            while not self._done.wait(self._interval):
                state = self._connection.execute(query, {"session": self._session}).scalar()
                now = time.monotonic()
                if not str(state or "").startswith("Waiting for"):
                    seen = now
                elif now - seen >= self._timeout:
                    self.fired = True
                    self._connection.exec_driver_sql(f"KILL QUERY {self._session}")
                    seen = now


@contextlib.contextmanager
def watching(connection: sa.Connection, timeout: float) -> Iterator[Watch]:
    """Watch ``connection`` while the block runs; no wait for a metadata lock outlasts ``timeout`` seconds by much.

    ``Watch.fired`` says whether a statement was killed: it failed with error 1317, or a following one does.
    """
    session = int(connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one())
    with connection.engine.connect() as second:
        second = second.execution_options(isolation_level="AUTOCOMMIT")
        watch = Watch(second, session, timeout)
        watch.start()
        try:
            yield watch
        finally:
            watch.stop()
