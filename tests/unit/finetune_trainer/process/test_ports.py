"""A port that is held goes to a server of ours and to nobody else."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from finetune_trainer.process.ports import HeldPort

IP_LOCAL_PORT_RANGE = 51  # Linux 6.3: the ports that this socket may be given


@pytest.fixture
def port() -> Iterator[HeldPort]:
    held = HeldPort()
    yield held
    held.close()


def test_a_server_listens_on_it_all_the_same(port: HeldPort) -> None:
    with socket.create_server(("127.0.0.1", port.number)) as server:
        port.close()
        with socket.create_connection(("127.0.0.1", port.number)):
            server.accept()[0].close()


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.2", ""])
def test_nobody_else_may_have_it(port: HeldPort, address: str) -> None:
    with socket.socket() as other:
        with pytest.raises(OSError, match="in use"):
            other.bind((address, port.number))
        port.close()
        other.bind((address, port.number))


@pytest.mark.parametrize("way", ["bind", "connect"])
def test_nobody_is_given_it(port: HeldPort, way: str) -> None:
    """The kernel is asked for any port of a range that has no other."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket() as other:
        wanted = server.getsockname() if way == "connect" else ("127.0.0.1", 0)
        only = struct.pack("I", port.number << 16 | port.number)
        try:
            other.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, only)
        except OSError:
            pytest.skip("this kernel has one range for all")
        with pytest.raises(OSError, match=r"in use|Cannot assign"):
            getattr(other, way)(wanted)
        port.close()
        getattr(other, way)(wanted)
        assert other.getsockname()[1] == port.number
