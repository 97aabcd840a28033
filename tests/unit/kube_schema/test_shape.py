"""A plain yes or no about a value's shape."""

from pathlib import Path

import pytest
import yaml

from finetune_api.crd import schema
from kube_schema.shape import fits
from kube_schema.structural import apply_defaults

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_whole_jobs_fit_the_schema_of_a_job(path: Path) -> None:
    jobs = [b for b in yaml.safe_load_all(path.read_text()) if b["kind"] == "FineTuneJob"]
    for body in jobs:
        apply_defaults(schema(), body)
        assert fits(schema(), body)
        body["spec"]["lora"]["rank"] = "16"
        assert not fits(schema(), body)


def test_of_what_it_does_not_know_it_says_no() -> None:
    assert not fits({"type": "integer", "multipleOf": 2}, 4)
    assert fits({"type": "string", "nullable": True, "enum": ["A"]}, None)
