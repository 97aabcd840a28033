"""CPU time of `finetune data check` on 100,000 rows: the structural check, on one core.

The rows are dialogues of 2 to 10 turns, about 100 MB in all. The command runs as users run it, in a
process of its own; medians of rounds count. A pass that only parses the JSON is the baseline.

    python benchmarks/preflight.py [--rounds 3] [--rows 100000] [--json FILE]
"""

from __future__ import annotations

import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from harness.command_line import command_line, save

BAR_SECONDS = 10.0
PARSE = "import json,sys\nfor line in open(sys.argv[1], encoding='utf-8'): json.loads(line)"
CHECK = "from finetune_cli.app import main; main()"


def write_rows(path: Path, count: int) -> None:
    """Write distinct dialogues; a turn has 5 to 40 words."""
    draw = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "\u00e9psilon", "zeta\n", '"eta"', "theta"]
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            messages = [{"role": "system", "content": f"You are assistant {number}."}]
            for _ in range(draw.randint(1, 5)):
                for role in ("user", "assistant"):
                    text = " ".join(draw.choices(words, k=draw.randint(5, 40)))
                    messages.append({"role": role, "content": text})
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")


def cpu_seconds(code: str, *arguments: str) -> float:
    """Return the CPU time of a Python process that must succeed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> int:
    """Measure, print and tell whether the bar holds."""
    parser = command_line(__doc__, rounds=3)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "train.jsonl")
        write_rows(path, arguments.rows)
        megabytes = path.stat().st_size / 1e6
        rounds = [
            (cpu_seconds(CHECK, "data", "check", str(path)), cpu_seconds(PARSE, str(path)))
            for _ in range(arguments.rounds)
        ]
    check, parse = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{arguments.rows:,} rows, {megabytes:.0f} MB: {check:.2f} s CPU; "
        f"parsing the JSON alone {parse:.2f} s; bar {BAR_SECONDS:.0f} s"
    )
    save({"rows": arguments.rows, "check": check, "parse": parse}, arguments.json)
    return 0 if check <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
