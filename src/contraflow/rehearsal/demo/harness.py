"""The demo: one live upgrade of the example service, from the first request to the verdict."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import sqlalchemy as sa

from contraflow.problems import ContraflowError, Problem
from contraflow.rehearsal import servers
from contraflow.rehearsal.demo import rows, verdict
from contraflow.rehearsal.demo.load import Client
from contraflow.rehearsal.demo.nodes import Balancer, Node, find_example, scratch_folder
from contraflow.rehearsal.demo.oracle import Difference
from contraflow.rehearsal.demo.verdict import Verdict
from contraflow.rehearsal.gate import Gate

__all__ = ["Options", "run"]

Progress = Callable[[str], None]

NODES = 3
FIRST_RELEASE = "0001"
EXAMPLES_SHOWN = 10


@dataclass(frozen=True, kw_only=True)
class Options:
    """How a demo is run.

    :ivar on: a kind of server that `contraflow.rehearsal.servers.start` knows.
    :ivar url: an empty database to use instead of starting a server; it is left as it is at the end.
    :ivar users: how many users there are before the upgrade begins; a tenth as many projects.
    :ivar duration: seconds of load, besides the time that starting, upgrading and replacing nodes takes.
    :ivar clients: how many clients send requests at a time.
    :ivar rate: how many requests a second all clients together try to send.
    :ivar seed: makes the clients' choices repeatable (not their interleaving).
    :ivar example: the folder of the example service, if it is not the one that was installed.
    """

    on: str = "sqlite"
    url: str | sa.URL | None = None
    users: int = 3000
    duration: float = 12.0
    clients: int = 6
    rate: float = 240.0
    seed: int = 0
    example: Path | None = None


def _silent(_line: str) -> None:
    """Drop a line of progress."""


def run(options: Options, *, progress: Progress = _silent) -> Verdict:
    """Run one live upgrade under load and judge it.

    ``progress`` gets a line of text now and then. Nothing is left behind, also after an exception or Ctrl-C:
    no process, no file, and no database unless ``options.url`` named it.

    :raises ProblemError: CF203 if ``options.on`` is no server that is known; CF204, CF206 or CF207 if it cannot be
        started; CF201 if ``options.url`` does not answer. What goes wrong later is in the verdict.
    """
    with ExitStack() as stack:
        folder = stack.enter_context(scratch_folder())
        if options.url is not None:
            server = stack.enter_context(servers.attach(options.url))
            url = sa.make_url(options.url)
        else:
            server = stack.enter_context(servers.start(options.on, progress=progress))
            url = server.create_database()
        demo = _Demo(
            options=options,
            server=f"{server.kind} {server.version}",
            url=url,
            folder=folder,
            example=options.example or find_example(),
            progress=progress,
        )
        try:
            return demo.run()
        finally:
            demo.close()


class _RefusedError(ContraflowError):
    """A command of the operator's did not succeed."""


