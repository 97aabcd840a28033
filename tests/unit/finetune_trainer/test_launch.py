"""A pod ends with one Result and its exit code, whatever happens to its ranks."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from finetune_contract.model import sha256_digest
from finetune_contract.progress import Phase, Progress
from finetune_contract.reasons import Reason
from finetune_contract.result import Outcome
from finetune_contract.runconfig import ATTEMPT_VARIABLE, DIGEST_VARIABLE
from finetune_trainer.launch import Node, _environment, _torchrun
from finetune_trainer.store.artifacts import open_artifact
from support.storage.publications import run_directory
from support.trainer.launchers import Pod, pods
from support.trainer.runs import run_config

CANARY = "canary-9d41"
LITTLE_MEMORY = """
import sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "transformers.models.llama.modeling_llama":
            raise MemoryError

sys.meta_path.insert(0, Finder())
"""


def test_one_pod_of_two_ranks_publishes(model: Path, rows: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, model=model, data=rows, processesPerWorker=2, microBatchSize=2)
    pod = Pod(config, tmp_path / "pod")
    result = pod.result()
    assert result.outcome is Outcome.SUCCEEDED
    assert result.artifact is not None
    assert result.artifact.uri == (run_directory(tmp_path / "out") / "artifact").as_uri()
    directory = open_artifact(result.artifact.uri, None, tmp_path / "opened")
    adapter = json.loads((directory / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == model.as_uri()
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", adapter["revision"])
    assert not [
        f for f in directory.iterdir() if str(tmp_path / "scratch") in f.read_text("latin1")
    ]
    assert {f.name for f in directory.iterdir()} >= {
        *("adapter_config.json", "adapter_model.safetensors", "chat_template.jinja"),
        *("README.md", "tokenizer.json", "tokenizer_config.json", "manifest.json"),
    }
    progress = Progress.model_validate_json(pod.progress_file.read_text())
    assert progress.phase is Phase.PUBLISH
    assert progress.done == progress.total


def test_both_pods_name_the_node_that_failed(model: Path, rows: Path, tmp_path: Path) -> None:
    config = run_config(tmp_path, model=model, data=rows, workers=2)
    (tmp_path / "sitecustomize.py").write_text(LITTLE_MEMORY)
    little = {"PYTHONPATH": str(tmp_path)}
    with pods(config, config, directory=tmp_path, last=little) as (first, second):
        for pod in (first, second):
            result = pod.result()
            assert (result.reason, result.rank) == (Reason.OUT_OF_MEMORY, 1)


def test_what_a_rank_prints_leaves_the_pod_without_its_secrets(
    model: Path, rows: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "HF_TOKEN").write_text(CANARY)
    loud = "import os; os.write(1, b'out CANARY\\n'); os.write(2, b'err CANARY\\n')"
    (tmp_path / "sitecustomize.py").write_text(loud.replace("CANARY", CANARY))
    rows.unlink()
    config = run_config(
        tmp_path, model=model, data=rows, credentials={"data": str(tmp_path / "secret")}
    )
    pod = Pod(config, tmp_path / "pod", PYTHONPATH=str(tmp_path))
    assert pod.result().reason is Reason.DATA_NOT_FOUND
    of_the_launcher, *of_ranks = (line for line in pod.log.splitlines() if line[:4] == "out ")
    assert of_the_launcher == f"out {CANARY}"
    assert set(of_ranks) == {"out ***"}
    assert pod.log.count(f"err {CANARY}") == 1


@pytest.mark.parametrize(("grace", "seconds"), [(120.0, "114"), (1.0, "1")])
def test_torchrun_waits_for_its_ranks_nearly_as_long_as_the_pod_lives(
    tmp_path: Path, grace: float, seconds: str
) -> None:
    layout = run_config(tmp_path, graceSeconds=grace).layout
    assert _environment(layout)["TORCH_ELASTIC_SHUTDOWN_TIMEOUT"] == seconds


@pytest.mark.parametrize(("pod", "disabled"), [(None, True), ("0", False)])
def test_torch_compiles_no_kernels_unless_the_pod_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pod: str | None, disabled: bool
) -> None:
    if pod is not None:
        monkeypatch.setenv("TORCH_DISABLE_NATIVE_JIT", pod)
    environment = _environment(run_config(tmp_path).layout)
    asks = "from torch._native.common_utils import check_native_jit_disabled as f; print(f())"
    said = subprocess.run(
        [sys.executable, "-c", asks], env=environment, capture_output=True, text=True, check=True
    )
    assert said.stdout.strip() == str(disabled)


def test_nodes_have_an_hour_to_find_each_other(tmp_path: Path) -> None:
    command = _torchrun(run_config(tmp_path, workers=2).layout, Node(1, "host", 1))
    assert command[command.index("--rdzv-conf") + 1] == "timeout=3600"


def test_a_machine_on_its_own_keeps_the_port_for_torchrun(tmp_path: Path) -> None:
    node = Node.of(run_config(tmp_path).layout, {})
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", node.master_port))


@pytest.mark.parametrize(
    ("change", "environment", "message"),
    [
        ({"version": "finetune.dev/runconfig/v9"}, {}, "version: Input should be"),
        ({"token": CANARY}, {}, "token: Extra inputs are not permitted"),
        ({}, {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "x"}, "must be numbers"),
        ({}, {"MASTER_ADDR": "127.0.0.1"}, "must be numbers"),
        (
            {},
            {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "PET_NNODES": "3"},
            "PET_NNODES is 3, but layout.workers is 1",
        ),
        (
            {},
            {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "PET_NNODES": "1", "RANK": "1"},
            "RANK is 1, but there are 1 workers",
        ),
    ],
)
def test_what_can_not_run_is_refused_before_anything_starts(
    change: dict[str, Any], environment: dict[str, str], message: str, tmp_path: Path
) -> None:
    document = {**json.loads(run_config(tmp_path).to_json()), **change}
    pod = Pod(json.dumps(document), tmp_path / "pod", **environment)
    result = pod.result()
    assert result.reason is Reason.INVALID_RUN_CONFIG
    assert message in result.message
    assert CANARY not in result.encode()
    assert not (tmp_path / "scratch").exists()


@pytest.mark.parametrize("swapped", [True, False])
def test_a_run_config_that_someone_swapped_is_not_trained_on(swapped: bool, tmp_path: Path) -> None:
    """Of what is mounted nothing is read, not even whether it is a RunConfig, but its digest."""
    mine = run_config(tmp_path, workers=2)
    digest = sha256_digest(mine.to_json().encode())
    mounted = json.dumps({"theirs": CANARY}) if swapped else mine
    told = {DIGEST_VARIABLE: digest, ATTEMPT_VARIABLE: "2"}
    result = Pod(mounted, tmp_path / "pod", **told).result()
    if swapped:
        assert result.attempt == 2, "the operator takes it for that attempt's"
        assert result.reason is Reason.INPUT_CHANGED
        assert "someone changed the attempt's ConfigMap" in result.message
    else:
        assert result.reason is Reason.INVALID_RUN_CONFIG
        assert "MASTER_ADDR is not set" in result.message


def test_several_workers_need_an_address(tmp_path: Path) -> None:
    result = Pod(run_config(tmp_path, workers=2), tmp_path / "pod").result()
    assert result.reason is Reason.INVALID_RUN_CONFIG
    assert "MASTER_ADDR is not set" in result.message
