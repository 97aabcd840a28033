"""The embedded S3 server's start, credentials and privacy."""

import contextlib
import socket
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from finetune_local import s3
from finetune_trainer.process.ports import HeldPort


def test_credentials_are_random_and_private(tmp_path: Path) -> None:
    first, other = (s3.prepare(tmp_path / name).access for name in "ab")
    assert first.secret_key != other.secret_key
    assert len(first.secret_key) >= 32
    assert stat.S_IMODE((tmp_path / "a" / s3.IDENTITIES).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_the_command_keeps_to_itself(tmp_path: Path) -> None:
    server = s3.prepare(tmp_path)
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"} <= set(server.command)
    assert server.access.secret_key not in " ".join(server.command)
    assert set(server.environment) == {"HOME", "PATH", "TMPDIR", *s3.JWT_KEYS}
    keys = [server.environment[name] for name in s3.JWT_KEYS]
    assert len(set(keys)) == len(keys)
    ports = [one.rpartition("=")[2] for one in server.command if ".port" in one.partition("=")[0]]
    chosen = [port for port in ports if port != "0"]
    assert len(set(chosen)) == len(chosen) == len(s3.PORT_FLAGS)
    assert server.access.endpoint == f"http://127.0.0.1:{chosen[0]}"


def numbers(server: s3.S3Server) -> list[int]:
    return [port.number for port in server.ports]


def listened(process: psutil.Process) -> set[int]:
    connections = process.net_connections("tcp")
    return {one.laddr.port for one in connections if one.status == psutil.CONN_LISTEN}


def test_nobody_takes_its_ports_before_it_serves_on_them(tmp_path: Path) -> None:
    server, served = s3.prepare(tmp_path / "s3"), threading.Event()
    others = set(psutil.Process().children())  # of other tests, such as their S3 server
    taken: list[int] = []

    def thief() -> None:
        """Take what is free for a moment; SeaweedFS looks at a port long before it listens."""
        while not served.wait(0.001):
            for number in numbers(server):
                with contextlib.suppress(OSError), socket.socket() as other:
                    other.bind(("127.0.0.1", number))
                    taken.append(number)

    thread = threading.Thread(target=thief)
    thread.start()
    try:
        with s3.running(server, tmp_path / "log"):
            [weed] = set(psutil.Process().children()) - others
            end = time.monotonic() + server.start_seconds  # parts that S3 does not need come later
            while not set(numbers(server)) <= listened(weed):
                assert time.monotonic() < end, (tmp_path / "log").read_text()
                time.sleep(0.05)
            served.set()  # after this block the ports are anybody's
            thread.join()
    finally:
        served.set()
    assert not taken


def test_its_ports_go_back(tmp_path: Path) -> None:
    server = s3.prepare(tmp_path)
    server.tidy()
    for number in numbers(server):
        with socket.socket() as other:
            other.bind(("127.0.0.1", number))


def test_a_server_that_ends_is_told_at_once_with_what_it_said(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo no such disk; exit 3"]
    server = replace(s3.prepare(tmp_path / "s3"), command=command)
    started = time.monotonic()
    with pytest.raises(s3.S3Error, match=r"ended with 3:\nno such disk"):  # noqa: SIM117
        with s3.running(server, tmp_path / "log"):
            pass
    assert time.monotonic() - started < server.start_seconds / 2


def test_a_server_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    command = ["/bin/sh", "-c", "echo waits; exec sleep 600"]
    server = replace(s3.prepare(tmp_path / "s3"), command=command, start_seconds=0.5)
    with pytest.raises(s3.S3Error, match=r"did not answer in 0.5 s:\nwaits"):  # noqa: SIM117
        with s3.running(server, tmp_path / "log"):
            pass


def test_a_socket_that_somebody_left_in_tmp_is_in_no_ones_way(tmp_path: Path) -> None:
    left: dict[int, Path] = {}

    def offered() -> HeldPort:
        port = HeldPort()
        if len(left) < 3:
            left[port.number] = s3._socket("s3.port", port.number)
            left[port.number].touch()
        return port

    try:
        server = s3.prepare(tmp_path / "s3", offered)
        server.tidy()
        assert len(left) == 3
        assert not left.keys() & set(numbers(server))
        assert all(path.exists() for path in left.values())
    finally:
        for path in left.values():
            path.unlink(missing_ok=True)
