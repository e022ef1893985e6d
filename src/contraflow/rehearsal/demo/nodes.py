"""Nodes of the example service as processes, and the balancer in front of them."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal.nodes import end

__all__ = ["Balancer", "Node", "find_example", "scratch_folder"]

_READY = "listening on http://127.0.0.1:"
_START_SECONDS = 60.0
_STOP_SECONDS = 30.0


def find_example() -> Path:
    """The folder of the example service: shipped beside this package, or in the source tree.

    :raises ProblemError: CF301 if it is in neither place.
    """
    here = Path(__file__).resolve()
    places = (here.parents[1] / "_identity", here.parents[4] / "examples" / "identity")
    for place in places:
        if (place / "alembic.ini").is_file():
            return place
    raise ProblemError(
        Problem(
            code="CF301",
            what="the example service is not installed.",
            why=f"it was looked for in {' and '.join(map(str, places))}.",
            instead="install contraflow from a wheel, or run from a checkout.",
        )
    )


class Node:
    """One node: a process that serves until it is stopped, its standard input closes, or its starter dies."""

    def __init__(self, *, name: str, release: int, url: str, example: Path, logs: Path) -> None:
        self.name = name
        self.release = release
        self.in_flight = 0
        self.log = logs / f"{name}.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "identity.node", "--until-eof"),
                    *("--release", str(release), "--url", url, "--name", name),
                ],
                cwd=example,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the demo, which stops its nodes in good order
            )
        self.port = 0

    def wait_until_ready(self) -> None:
        """Wait for the line that says where the node listens.

        :raises ProblemError: CF201 if the node ends without it, or takes longer than a minute.
        """
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        late = threading.Timer(_START_SECONDS, self.process.kill)
        late.daemon = True  # Ctrl-C may come before it can be cancelled, and is not to wait for it
        try:
            late.start()
            line = self.process.stdout.readline().decode()
        finally:
            late.cancel()
        if _READY not in line:
            self.stop()
            raise ProblemError(Problem(code="CF201", what=f"node {self.name} did not start: {self.last_words()}"))
        self.port = int(line.rpartition(":")[2])

    def stop(self) -> None:
        """Close the node's standard input and wait until it has ended; kill it if it does not."""
        end(self.process, _STOP_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def last_words(self) -> str:
        """The last line of what the node has written to its standard error."""
        written = self.log.read_text(errors="replace").strip().splitlines()
        lines = [line for line in written if not line.startswith("(Background on this error")]
        return lines[-1] if lines else f"exit code {self.process.poll()}, no output"


class Balancer:
    """Spreads requests over the nodes in rotation."""

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._changed = threading.Condition()

    def add(self, node: Node) -> None:
        """Take ``node`` into rotation."""
        with self._changed:
            self._nodes.append(node)

    def drain(self, node: Node) -> None:
        """Take ``node`` out of rotation and wait until it has answered what it was sent."""
        with self._changed:
            self._nodes.remove(node)
            self._changed.wait_for(lambda: node.in_flight == 0)

    @contextmanager
    def pick(self, rng: random.Random) -> Iterator[Node]:
        """A node in rotation, for one request."""
        with self._changed:
            node = rng.choice(self._nodes)
            node.in_flight += 1
        try:
            yield node
        finally:
            with self._changed:
                node.in_flight -= 1
                self._changed.notify_all()


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="contraflow-demo-") as folder:
        yield Path(folder)
