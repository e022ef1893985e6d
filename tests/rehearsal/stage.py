"""A small stage for faults: a database with the service of the engine's tests, and workers of its old release."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import sqlalchemy as sa

from contraflow.engine import Progress
from contraflow.operations.planning import Upgrade
from contraflow.rehearsal.faults import Fault
from contraflow.rehearsal.injector import Injector
from contraflow.rehearsal.proxy import FaultProxy
from contraflow.rehearsal.record import FaultRecord, Finding, Try
from contraflow.rehearsal.runner_process import Source
from contraflow.rehearsal.servers import Server
from contraflow.retry import Attempt, run_transaction
from tests.engine import service
from tests.servers.shared import new_engine

ROOT = Path(__file__).parents[2]
# So long a lease that there is no heartbeat, which might be hit in place of the statement that is meant.
SOURCE = Source(
    upgrade="tests.engine.service:upgrade",
    options=replace(service.FAST, max_batch_size=200, lease=3600.0),
    folder=str(ROOT),
)


def users_only() -> Upgrade:
    """The upgrade of the one table that the workers use."""
    return service.upgrade(tables=("users",))


@dataclass(kw_only=True)
class SmallStage:
    """What `contraflow.rehearsal.strikes.Stage` asks for, and lists of what was told."""

    server: Server
    url: sa.URL
    proxies: Sequence[FaultProxy] = ()
    urls: Sequence[sa.URL] = ()
    workers: sa.URL | None = None
    """How workers reach the database, if they are not to find out themselves."""
    tables: Sequence[tuple[str | None, str]] = ((None, "users"), (None, "items"))
    upgrade: str = "tests.engine.service:upgrade"
    faults: list[FaultRecord] = field(default_factory=list)
    tries: list[Try] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _began: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.urls = self.urls or (self.url,)

    def now(self) -> float:
        return time.monotonic() - self._began

    def struck(self, fault: FaultRecord) -> None:
        self.faults.append(fault)

    def tried(self, one: Try) -> None:
        self.tries.append(one)

    def found(self, finding: Finding) -> None:
        self.findings.append(finding)

    def progress(self, progress: Progress) -> None:
        pass

    def take_back(self) -> str:
        raise NotImplementedError("there is no second release here")

    @property
    def outcomes(self) -> list[str]:
        return [one.outcome for one in self.tries]

    def injector(self, *faults: Fault, seed: int = 0) -> Injector:
        return Injector(faults, self, source=replace(SOURCE, upgrade=self.upgrade), seed=seed)

    def worker_url(self) -> sa.URL:
        """How workers reach the database: through the proxy, if there is one; with every wait bounded."""
        if self.workers is not None:
            return self.workers
        if not self.proxies:
            return self.url
        url = self.url.set(host="127.0.0.1", port=self.proxies[0].port)
        if url.get_backend_name() == "postgresql":
            return url.update_query_dict({"connect_timeout": "5"})
        # Messages can be recognised only where they are not encrypted.
        bounded = {"connect_timeout": "5", "read_timeout": "10", "write_timeout": "10"}
        return url.update_query_dict({**bounded, "ssl_disabled": "true"})


@contextlib.contextmanager
def small_stage(server: Server, *, rows: int = 30) -> Iterator[SmallStage]:
    """A fresh database on ``server``, with the old release's tables."""
    url = server.create_database()
    engine = new_engine(url)
    service.make_tables(engine, rows=rows)
    engine.dispose()
    with contextlib.ExitStack() as stack:
        proxies = [] if url.host is None else [stack.enter_context(FaultProxy(url.host, url.port or 0))]
        try:
            yield SmallStage(server=server, url=url, proxies=proxies)
        finally:
            server.drop_database(url)


@dataclass(kw_only=True)
class Load:
    """Workers of the old release: each inserts rows of its own and updates two that all share, in one transaction."""

    stage: SmallStage
    workers: int = 3
    written: list[int] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._engine = new_engine(self.stage.worker_url(), pool_size=self.workers)

    @property
    def at_work(self) -> bool:
        """Whether every worker is connected and has written."""
        return len({number % self.workers for number in list(self.written)}) == self.workers

    @contextlib.contextmanager
    def running(self) -> Iterator[Load]:
        """Let them work while the block runs."""
        threads = [threading.Thread(target=self._work, args=(number,)) for number in range(self.workers)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self._engine.dispose()

    def _work(self, worker: int) -> None:
        number = 1000 + worker
        while not self._stop.wait(0.01):
            number += self.workers
            try:
                run_transaction(
                    self._engine,
                    self._transaction(number),
                    attempts=None,
                    deadline=300,
                    idempotent=True,
                    on_retry=self._retried,
                )
            except Exception as error:  # noqa: BLE001 - whatever it is, a test looks at it
                self.failed.append(f"{type(error).__name__}: {error}")
            else:
                self.written.append(number)

    def _retried(self, attempt: Attempt) -> None:
        self.retried[attempt.fault.value] += 1

    def _transaction(self, number: int) -> Callable[[sa.Connection], None]:
        def transaction(connection: sa.Connection) -> None:
            if service.count(connection, "SELECT count(*) FROM users WHERE id = :n", n=number):
                return  # an answer was lost, the commit was not
            service.run(
                connection,
                "INSERT INTO users (id, full_name, email) VALUES (:n, :name, 'e')",
                n=number,
                name=f"Old N{number}",
            )
            for key in (1, 2):
                service.run(connection, "UPDATE users SET visits = visits + 1 WHERE id = :key", key=key)

        return transaction
