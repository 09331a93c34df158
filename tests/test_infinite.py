"""Infinite rewards: the limit of ever larger finite ones, whatever the size of the weight that makes a result infinite."""

from fractions import Fraction

import oracle
import pytest
import torch
from backends import BACKENDS
from compare import BOUND, relative_error_of
from test_transform import call

every_form = pytest.mark.parametrize("form", oracle.FORMS)


def group(n, low, high):
    """n rewards in random order, so many of them -inf and so many +inf; float32."""
    generator = torch.Generator().manual_seed(1000 * n + 10 * low + high)
    x = torch.randn(n, generator=generator)
    order = torch.randperm(n, generator=generator)
    x[order[:low]], x[order[low : low + high]] = -torch.inf, torch.inf
    return x


def assert_right(form, k, groups):
    """Infinite where the weight of an infinite reward is not 0, and elsewhere as near as finite results are."""
    exact = [oracle.unbounded(x.tolist(), k, form) for x in groups]
    for dtype, bound in BOUND.items():
        tiny = torch.finfo(dtype).tiny
        for backend in BACKENDS:
            results = call(backend, form, torch.stack(groups).to(dtype), k)
            for x, (weights, finite), y in zip(groups, exact, results, strict=True):
                if form == "max_at_k":  # as near as that to the largest reward
                    present = [abs(Fraction(value)) for value in x.tolist() if abs(value) < torch.inf]
                    weights, finite, y, scale = [weights], [finite], y[None], max(present, default=0)
                else:
                    scale = max(map(abs, finite))
                without = []
                for i, (weight, value) in enumerate(zip(weights, y.tolist(), strict=True)):
                    if weight == 0:
                        without.append(i)
                    elif abs(weight) >= tiny:  # below, 0 is right too
                        assert value == (torch.inf if weight > 0 else -torch.inf), (backend, dtype, k, float(weight))
                if without:
                    error = relative_error_of(y[without], [finite[i] for i in without], scale=scale or None)
                    assert error <= bound, (backend, dtype, k)


@every_form
@pytest.mark.parametrize("n", range(1, 8))
def test_every_number_of_them(n, form):
    groups = [group(n, low, high) for low in range(n + 1) for high in range(n + 1 - low)]
    for k in range(1, n + 1):
        if oracle.allowed(form, n, k):
            assert_right(form, k, groups)


@every_form
@pytest.mark.parametrize("n", [33, 75, 300, 1000, 9000])
def test_weights_of_all_sizes(n, form):
    """From k - 1 ranks on a gap has a weight, and the first ones are many powers of ten smaller than the last."""
    for k in sorted({1, 2, 8, 21, n // 2, n - 1, n}) if n < 9000 else (8,):
        if oracle.allowed(form, n, k):
            lows = {low for low in (1, k - 1, k, k + 1, (k + n) // 2, n - 1, n) if low <= n}
            highs = (0, 1, 3) if n <= 75 else (0, 1)
            counts = [(low, high) for low in sorted({0, *lows}) for high in highs if 0 < low + high <= n]
            assert_right(form, k, [group(n, *count) for count in counts])
