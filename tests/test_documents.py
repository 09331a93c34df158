"""What the documents say against what it comes from: examples are run, tables compared with result files, links followed."""

import doctest
import importlib
import re
import sys
from fractions import Fraction
from pathlib import Path

import oracle
import pytest
import torch

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import tables  # noqa: E402

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("kernels/*.md")])


@pytest.mark.parametrize("name", ["functional", "numpy", "annealing", "_advantages", "distributed", "_choice"])
def test_examples(name):
    torch.set_printoptions(profile="default")
    found = doctest.testmod(importlib.import_module(f"pkpo_kernels.{name}"))
    assert found.failed == 0 and found.attempted > 1


@pytest.mark.parametrize("name", ["transform", "max_at_k"])
def test_examples_of_the_ops(name):
    examples = doctest.DocTestParser().get_doctest(
        getattr(torch.ops.pkpo, name).__doc__, {"torch": torch}, name, None, None
    )
    assert len(examples.examples) > 2
    assert doctest.DocTestRunner().run(examples).failed == 0


def code_of(path):
    """The Python in a document, run from top to bottom."""
    names = {}
    for code in re.findall(r"```python\n(.*?)```", (ROOT / path).read_text(), re.S):
        exec(compile(code, path, "exec"), names)
    return names


def test_code_of_the_readme():
    names = code_of("README.md")
    rewards = names["rewards"]
    assert oracle.transform(rewards[0].tolist(), 2, "max_at_k") == Fraction(1, 2)  # as the comment says: pass@2
    log_probs = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    names["loss_of"](log_probs, rewards.double(), 2).backward()
    values = [[None if x != x else x for x in row] for row in rewards.tolist()]
    exact = [[-float(s) / 2 for s in oracle.transform(row, 2, "loo-1")] for row in values]
    torch.testing.assert_close(log_probs.grad, torch.tensor(exact, dtype=torch.float64))


def test_code_of_the_other_documents():
    assert code_of("docs/backends.md")["weights"].tolist() == [[0, pytest.approx(1 / 3), pytest.approx(5 / 3)]]
    # docs/training.md: test_recipes.py
    others = [path.name for path in DOCUMENTS if "```python" in path.read_text()]
    assert sorted(others) == ["README.md", "backends.md", "training.md"]


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
