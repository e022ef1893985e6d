"""What the proxy makes of a message that is to be replaced."""

from __future__ import annotations

import socket
import threading
import time

import pytest

from contraflow.rehearsal.proxy import FaultProxy, Harm, replaced, unfinished

NEW = b"NO"
SYNC = b"S\x00\x00\x00\x04"


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (b"Q\x00\x00\x00\x0bCOMMIT\x00", b"Q\x00\x00\x00\x07NO\x00"),
        (b"P\x00\x00\x00\x08\x00S\x00\x00" + SYNC, b"Q\x00\x00\x00\x07NO\x00"),
        (b"B\x00\x00\x00\x04E\x00\x00\x00\x04" + SYNC, b"Q\x00\x00\x00\x07NO\x00"),
        (b"\x07\x00\x00\x00\x03COMMIT", b"\x03\x00\x00\x00\x03NO"),
        (b"\x09\x00\x00\x00\x03\x00\x01COMMIT", b"\x05\x00\x00\x00\x03\x00\x01NO"),
    ],
)
def test_a_whole_statement_is_replaced(message: bytes, expected: bytes) -> None:
    assert replaced(message, NEW) == expected


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"Q\x00\x00\x00\x0bCOM",  # the rest comes later
        b"Q\x00\x00\x00\x0bCOMMIT\x00Q\x00\x00\x00\x0bCOMMIT\x00",
        b"P\x00\x00\x00\x08\x00S\x00\x00H\x00\x00\x00\x04",  # no Sync: the answer is not a whole one, either
        b"\x07\x00\x00\x00\x03COM",
        b"\x05\x00\x00\x00\x17\x01\x00\x00\x00",  # COM_STMT_EXECUTE
        b"X\x00\x00\x00\x04",
    ],
)
def test_anything_else_passes(message: bytes) -> None:
    assert replaced(message, NEW) is None


QUERY = b"Q\x00\x00\x00\x0bCOMMIT\x00"
EXTENDED = b"P\x00\x00\x00\x0e\x00COMMIT\x00\x00\x00B\x00\x00\x00\x04E\x00\x00\x00\x04" + SYNC
COMMAND = b"\x07\x00\x00\x00\x03COMMIT"


@pytest.mark.parametrize("message", [QUERY, EXTENDED, EXTENDED[: -len(SYNC)] + b"H\x00\x00\x00\x04"])
def test_a_statement_is_whole_with_its_last_byte(message: bytes) -> None:
    assert [unfinished(message[:length]) for length in range(1, len(message) + 1)] == [True] * (len(message) - 1) + [
        False
    ]


def test_a_command_of_mysql_is_whole_with_its_last_byte() -> None:
    assert [unfinished(COMMAND[:length]) for length in range(5, len(COMMAND) + 1)] == [True] * 6 + [False]


@pytest.mark.parametrize(
    "message", [b"", b"X\x00\x00\x00\x04", b"\x00\x00\x00\x08\x04\xd2\x16\x2f", b"\x17\x03\x03\x00\x40P"]
)
def test_what_is_no_query_is_not_waited_for(message: bytes) -> None:
    assert not unfinished(message)


@pytest.mark.parametrize(
    ("message", "expected"), [(EXTENDED, replaced(EXTENDED, NEW)), (COMMAND, replaced(COMMAND, NEW))]
)
def test_a_statement_that_comes_in_pieces_is_replaced_whole(message: bytes, expected: bytes) -> None:
    got = bytearray()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def read() -> None:
            connection, _ = server.accept()
            with connection:
                while data := connection.recv(65536):
                    got.extend(data)

        reader = threading.Thread(target=read)
        reader.start()
        with FaultProxy("127.0.0.1", server.getsockname()[1]) as proxy:
            with (
                proxy.harming("comm", Harm.REPLACE, instead=NEW.decode(), times=1) as fired,
                socket.create_connection(("127.0.0.1", proxy.port)) as client,
            ):
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.sendall(message[:-1])
                time.sleep(0.05)  # the proxy reads it meanwhile; one that is late proves less
                client.sendall(message[-1:])
                client.shutdown(socket.SHUT_WR)
                reader.join()
            assert fired() == 1
    assert bytes(got) == expected