@dataclass(kw_only=True)
class _Demo:
    options: Options
    server: str
    url: sa.URL
    folder: Path
    example: Path
    progress: Progress
    balancer: Balancer = field(default_factory=Balancer)
    nodes: list[Node] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    phases: list[tuple[str, float, float]] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    values: int = 0
    problems: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.gate = Gate(self.options.clients)
        self.engine = sa.create_engine(self.url, poolclass=sa.pool.NullPool)
        self._idle = threading.Event()
        self._started = 0
        self._command: subprocess.Popen[str] | None = None

    def run(self) -> Verdict:
        """Everything from the first table to the verdict; whatever goes wrong is in the verdict."""
        began = time.monotonic()
        try:
            config = self._write_config()
            old = self._begin(config)
            self._upgrade(config, old)
        except ContraflowError as error:
            self.problems.append(str(error))
        self._stop_clients()
        return self._judge(time.monotonic() - began)

    def _begin(self, config: Path) -> list[Node]:
        """Release 1 with its data, its nodes, and clients that use them."""
        self.progress("creating the tables of release 1")
        self._execute("alembic", "-c", str(config), "upgrade", FIRST_RELEASE)
        self.progress(f"seeding {self.options.users} users")
        rng = random.Random(f"{self.options.seed}/seed")  # noqa: S311 - repeatable on purpose
        users, projects = rows.seed(self.engine, users=self.options.users, rng=rng)
        self.progress(f"starting {NODES} nodes of release 1")
        nodes = [self._start_node(1) for _ in range(NODES)]
        for node in nodes:
            node.wait_until_ready()
            self.balancer.add(node)
        count = self.options.clients
        self.clients = [
            Client(
                number=number,
                seed=self.options.seed,
                rate=self.options.rate / count,
                balancer=self.balancer,
                gate=self.gate,
                users=users[number::count],
                projects=projects[number::count],
            )
            for number in range(count)
        ]
        for client in self.clients:
            client.start()
        return nodes

    def _upgrade(self, config: Path, old: list[Node]) -> None:
        """The upgrade itself, as an operator does it."""
        share = self.options.duration / 6
        self._serve("release 1 alone", share)
        for verb in ("expand", "migrate", "verify"):
            with self._phase(verb):
                self._contraflow(config, verb)
        with self._phase("rolling the nodes"):
            for node in old:
                successor = self._start_node(2)
                successor.wait_until_ready()
                self.balancer.add(successor)
                self._wait(share / 2)
                self.balancer.drain(node)
                node.stop()
                self._tell(f"{node.name} is replaced by {successor.name}")
                self._wait(share / 2)
        self.progress("checking every row in both shapes")
        self._check_rows(releases=(1, 2), moment="before contract")
        with self._phase("contract"):
            self._contraflow(config, "contract")
        self._serve("release 2 alone", share)
        self._stop_clients()
        self.progress("checking every row")
        self._check_rows(releases=(2,), moment="after contract")
        self.differences += rows.check_leftovers(self.engine)

    def _serve(self, name: str, seconds: float) -> None:
        with self._phase(name):
            self._wait(seconds)

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._tell(name)
        began = time.monotonic()
        try:
            yield
        finally:
            self.phases.append((name, began, time.monotonic()))

    def _wait(self, seconds: float) -> None:
        self._idle.wait(seconds)

    def _tell(self, what: str) -> None:
        self.progress(f"{what} ({self._count()} requests so far)")

    def _count(self) -> int:
        return sum(len(client.tally.samples) for client in self.clients)

    def _check_rows(self, *, releases: tuple[int, ...], moment: str) -> None:
        """Hold all clients, and every row against what they know."""
        self.gate.close()
        try:
            looked_at, differences = rows.check_rows(
                self.engine,
                releases=releases,
                users=[user for client in self.clients for user in client.users],
                projects=[project for client in self.clients for project in client.projects],
                tokens=[token for client in self.clients for token in client.tokens],
                complete=not any(client.tally.failures for client in self.clients),
                moment=moment,
            )
        finally:
            self.gate.open()
        self.values += looked_at
        self.differences += differences

    def _judge(self, seconds: float) -> Verdict:
        tallies = [client.tally for client in self.clients]
        samples = [sample for tally in tallies for sample in tally.samples]
        failures = [failure for tally in tallies for failure in tally.failures]
        differences = [*(found for tally in tallies for found in tally.differences), *self.differences]
        return Verdict(
            server=self.server,
            served={release: sum(sample.release == release for sample in samples) for release in (1, 2)},
            failed=len(failures),
            differing=len(differences),
            values_checked=self.values + sum(tally.values for tally in tallies),
            phases=verdict.reports(self.phases, samples),
            seconds=seconds,
            problems=tuple(self.problems),
            counterexamples=(*failures[:EXAMPLES_SHOWN], *map(str, differences[:EXAMPLES_SHOWN])),
        )

    # processes

    def _write_config(self) -> Path:
        url = self.url.render_as_string(hide_password=False).replace("%", "%%")
        config = self.folder / "alembic.ini"
        config.write_text(
            f"[alembic]\nscript_location = {self.example / 'migrations'}\npath_separator = os\nsqlalchemy.url = {url}\n"
        )
        return config

    def _start_node(self, release: int) -> Node:
        self._started += 1
        node = Node(
            name=f"node-{self._started}",
            release=release,
            url=self.url.render_as_string(hide_password=False),
            example=self.example,
            logs=self.folder,
        )
        self.nodes.append(node)
        return node

    def _contraflow(self, config: Path, verb: str) -> None:
        self._execute("contraflow.cli", "--config", str(config), verb, "--json")

    def _execute(self, module: str, *arguments: str) -> None:
        """Run a command of an operator's."""
        self._command = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        printed, complaints = self._command.communicate()
        if self._command.returncode != 0:
            command = f"{module.partition('.')[0]} {arguments[-2]}"
            reason = _reason(printed) or complaints.strip()[-2000:]
            raise _RefusedError(f"{command} ended with {self._command.returncode}:\n{reason}")
        self._command = None

    def _stop_clients(self) -> None:
        self.gate.open()
        for client in self.clients:
            client.stop()
        for client in self.clients:
            if client.is_alive():
                client.join()

    def close(self) -> None:
        """End every process that was started."""
        if self._command is not None and self._command.poll() is None:
            self._command.terminate()
            self._command.communicate()
        self._stop_clients()
        for node in self.nodes:
            node.stop()
        self.engine.dispose()


def _reason(printed: str) -> str:
    """The problems in a command's JSON, in words; empty if there are none."""
    try:
        found = json.loads(printed)["problems"]
    except (ValueError, KeyError):
        return ""
    return "\n".join(str(Problem(**problem)) for problem in found)
