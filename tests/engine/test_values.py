"""The engine's own small functions."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from contraflow.engine import Options, State
from contraflow.engine.backfill import next_size
from contraflow.engine.connect import own_url
from contraflow.engine.journal import TRANSITIONS, decode_key, encode_key
from contraflow.engine.lease import Identity
from contraflow.problems import ProblemError

KEYS = st.one_of(
    st.none(),
    st.integers(),
    st.text(),
    st.binary(),
    st.floats(allow_nan=False),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.datetimes(timezones=st.none() | st.just(dt.timezone.utc)),
    st.dates(),
    st.times(),
    st.timedeltas(),
)


@given(st.lists(KEYS, max_size=4))
def test_a_key_comes_back_from_the_journal_as_it_was(key: list[Any]) -> None:
    back = decode_key(encode_key(key))
    assert list(back) == key
    assert [type(value) for value in back] == [type(value) for value in key]


def test_a_key_of_another_type_is_refused_not_guessed() -> None:
    with pytest.raises(TypeError, match="object"):
        encode_key([object()])
    assert decode_key(encode_key([memoryview(b"x")])) == (b"x",)
    assert decode_key(encode_key([uuid.UUID(int=1), decimal.Decimal("1.10")])) == (
        uuid.UUID(int=1),
        decimal.Decimal("1.10"),
    )


@given(st.integers(1, 20_000), st.floats(0, 100, allow_nan=False))
def test_the_batch_size_follows_the_latency_budget(size: int, seconds: float) -> None:
    options = Options(latency_budget=0.1, max_batch_size=20_000)
    following = next_size(size, seconds, options)
    assert 1 <= following <= options.max_batch_size
    assert size // 2 - 1 <= following <= size * 4 or following == 1
    if seconds > 0.2:
        assert following <= max(1, size // 2 + 1)
    if 0 < seconds < 0.025:
        assert following == min(options.max_batch_size, size * 4)


@pytest.mark.parametrize(
    ("given_url", "own"),
    [
        ("postgresql+asyncpg://u:p@h/d?ssl=require&command_timeout=5", "postgresql+psycopg://u:p@h/d?sslmode=require"),
        ("postgresql+psycopg://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql://u@h/d", "postgresql+psycopg://u@h/d"),
        ("postgresql+psycopg_async://u@h/d", "postgresql+psycopg://u@h/d"),
        ("cockroachdb+asyncpg://u@h/d", "cockroachdb+psycopg://u@h/d"),
        ("sqlite+aiosqlite:///x.db", "sqlite+pysqlite:///x.db"),
        ("sqlite:///x.db", "sqlite+pysqlite:///x.db"),
        ("mysql+aiomysql://u@h/d?charset=utf8mb4", "mysql+pymysql://u@h/d?charset=utf8mb4"),
        ("mysql+asyncmy://u@h/d", "mysql+pymysql://u@h/d"),
        ("mariadb://u@h/d", "mariadb+pymysql://u@h/d"),
        ("mysql+mysqlconnector://u@h/d", "mysql+mysqlconnector://u@h/d"),
    ],
)
def test_the_engines_own_url(given_url: str, own: str) -> None:
    assert own_url(given_url) == sa.make_url(own)


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("contraflow.engine.connect._installed", lambda _module: False)
    with pytest.raises(ProblemError) as raised:
        own_url("mysql+asyncmy://u:s3cret@h/d")
    (problem,) = raised.value.problems
    assert problem.code == "CF204"
    assert "PyMySQL" in problem.instead
    assert "s3cret" not in str(problem)


def test_options_are_checked() -> None:
    for wrong in ({"lock_timeout": 0}, {"batch_size": 0}, {"pause": -1}, {"batch_size": 9, "max_batch_size": 8}):
        with pytest.raises(ValueError, match="must"):
            Options(**wrong)  # type: ignore[arg-type]


def test_final_states_lead_nowhere() -> None:
    for verb, moves in TRANSITIONS.items():
        assert not {State.CONTRACTED, State.ROLLED_BACK} & set(moves), verb


def test_this_process_is_alive_and_pid_reuse_is_seen() -> None:
    mine = Identity.mine()
    assert not mine.is_dead()
    assert Identity(**{**vars(mine), "started": "1"}).is_dead()
    assert Identity(**{**vars(mine), "pid": 2**22 + 1}).is_dead()
    assert not Identity(**{**vars(mine), "pid": 2**22 + 1, "boot": "elsewhere"}).is_dead()
    assert not Identity(**{**vars(mine), "pid": 2**22 + 1, "started": ""}).is_dead()
