"""The embedded S3 server's start, credentials and privacy."""

import stat
from pathlib import Path

from finetune_local import s3


def test_credentials_are_random_private_and_kept(tmp_path: Path) -> None:
    first = s3.prepare(tmp_path / "a")
    again = s3.prepare(tmp_path / "a")
    other = s3.prepare(tmp_path / "b")
    assert first.credentials == again.credentials == s3.load_credentials(tmp_path / "a")
    assert first.credentials != other.credentials
    assert len(first.credentials.secret_key) >= 32
    assert stat.S_IMODE((tmp_path / "a" / s3.IDENTITIES).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_the_command_keeps_to_itself(tmp_path: Path) -> None:
    server = s3.prepare(tmp_path)
    assert {"-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-master.telemetry=false"} <= set(server.command)
    assert server.credentials.secret_key not in " ".join(server.command)
    assert set(server.environment) == {"HOME", "PATH", "TMPDIR", *s3.JWT_KEYS}
    keys = [server.environment[name] for name in s3.JWT_KEYS]
    assert len(set(keys)) == len(keys)
    ports = [one.rpartition("=")[2] for one in server.command if ".port" in one.partition("=")[0]]
    chosen = [port for port in ports if port != "0"]
    assert len(set(chosen)) == len(chosen) == len(s3.PORT_FLAGS)
    assert server.endpoint == f"http://127.0.0.1:{chosen[0]}"


def test_free_ports_are_distinct() -> None:
    assert len(set(s3.free_ports(20))) == 20
