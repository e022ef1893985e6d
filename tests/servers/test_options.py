"""The options that choose the servers of a test run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.servers.shared import ALL, EXCLUSIONS, ServerMissing, SharedServers, choose, reach, read_exclusions

URL = "cockroachdb+psycopg://root@127.0.0.1:26257/defaultdb"


@pytest.mark.parametrize(
    ("named", "urls", "chosen"),
    [
        ([], [], {"sqlite": None}),
        (["mysql", "mysql", "sqlite"], [], {"mysql": None, "sqlite": None}),
        ([], [URL], {"cockroachdb-url": URL}),
        (["sqlite"], [URL, URL + "2"], {"sqlite": None, "cockroachdb-url": URL, "cockroachdb-url+": URL + "2"}),
        (["all"], [], dict.fromkeys(ALL)),
    ],
)
def test_options_choose_servers(named: list[str], urls: list[str], chosen: dict[str, str | None]) -> None:
    assert choose(named, urls, {}) == chosen


def test_excluded_server_is_left_out_of_all_but_not_of_its_own_name() -> None:
    assert "mysql" not in choose(["all"], [], {"mysql": "broken"})
    assert "mysql" in choose(["mysql"], [], {"mysql": "broken"})


def test_unknown_server_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown server 'oracle'; known are all, sqlite"):
        choose(["oracle"], [], {})


def test_committed_exclusions_can_be_read() -> None:
    assert set(read_exclusions(EXCLUSIONS)) <= set(ALL)


@pytest.mark.parametrize("entry", ['server = "oracle"\nreason = "x"', 'server = "mysql"\nreason = " "'])
def test_exclusion_needs_a_server_and_a_reason(entry: str, tmp_path: Path) -> None:
    file = tmp_path / "exclusions.toml"
    file.write_text(f"[[exclusion]]\n{entry}\n")
    with pytest.raises(ValueError, match=r"needs a server .* and a reason"):
        read_exclusions(file)


def test_server_that_does_not_start_fails_each_test_that_wants_it() -> None:
    shared = SharedServers({"postgresql-url": "postgresql+psycopg://x@127.0.0.1:1/d"}, lambda _: None)
    try:
        for _ in range(2):
            with pytest.raises(ServerMissing, match="CF201"):
                reach(shared.addresses()["postgresql-url"])
    finally:
        shared.stop()
