"""`finetune validate` on files as users of other tools write them."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from finetune_api import remedies
from finetune_api.foreign_names import FIELDS, VALUES
from finetune_cli.app import app
from support.operator.foreign_jobs import FOREIGN


@pytest.mark.parametrize(("text", "told"), FOREIGN, ids=[line[0][1] for _, line in FOREIGN])
def test_every_error_is_told_at_once_with_its_place_and_remedy(
    tmp_path: Path, text: str, told: list[tuple[str, str, str]]
) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(text)
    result = CliRunner().invoke(app, ["validate", str(path)])
    assert result.exit_code == 3
    lines = [line for line in result.stderr.splitlines() if ": warning: " not in line]
    for place, begins, ends in told:
        assert [
            line
            for line in lines
            if line.startswith(f"{path}:{place}: {begins}") and line.endswith(ends)
        ], result.stderr
    places = [tuple(map(int, line.removeprefix(f"{path}:").split(":")[:2])) for line in lines]
    last = [line for line in lines if "some validation rules" in line]
    assert lines[len(lines) - len(last) :] == last
    assert places[: len(lines) - len(last)] == sorted(places[: len(lines) - len(last)])


def test_the_table_has_thirty_files() -> None:
    assert len(FOREIGN) >= 30


def test_foreign_names_lead_to_fields_that_there_are() -> None:
    fields = {"spec", *remedies._fields()}
    for name, here in FIELDS.items():
        if not here.startswith(";"):
            path = here.split()[0].rstrip(",;:")
            assert path in fields, name
    allowed = "Attention MLP Embeddings Head BF16 FP16 FP32 Constant Cosine DrGRPO NF4 Auto GRPO"
    assert {part for value in VALUES.values() for part in value.split(", ")} == set(allowed.split())
