"""The nodes of a rehearsal, from the side of the rehearsal: processes that carry out a release's transactions.

A request is ``{"statements": [...]}``, all of one transaction, each of them one of

- ``("insert", table, [values, ...])``: answered with the key of a single row, None for several;
- ``("upsert", table, values, [column, ...])``: INSERT that updates these columns where the key exists;
- ``("update", table, [key, ...], values)`` and ``("delete", table, [key, ...])``: answered with the number of rows;
- ``("select", table, [key])``: answered with the row in the release's own shape, or None; waits for its writers;
- ``("all", table)``: answered with every row;
- ``("keys", table, [key])``: answered with what both releases know the row by, or None; without a key, for every row;

or ``{"sql": [text, ...]}``, one recorded transaction; or ``{"seed": number}``, one call of the release's own workload.
Keys, values and rows are mappings of column name to Python value. The answer is an `Answer`.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.rule import Side

__all__ = ["Answer", "Node", "NodeGone", "Statement", "Workload", "end"]

Statement = tuple[Any, ...]

_START_SECONDS = 120.0
_STOP_SECONDS = 10.0


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Close the standard input of a process that ends then, and kill it if it has not after ``seconds``."""
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of a request.

    :ivar results: one for each statement.
    :ivar fault: what went wrong (a value of `contraflow.Fault`), None if nothing did.
    :ivar error: the same, in the words of the driver.
    :ivar seconds: how long the release waited for it, retries included.
    :ivar retried: the faults that it was retried for, and got over.
    """

    results: Sequence[Any] = ()
    fault: str | None = None
    error: str = ""
    seconds: float
    retried: Sequence[str] = ()

    @property
    def ok(self) -> bool:
        """Whether the transaction is known to be committed."""
        return self.fault is None


@dataclass(frozen=True, kw_only=True)
class Workload:
    """How one release's transactions are made and carried out.

    :ivar python: the interpreter of the release; None for the present one.
    :ivar call: ``module:function`` of the user's own workload, called with an engine and a `random.Random` again and
        again; None for the generated one.
    :ivar folder: where that module is found.
    :ivar recordings: files of recorded SQL to be replayed instead: see `contraflow.rehearsal.recorded`.
    """

    python: str | None = None
    call: str | None = None
    folder: Path = Path()
    recordings: tuple[Path, ...] = ()

    @property
    def own(self) -> bool:
        """Whether the statements are the user's, so that nobody can foretell a row."""
        return self.call is not None or bool(self.recordings)


class NodeGone(Exception):
    """The node's process has ended while it was asked."""


class Node:
    """One node of a release: a process with some workers. A context manager that stops it.

    :param tables: the tables in the release's shape, as `contraflow.rehearsal.shapes.columns_of` tells them.
    :ivar versions: of Python, SQLAlchemy and the driver that the release has.
    :param upgrade: what `contraflow.rehearsal.project.Project` takes, where tables of it need an `OpaqueWriter`.
    :param timeout: seconds after which the node gives up a connection that does not answer.
    :raises ProblemError: CF201 if it does not start.
    """

    def __init__(
        self,
        *,
        release: Side,
        url: sa.URL,
        tables: Sequence[Mapping[str, Any]],
        workers: int,
        timeout: float = 30.0,
        workload: Workload | None = None,
        upgrade: Mapping[str, Any] | None = None,
    ) -> None:
        self.release = release
        workload = workload or Workload()
        secret = secrets.token_bytes(16)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the node
        self._connections: list[Connection] = []
        self.versions: Mapping[str, str] = {}
        with Listener(authkey=secret) as listener:
            python = workload.python or sys.executable
            try:
                self.process = subprocess.Popen(
                    [python, str(Path(__file__).with_name("node.py"))],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=self._errors,
                    start_new_session=True,  # Ctrl-C is for the rehearsal, which stops its nodes in good order
                )
            except OSError as error:
                self._errors.close()
                raise self._not_started(f"{python}: {error.strerror}") from error
            configuration = {
                "address": listener.address,
                "secret": secret.hex(),
                "url": url.render_as_string(hide_password=False),
                "workers": workers,
                "timeout": timeout,
                "tables": list(tables),
                "upgrade": upgrade,
                "workload": workload.call,
                "folder": os.path.abspath(workload.folder),
            }
            try:
                self._tell(configuration)
                self._meet(listener, workers)
            except BaseException:
                self.stop()
                raise

    def ask(self, worker: int, request: dict[str, Any]) -> Answer:
        """Let one worker carry out a request; a worker is asked by one thread at a time.

        :raises NodeGone: if the node ends before it has answered.
        """
        connection = self._connections[worker]
        try:
            connection.send(request)
            answer = connection.recv()
        except (EOFError, OSError) as error:
            raise NodeGone(f"the node of the {self.release} release is gone") from error
        return Answer(
            results=answer.get("result") or (),
            fault=answer.get("fault"),
            error=answer.get("error", ""),
            seconds=answer["seconds"],
            retried=answer["retried"],
        )

    def stop(self) -> None:
        """Let it end; kill it if it does not."""
        end(self.process, _STOP_SECONDS)
        for connection in self._connections:
            connection.close()
        self._errors.close()

    def _tell(self, configuration: dict[str, Any]) -> None:
        pipe = self.process.stdin
        assert pipe is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # it has ended already, as will be noticed when it does not call
            pipe.write(json.dumps(configuration).encode() + b"\n")
            pipe.flush()

    def _meet(self, listener: Listener, workers: int) -> None:
        """Accept the connection of each worker."""
        # accept() has no timeout of its own: a node that ends or hangs is noticed by calling it here.
        met = threading.Event()
        watch = threading.Thread(target=self._watch, args=(listener.address, met), daemon=True)
        watch.start()
        try:
            for _ in range(workers):
                connection = listener.accept()
                self._connections.append(connection)
                told = connection.recv()
                if "complaint" in told:
                    raise self._not_started(told["complaint"])
                self.versions = told["versions"]
        except (EOFError, OSError) as error:
            raise self._not_started(self._last_words()) from error
        finally:
            met.set()
            watch.join()

    def _watch(self, address: Any, met: threading.Event) -> None:
        waited = 0.0
        while not met.wait(0.1):
            waited += 0.1
            if self.process.poll() is not None or waited > _START_SECONDS:
                self.process.kill()
                # A caller without the secret makes accept() raise.
                with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as knock:
                    knock.connect(address)
                return

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else f"exit code {self.process.poll()}, no output"

    def _not_started(self, reason: str) -> ProblemError:
        return ProblemError(
            Problem(
                code="CF201",
                what=f"the {self.release} release's node did not start: {reason}",
                instead="its interpreter needs SQLAlchemy and the database driver; see --old-python, --new-python.",
            )
        )
