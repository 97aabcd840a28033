"""A job's own chat template, and settings of the model's, stand in a directory of the tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune_contract.reasons import Reason
from finetune_contract.recipe import ChatTemplate, ConfigMapFile
from finetune_trainer.model.chat_template import with_template
from finetune_trainer.model.tokenizer import load_tokenizer, vocabulary_size
from finetune_trainer.process.errors import Failure
from finetune_trainer.store.sources import LONGEST_TEMPLATE, read_template
from support.models.tiny_llama import CHATML, byte_tokenizer, write_model

OWN = "{% for m in messages %}{{ m.content }}{% endfor %}"
TELLS = "{% macro m() %}{{ a }}|{{ b }}|{{ c }}{% endmacro %}{{ m() }}{{ messages[0].content }}"
SETTINGS: dict[str, Any] = {"a": False, "b": "it's %} {{ \"ä😀\n", "c": 3}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("base"))


def rendered(directory: Path, **given: Any) -> str:
    text: str = load_tokenizer(directory).apply_chat_template(
        [{"role": "user", "content": "hi"}], tokenize=False, **given
    )
    return text


def test_without_any_the_models_directory_serves(base: Path, tmp_path: Path) -> None:
    assert with_template(base, None, {}, tmp_path) == base
    assert not list(tmp_path.iterdir())


def test_a_template_takes_the_place_of_the_models(base: Path, tmp_path: Path) -> None:
    made = with_template(base, OWN, {}, tmp_path)
    assert rendered(made) == "hi"
    assert load_tokenizer(base).chat_template == CHATML
    assert vocabulary_size(made) == vocabulary_size(base)
    assert load_tokenizer(made).get_vocab() == load_tokenizer(base).get_vocab()
    assert not (made / "model.safetensors").exists()
    assert with_template(base, OWN, {}, tmp_path) == made
    assert with_template(base, OWN + " ", {}, tmp_path) != made


def test_settings_are_defaults_of_the_template(base: Path, tmp_path: Path) -> None:
    made = with_template(base, TELLS, SETTINGS, tmp_path)
    assert rendered(made) == "False|it's %} {{ \"ä😀\n|3hi"
    assert rendered(made, c=4, b="x", a=True) == "True|x|4hi"
    made = with_template(base, CHATML + "{# a #}", {"a": 1}, tmp_path)
    assert rendered(made) == rendered(base)


def test_templates_by_name_are_set_each(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model")
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"default": TELLS, "tool_use": "{{ c }}"}
    tokenizer.save_pretrained(model)
    made = with_template(model, None, SETTINGS, tmp_path)
    assert rendered(made).endswith("|3hi")
    assert rendered(made, tools=[{}]) == "3"


def test_settings_need_a_template(tmp_path: Path) -> None:
    model = write_model(tmp_path / "model", chat_template=None)
    with pytest.raises(Failure, match="no chat template that") as caught:
        with_template(model, None, {"a": 1}, tmp_path)
    assert caught.value.reason is Reason.MODEL_UNSUPPORTED


@pytest.mark.parametrize(
    ("name", "words"),
    [("enable_thinkin", "stands nowhere in"), ("add_generation_prompt", "is given by whatever")],
)
def test_a_setting_that_changes_nothing_is_refused(
    base: Path, tmp_path: Path, name: str, words: str
) -> None:
    reads = OWN + "{% if enable_thinking and add_generation_prompt %}x{% endif %}"
    with pytest.raises(Failure, match=rf"chatTemplateKwargs: {name} {words}"):
        with_template(base, reads, {name: True}, tmp_path)
    assert rendered(with_template(base, reads, {"enable_thinking": True}, tmp_path)) == "hi"


def test_a_template_is_read_from_where_the_job_says(tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    given = ChatTemplate(uri=file.as_uri())
    assert read_template(None, None) is None
    assert read_template(ChatTemplate(inline=OWN), None) == OWN
    for content, reason, words in [
        (None, Reason.MODEL_NOT_FOUND, "does not exist"),
        (b" \n", Reason.MODEL_UNSUPPORTED, "has no text"),
        (b"\xff", Reason.MODEL_UNSUPPORTED, "is not UTF-8"),
        (b"x" * (LONGEST_TEMPLATE + 1), Reason.MODEL_UNSUPPORTED, "more than 128 KiB"),
    ]:
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(Failure, match=words) as caught:
            read_template(given, None)
        assert caught.value.reason is reason
    file.write_bytes(b"x" * LONGEST_TEMPLATE)
    assert read_template(given, None) == "x" * LONGEST_TEMPLATE
    mounted = ChatTemplate(config_map=ConfigMapFile(name="ours", key="k"))
    assert read_template(mounted, None, str(file)) == "x" * LONGEST_TEMPLATE
    with pytest.raises(Failure, match="write it inline"):
        read_template(mounted, None)
