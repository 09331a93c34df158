"""What the documents say against what it comes from: examples are run, tables compared with result files, links followed."""

import doctest
import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import tables  # noqa: E402

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("kernels/*.md")])


@pytest.mark.parametrize("name", ["functional", "numpy", "annealing", "_advantages", "distributed"])
def test_examples(name):
    torch.set_printoptions(profile="default")
    found = doctest.testmod(importlib.import_module(f"pkpo_kernels.{name}"))
    assert found.failed == 0 and found.attempted > 1


@pytest.mark.parametrize("name", tables.DOCUMENTS)
def test_tables_are_those_of_the_result_files(name):
    text = (ROOT / name).read_text()
    assert tables.BLOCK.search(text), "no table"
    assert tables.filled(text) == text, "run python -m bench tables"


def test_a_table_that_differs_is_noticed():
    text = (ROOT / tables.DOCUMENTS[0]).read_text()
    begin = tables.BLOCK.search(text).end(1)
    assert tables.filled(text[:begin] + "| 1 |\n" + text[begin:]) == text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not re.match(r"https?://", target):
            assert (path.parent / target).exists(), target
