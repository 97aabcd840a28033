"""Columns of other names: read as what data.columns says that they are."""

from __future__ import annotations

from typing import Any

import pytest

from finetune_contract.recipe import Columns, DataFormat, DataRecipe, TrainingSource
from finetune_trainer.data.encoding import Form
from finetune_trainer.data.faults import Kind, RowError
from finetune_trainer.data.messages import Message
from finetune_trainer.data.reading.reader import RowReader
from finetune_trainer.data.rows import Dialogue, TextPair
from finetune_trainer.methods.base import Method
from finetune_trainer.methods.grpo.prompts.rows import prompt_reader
from finetune_trainer.process.errors import Failure

MEDICAL = {"Question": "2+3?", "Complex_CoT": "two and three", "Response": "5"}
TALK = {"talk": [{"who": "human", "said": "2+3?"}, {"who": "gpt", "said": "5"}], "id": 1}

APIS = '[{"name": "f"}]'


def read(row: dict[str, Any], **columns: str) -> Any:
    return RowReader(DataFormat.AUTO, columns)(row)


def test_a_pair_of_other_names() -> None:
    asked = Message("user", "2+3?")
    row = read(MEDICAL, prompt="Question", reasoning="Complex_CoT", completion="Response")
    answer = Message("assistant", "5", reasoning="two and three")
    assert row == Dialogue((asked, answer), learn_from=1)
    assert read(MEDICAL).ignored == ("Complex_CoT",)
    whole = {"q": "2+3?", "of": "x", "a": "5", "sys": "s", "was": [["b", "c"]], "do": APIS}
    pair = {"prompt": "q", "input": "of", "completion": "a"}
    row = read(whole, **pair, system="sys", history="was", tools="do")
    assert [turn.content for turn in row.messages] == ["s", "b", "c", "2+3?\nx", "5"]
    assert [tool["function"]["name"] for tool in row.tools] == ["f"]
    better = {"prompt": "2+3?", "chosen": "5", "rejected": "6"}
    row = read(better, completion="chosen")
    assert (row.messages, row.ignored) == ((asked, Message("assistant", "5")), ("rejected",))
    two = {"problem": "2+3?", "solution": "so 5", "answer": "5"}
    assert read(two, completion="solution").messages[1].content == "so 5"
    assert isinstance(read({"prompt": "a", "completion": "b"}, prompt="prompt"), TextPair)


def test_turns_of_other_names() -> None:
    row = read(TALK, messages="talk", role="who", content="said")
    assert row.messages == (Message("user", "2+3?"), Message("assistant", "5"))
    assert row.ignored == ("id",)
    both = {"prompt": "x", "completion": "y", **TALK}
    assert read(both, messages="talk", role="who", content="said").messages == row.messages


@pytest.mark.parametrize(
    ("columns", "kind", "words"),
    [
        ({"completion": "Responses"}, Kind.MISSPELT_FIELD, "(found 'Response')"),
        ({"system": "persona"}, Kind.MISSING_FIELD, "has no 'persona', which data.columns.system"),
    ],
)
def test_a_column_that_is_not_there_is_named(
    columns: dict[str, str], kind: Kind, words: str
) -> None:
    with pytest.raises(RowError) as caught:
        read(MEDICAL, **columns)
    assert caught.value.kind is kind
    assert words in str(caught.value)


def test_a_column_that_is_null_is_left_out_where_it_may_be() -> None:
    row = {**MEDICAL, "persona": None}
    assert len(read(row, system="persona").messages) == 2
    with pytest.raises(RowError, match=r"has no 'persona', which data\.columns\.completion names"):
        read(row, completion="persona")


def test_prompts_of_other_names() -> None:
    reader = prompt_reader(DataFormat.AUTO, {}, {"prompt": "Question"})
    row = reader(MEDICAL)
    assert row.text == "2+3?"
    assert '"columns":{"Complex_CoT":"two and three","Response":"5"}' in row.document
    talk = {**TALK, "talk": TALK["talk"][:1]}
    read_talk = prompt_reader(
        DataFormat.AUTO, {}, {"messages": "talk", "role": "who", "content": "said"}
    )
    assert read_talk(talk).messages == (Message("user", "2+3?"),)
    with pytest.raises(RowError, match="has 'prompt' beside 'Question', which is the prompt"):
        reader({**MEDICAL, "prompt": "x"})
    with pytest.raises(RowError, match=r"has no 'Question', which data\.columns\.prompt names"):
        reader({"prompt": "x"})


def test_nothing_that_belongs_to_a_prompt_is_left_out_of_it() -> None:
    with pytest.raises(Failure, match=r"data\.columns\.system is not for GRPO"):
        prompt_reader(DataFormat.AUTO, {}, {"prompt": "q", "system": "s"})
    reader = prompt_reader(DataFormat.AUTO, {})
    for name in ("system", "system_prompt", "functions", "images", "chat_template_kwargs"):
        with pytest.raises(RowError, match=f"has '{name}', which would be left out"):
            reader({"prompt": "2+3?", name: ["x"]})
        assert reader({"prompt": "2+3?", name: None})
    tools = prompt_reader(DataFormat.AUTO, {}, {"tools": "functions"})
    assert len(tools({"prompt": "2+3?", "functions": [{"name": "f"}]}).tools) == 1


def test_columns_are_read_by_a_job_and_decide_what_is_encoded() -> None:
    data = DataRecipe(
        train=(TrainingSource(uri="file:///a.jsonl"),), columns=Columns(completion="Response")
    )
    assert data.mapped == {"completion": "Response"}
    form = Method.mapped(Form(8), data.mapped)
    assert form.decides != Form(8).decides
    with pytest.raises(RowError, match=r"data\.columns\.completion"):
        form.reader(DataFormat.AUTO)({"prompt": "a", "completion": "b"})
    assert Method.mapped(Form(8), {}) == Form(8)
