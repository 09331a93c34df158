"""Triton's kernel of many rows, in its interpreter or on a GPU: rows that fill two turns or more, of which the last begins
among those of the one before."""

from fractions import Fraction

import oracle
import pytest
import torch
from backends import BACKENDS
from compare import BOUND, relative_error_of
from samples import x as random

BACKEND = next((name for name in ("triton interpreted", "triton") if name in BACKENDS), None)
SAMPLES = 5000 if BACKEND == "triton" else 88  # at least
pytestmark = [
    pytest.mark.always,
    pytest.mark.skipif(BACKEND is None, reason="needs TRITON_INTERPRET=1 or a GPU"),
]
# The largest rows of each form: on a GPU each has a kernel compiled, for ten seconds and more.
FORMS = {"none": (128, 512), "loo": (100, 384), "loo-1": (100, 128, 256, 384, 512), "max_at_k": (256,)}


@pytest.fixture
def taken(monkeypatch):
    """The widths of the calls that the kernel took."""
    from pkpo_kernels.triton import launch, rows

    widths, launches_of = [], launch.launches_in_registers

    def spy(*call):
        launches = launches_of(*call)
        if any(variant.kernel is rows.weigh_rows for variant, *_ in launches):
            *_, width, _ = call
            widths.append(width)
        return launches

    monkeypatch.setattr(launch, "launches_in_registers", spy)
    return widths


def call(form, *arguments):
    backend = BACKENDS[BACKEND]
    return backend.max_at_k(*arguments) if form == "max_at_k" else backend.transform(*arguments, baseline=form)


def batch(n, kind):
    values = random(max(11, SAMPLES // n), n)
    return {"plain": values, "ties": values.round(), "binary": (values > 0.5).float()}[kind]


@pytest.mark.parametrize("kind", ["plain", "ties", "binary"])
@pytest.mark.parametrize("form", FORMS)
def test_against_exact_arithmetic(taken, form, kind):
    for n in (2, 4, 8, 12, 16, 32, 64, *FORMS[form]):
        values = batch(n, kind)
        for k in sorted({1, 2, n // 2, n - 1, n} if n < 100 else {2, n}):
            if not oracle.allowed(form, n, k):
                continue
            rows = list(zip(values, call(form, values, k), strict=True))
            for row, y in rows[:: len(rows) // 12 if BACKEND == "triton" and len(rows) > 12 else 1]:
                exact = oracle.transform(row.tolist(), k, form)
                if form == "max_at_k":
                    error = relative_error_of(y[None], [exact], scale=Fraction(row.abs().max().item()))
                else:
                    error = relative_error_of(y, exact)
                assert error <= BOUND[torch.float32], (n, k, row, y)
        assert n in taken


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 3e38, 8e37])
def test_rows_beside_one_that_is_not_usual(taken, form, value):
    """They have the same bits as without it; it has those that it has as a group told by offsets."""
    for n in (2, 8, 12, 64, *(FORMS[form] if value == float("inf") else ())):
        values = batch(n, "ties")
        usual = call(form, values, 1)
        values[5, 1] = value
        y = call(form, values, 1)
        assert taken[-2:] == [n, n]
        others = torch.arange(len(values)) != 5
        assert torch.equal(y[others].view(torch.int32), usual[others].view(torch.int32))
        alone = call(form, values[5], torch.tensor([0, n]), torch.tensor(1))
        assert torch.equal(y[5].view(-1).view(torch.int32), alone.view(torch.int32))


def test_equal_rewards_have_equal_results(taken):
    for n in (4, 12, 16, 64, *FORMS["loo-1"]):
        values = batch(n, "ties") / 3
        y = call("loo-1", values, 3)
        for row, results in zip(values, y, strict=True):
            for value in row.unique():
                assert results[row == value].unique().numel() == 1
        assert taken[-1] == n
