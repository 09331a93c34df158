"""The division of Triton's kernels by itself, in the interpreter, against exact fractions."""

from fractions import Fraction

import pytest
import torch

pytest.importorskip("triton")

import triton
import triton.language as tl
from pkpo_kernels.triton import weigh

from pkpo_kernels import _triton

pytestmark = pytest.mark.skipif(not _triton.is_interpreted(), reason="needs TRITON_INTERPRET=1")


@triton.jit
def divide(a, b, out, N: tl.constexpr):
    at = tl.arange(0, N)
    tl.store(out + at, weigh.quotient(tl.load(a + at), tl.load(b + at)))


def quotient(a, b):
    out = torch.empty_like(a)
    divide[(1,)](a, b, out, len(a))
    return out


def test_to_the_last_place():
    generator = torch.Generator().manual_seed(0)
    b = torch.cat([torch.arange(1, 1025), torch.randint(1, 2**62, (1024,), generator=generator)]).double()
    a = torch.randn(2048, generator=generator, dtype=torch.float64) * b.roll(7)
    for x, y, q in zip(a.tolist(), b.tolist(), quotient(a, b).tolist()):
        exact = Fraction(x) / Fraction(y)
        assert abs(Fraction(q) - exact) <= abs(exact) * Fraction(2, 2**52), (x, y)


def test_values_at_the_ends():
    a = torch.tensor([0.0, torch.inf, -torch.inf, torch.nan], dtype=torch.float64)
    found = quotient(a, torch.full_like(a, 3.0))
    assert found[:3].tolist() == [0.0, torch.inf, -torch.inf] and found[3].isnan()
