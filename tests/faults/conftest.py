"""Tests that take the fixture ``driver`` run with every driver of every chosen server."""

from __future__ import annotations

import pytest

from tests.faults.drivers import DRIVERS, FAMILY, Driver
from tests.servers.shared import Database


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "driver" in metafunc.fixturenames:
        names = [name for family in DRIVERS.values() for name in family]
        metafunc.parametrize("driver", names, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of all pairs of server and driver keep those that go together."""
    items[:] = [item for item in items if _goes_together(item)]


def _goes_together(item: pytest.Item) -> bool:
    callspec = getattr(item, "callspec", None)
    if callspec is None or "driver" not in callspec.params or callspec.params.get("server") is None:
        return True
    family = FAMILY.get(str(callspec.params["server"]).removesuffix("-url"))
    return family is not None and callspec.params["driver"] in DRIVERS[family]


@pytest.fixture
def driver(request: pytest.FixtureRequest, database: Database) -> Driver:
    """A driver of the database's server, on a fresh database; its engines raise typed exceptions."""
    return Driver.of(request.param, database.url)
