"""A disk that is full: a tmpfs of a few MiB in a mount namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]

PROGRAM = """
import subprocess
import sys
from pathlib import Path

from finetune_contract.artifact import Latest
from finetune_contract.reasons import Reason, exit_code
from finetune_contract.result import decode
from finetune_trainer.store.artifacts import open_artifact
from finetune_trainer.process.ending import ResultFile
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.publish import Output
from finetune_trainer.course.telemetry import StepRecord, Telemetry, parse
from support.trainer.runs import run_config
from support.storage.publications import PROVENANCE, SUMMARY

small, large = Path(sys.argv[1]), Path(sys.argv[2])
config = run_config(small)
source = large / "source"
source.mkdir()
(source / "adapter").write_bytes(bytes(3 << 20))
telemetry = Telemetry(config, {})
telemetry.go_on(run_id=None, history=b"", step=0)
output = Output.claim(config.layout)

reserved = ResultFile(small, 7)
reserved.reserve()

filler = small / "filler"
with filler.open("wb", buffering=0) as file:
    try:
        while file.write(bytes(1 << 16)):
            pass
    except OSError as error:
        assert error.errno == 28, error

for number in range(1, 200):
    telemetry.step(StepRecord(number, 1.0, 1.0, 1e-4, 1, 1, 1.0))
kept = len(telemetry.snapshot().splitlines())
assert kept < 199, kept
try:
    output.publish(source, PROVENANCE, SUMMARY, lambda count: None)
except Failure as failure:
    assert failure.reason is Reason.DISK_FULL, (failure.reason, failure.message)
else:
    raise AssertionError("it was published onto a full disk")
latest = Latest.model_validate_json((small / "out" / "latest.json").read_bytes())
assert latest.artifact is None

termination = large / "termination-log"
runconfig = large / "runconfig.json"
runconfig.write_text(config.to_json())
arguments = ("--run-config", str(runconfig), "--termination-log", str(termination))
command = [sys.executable, "-m", "finetune_trainer.launch", *arguments]
subprocess.run(command, stdout=subprocess.DEVNULL)
ended = decode(termination.read_text())
assert ended and ended.reason is Reason.DISK_FULL, ended
assert reserved.write(ended) == exit_code(Reason.DISK_FULL)
assert reserved.read() == ended

filler.unlink()
telemetry.step(StepRecord(200, 1.0, 1.0, 1e-4, 1, 1, 1.0))
assert [record["step"] for record in parse(telemetry.snapshot())][-1] == 200
output.publish(source, PROVENANCE, SUMMARY, lambda count: None)
opened = open_artifact((small / "out").as_uri(), None, large / "opened")
assert (opened / "adapter").read_bytes() == bytes(3 << 20)
print("held")
"""


def test_a_full_disk_costs_curves_and_ends_the_rest_with_its_reason(tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    small.mkdir()
    large.mkdir()
    inside = 'mount -t tmpfs -o size=4m none "$1" && exec "$3" -c "$4" "$1" "$2"'
    ended = subprocess.run(
        [
            *("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", inside, "sh"),
            *(str(small), str(large), sys.executable, PROGRAM),
        ],
        env={"PYTHONPATH": f"{TESTS}:{TESTS.parent / 'trainer_image'}", "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "held\n", ended.stderr
