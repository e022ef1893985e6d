"""How a rehearsal reaches its database: the upgrade straight, the releases perhaps through a proxy."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from contraflow.rehearsal.proxy import FaultProxy
from contraflow.rehearsal.servers import Server

__all__ = ["Way"]

_PORTS = {"postgresql": 5432, "cockroachdb": 26257, "mysql": 3306, "mariadb": 3306}
"""Where a server listens if its URL does not say."""

_IN_STEP = {"init_command": "SET SESSION wsrep_sync_wait = 15"}
"""Each statement first waits for what other nodes had committed by then. Without it, a reader at another node than the
writer's may see less than was acknowledged, whether there is an upgrade or not (MariaDB's manual, wsrep_sync_wait)."""


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
            first, *more = ((str(one.host), one.port or _PORTS[one.get_backend_name()]) for one in straight)
            self.proxies = (FaultProxy(*first, *more),)
            self.workers = unencrypted(self.url).set(host="127.0.0.1", port=self.proxies[0].port)

    def close(self) -> None:
        """Cut what is still connected."""
        for proxy in self.proxies:
            proxy.close()


def unencrypted(url: sa.URL) -> sa.URL:
    """``url`` for a connection through a proxy, which reads no encrypted messages."""
    if url.get_backend_name() in ("postgresql", "cockroachdb"):
        return url.update_query_dict({"sslmode": "disable"})
    return url.update_query_dict({"ssl_disabled": "true"})
