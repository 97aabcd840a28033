"""The tables of faults in docs/operations.md say what was measured.

`UPDATE_GOLDEN=1 pytest tests/faults/test_fault_table.py` writes them anew; read what git shows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from support.faults import control, inputs, nodes, runs, starting, strangers
from support.faults.table import markdown

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
BEGIN, END = "as measured. -->\n", "<!-- End of what was measured. -->\n"
GROUPS = {
    "Nodes and pods": nodes.FAULTS,
    "Pods that are not made, or do not start": starting.FAULTS,
    "Memory, limits of nodes, the run": runs.FAULTS,
    "Object store, hub, Secrets, data": inputs.FAULTS,
    "Strangers, and what tenants forge": strangers.FAULTS,
    "The operator, the API server, users": control.FAULTS,
}


def sections() -> dict[str, str]:
    """Return the tables that stand in the page, by their titles."""
    text = DOCS.read_text().partition(BEGIN)[2].partition(END)[0]
    return {
        title: body.strip()
        for title, body in re.findall(r"^### (.+)\n((?:(?!###).*\n)*)", text, re.M)
    }


def write(title: str, body: str) -> None:
    before, _, rest = DOCS.read_text().partition(BEGIN)
    after, known = rest.partition(END)[2], {**sections(), title: body}
    told = "".join(f"\n### {t}\n\n{known.get(t, '')}\n" for t in GROUPS)
    DOCS.write_text(f"{before}{BEGIN}{told}\n{END}{after}")


@pytest.mark.parametrize("title", GROUPS)
def test_the_page_says_what_was_measured(title: str) -> None:
    measured = markdown(GROUPS[title])
    if os.environ.get("UPDATE_GOLDEN"):
        write(title, measured)
    assert sections().get(title) == measured


def test_the_page_has_these_tables_and_no_others() -> None:
    assert list(sections()) == list(GROUPS)
