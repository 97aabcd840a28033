"""`--shard i/n` runs a part of the tests; `--results FILE` keeps outcomes, so a run can be resumed.

A test that passed is passed over for as long as the sources stay the same.
"""

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
from hypothesis import settings

# Machines are shared: how long an example takes says nothing about the code.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shard", default="1/1", help="run the i-th of n parts: i/n")
    parser.addoption("--results", type=Path, help="JSON file that keeps outcomes between runs")


def pytest_configure(config: pytest.Config) -> None:
    if path := config.getoption("--results"):
        config.pluginmanager.register(_Results(path))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    index, count = (int(part) for part in config.getoption("--shard").split("/"))
    # by file, so that tests that share an expensive fixture stay together
    kept = [i for i in items if _hash(i.nodeid.partition("::")[0]) % count == index - 1]
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = kept


class _Results:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources = _sources()
        stored = json.loads(path.read_text()) if path.exists() else {}
        same = stored.get("sources") == self.sources
        self.outcomes: dict[str, str] = stored["outcomes"] if same else {}

    def pytest_collection_modifyitems(
        self, config: pytest.Config, items: list[pytest.Item]
    ) -> None:
        done = [i for i in items if self.outcomes.get(i.nodeid) == "passed"]
        config.hook.pytest_deselected(items=done)
        items[:] = [i for i in items if i not in done]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.nodeid] = report.outcome
            self.path.parent.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"sources": self.sources, "outcomes": self.outcomes}, indent=1)
            self.path.write_text(text)


def _hash(text: str) -> int:
    return int(hashlib.sha256(text.encode()).hexdigest(), 16)


def _sources() -> str:
    """Return a digest of every tracked file as it is in the working tree."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    digest = hashlib.sha256()
    for name in listed.decode().split("\0"):
        path = ROOT / name
        if name and path.is_file():
            digest.update(name.encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()
