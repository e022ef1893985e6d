"""The server of a rehearsal, and how its database is reached: straight, or through a proxy."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from contraflow.problems import Problem, ProblemError
from contraflow.rehearsal import servers
from contraflow.rehearsal.proxy import FaultProxy
from contraflow.rehearsal.servers import Progress, Server

__all__ = ["Way", "find", "flavour", "port_of", "unencrypted"]

_PORTS = {"postgresql": 5432, "cockroachdb": 26257, "mysql": 3306, "mariadb": 3306}
"""Where a server listens if its URL does not say."""

_IN_STEP = {"init_command": "SET SESSION wsrep_sync_wait = 15"}
"""Each statement first waits for what other nodes had committed by then. Without it, a reader at another node than the
writer's may see less than was acknowledged, whether there is an upgrade or not (MariaDB's manual, wsrep_sync_wait)."""


def find(on: str, url: str | None, progress: Progress) -> Server:
    """The server to rehearse on: the one at ``url``, or one of the kind ``on`` that is started for it.

    :raises ProblemError: CF203 if there is none of that kind here, and what `contraflow.rehearsal.servers.start` and
        ``attach`` raise.
    """
    if url is not None:
        server = servers.attach(url)
        if on == "cockroachdb" and server.kind != on:
            raise ProblemError(
                Problem(
                    code="CF203",
                    what=f"the server at the --url is {server.kind} {server.version}, not CockroachDB.",
                    instead="name one that is, or leave out --on.",
                )
            )
        return server
    if on == "cockroachdb":
        raise ProblemError(
            Problem(
                code="CF203",
                what="CockroachDB is not started here.",
                why="no package registry has it.",
                instead="start one, and name it: --on cockroachdb --url"
                " 'cockroachdb+psycopg://root@127.0.0.1:26257/defaultdb?sslmode=disable'.",
            )
        )
    return servers.start(on, progress=progress)


class Way:
    """The ways to one database.

    :param url: the database, on the first node of a cluster.
    :param proxy: whether connections of the releases are to be hurt on their way. To a cluster they always go through a
        proxy, which spreads them over the nodes as a load balancer does.
    :ivar url: the database, straight.
    :ivar urls: the same on each node of a cluster; else it alone.
    :ivar workers: for the releases.
    :ivar proxies: what those connect through, if anything.
    """

    def __init__(self, server: Server, url: sa.URL, *, proxy: bool) -> None:
        straight = [node.url(str(url.database)).update_query_dict(_IN_STEP) for node in server.nodes] or [url]
        self.url: sa.URL = straight[0]
        self.urls: Sequence[sa.URL] = tuple(straight)
        self.workers = self.url
        self.proxies: Sequence[FaultProxy] = ()
        if url.host is not None and (proxy or server.nodes):
            first, *more = ((str(one.host), port_of(one)) for one in straight)
            self.proxies = (FaultProxy(*first, *more),)
            self.workers = unencrypted(self.url).set(host="127.0.0.1", port=self.proxies[0].port)

    def close(self) -> None:
        """Cut what is still connected."""
        for proxy in self.proxies:
            proxy.close()


def flavour(server: Server, url: sa.URL) -> str:
    """Whose SQL the server speaks: ``postgresql``, ``cockroachdb``, ``mysql``, ``mariadb`` or ``sqlite``."""
    return server.kind if server.kind == "cockroachdb" else url.get_backend_name()


def port_of(url: sa.URL) -> int:
    """Where the server listens."""
    return url.port or _PORTS[url.get_backend_name()]


def unencrypted(url: sa.URL) -> sa.URL:
    """``url`` for a connection through a proxy, which reads no encrypted messages."""
    if url.get_backend_name() in ("postgresql", "cockroachdb"):
        return url.update_query_dict({"sslmode": "disable"})
    return url.update_query_dict({"ssl_disabled": "true"})
