"""`finetune reward test`, given files of one test."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from finetune_cli.app import app

CODE = """
def score(prompts, completions, weightless=None, **kwargs):
    print("seen", len(completions))
    return [None if "?" in text else float(len(text)) for text in completions]
"""


JOB = {
    "apiVersion": "finetune.dev/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "job"},
    "spec": {
        "model": {"uri": "s3://demo/model"},
        "data": {"train": [{"uri": "s3://demo/train.jsonl"}]},
        "output": {"uri": "s3://demo/out"},
    },
}


def python(name: str = "mine", **settings: Any) -> dict[str, Any]:
    """Return a reward whose code is in a ConfigMap."""
    return {"name": name, "python": {"configMap": {"name": "code", "key": "a.py"}, **settings}}


def config_map(source: str) -> dict[str, Any]:
    """Return the ConfigMap that `python` names."""
    metadata = {"name": "code"}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a.py": source}}


class Files:
    """Files of one test; JSON is YAML."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def rewards(self, *documents: Any) -> Path:
        """Write rewards.yaml."""
        return self.text("rewards.yaml", "\n---\n".join(map(json.dumps, documents)))

    def rows(self, *rows: Any) -> Path:
        """Write rows.jsonl."""
        return self.text("rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))

    def text(self, name: str, text: str) -> Path:
        """Write any file."""
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path


def invoke(*arguments: str | Path) -> Result:
    """Run the command."""
    return CliRunner().invoke(app, ["reward", "test", *map(str, arguments)])


def report(*arguments: str | Path) -> tuple[int, dict[str, Any]]:
    """Return the exit code and the document of `--json`."""
    result = invoke(*arguments, "--json")
    assert result.stdout, result.stderr
    return result.exit_code, json.loads(result.stdout)


EXACT = {"name": "exact", "exact": {}}


REGEX = {"name": "digit", "regex": {"pattern": r"\d"}}
