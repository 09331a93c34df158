"""transform and max_at_k of dense rewards with an integer k, against exact arithmetic."""

from fractions import Fraction
from math import comb, ulp

import oracle
import pytest
import rewards
import torch
from backends import BACKENDS, CPU
from compare import BOUND, relative_error, relative_error_of

every_backend = pytest.mark.parametrize("backend", BACKENDS)
every_dtype = pytest.mark.parametrize("dtype", BOUND, ids=["float64", "float32"])
every_form = pytest.mark.parametrize("form", oracle.FORMS)


def call(backend, form, x, *args):
    if form == "max_at_k":
        return BACKENDS[backend].max_at_k(x, *args)
    return BACKENDS[backend].transform(x, *args, baseline=form)


def report(record_property, backend, form, dtype, error):
    """Ends up in the table of largest errors at the end of the run; see conftest.py."""
    record_property("error", (backend, form, str(dtype).removeprefix("torch."), error))


@every_form
@every_dtype
@every_backend
def test_every_n_and_k_up_to_12(backend, dtype, form, record_property):
    worst = 0
    for n in range(1, 13):
        x = torch.stack([rewards.for_dtype(kind, n, dtype) for kind in rewards.KINDS])
        for k in range(1, n + 1):
            if not oracle.allowed(form, n, k):
                continue
            for group, y in zip(x, call(backend, form, x, k)):
                values = group.tolist()
                exact = oracle.transform(values, k, form)
                if form == "max_at_k":
                    error = relative_error_of(y[None], [exact], scale=Fraction(max(map(abs, values))))
                else:
                    error = relative_error_of(y, exact)
                assert error <= BOUND[dtype], (n, k, values, y)
                worst = max(worst, error)
    report(record_property, backend, form, dtype, worst)


@pytest.mark.parametrize("form", ["none", "loo", "loo-1"])
@every_dtype
def test_small_rows_side_by_side(dtype, form, record_property):
    """So many that the CPU kernel fills its registers with them once and more, and has some left."""
    rows = torch.randn(37, 33, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    rows[::5] = rows[::5].round()
    rows[1::7] = (rows[1::7] > 0.5).to(dtype)
    for n in range(2, 34):
        x = rows[:, :n].contiguous()
        for k in sorted({1, 2, n // 2 + 1, n}):
            if not oracle.allowed(form, n, k):
                continue
            exact = [oracle.transform(group, k, form) for group in x.tolist()]
            for backend in BACKENDS:
                for y, expected in zip(call(backend, form, x, k), exact, strict=True):
                    error = relative_error_of(y, expected)
                    assert error <= BOUND[dtype], (backend, n, k)
                    report(record_property, backend, form, dtype, error)


@pytest.mark.parametrize("n,k", [(100, 7), (1000, 500), (65536, 4), (65536, 3000), (1_000_003, 8)])
def test_the_weights_are_rounded_once(n, k):
    """On the CPU: of c ones among zeros, each gets the weight of the one gap, C(n-c, k-1) / C(n, k)."""
    all_subsets = comb(n, k)
    for c in sorted({1, 2, n // 50, n // 10, n // 3, n - k, n - k + 1} - {0}):
        x = (torch.arange(n) < c).double()
        exact = Fraction(comb(n - c, k - 1), all_subsets)
        if exact < Fraction(torch.finfo(torch.float64).tiny):
            continue
        for backend in CPU.values():
            y = backend.transform(x, k)[0].item()
            assert abs(Fraction(y) - exact) <= Fraction(ulp(y)) * Fraction(501, 1000), (c, y)


def large_cases():
    for n in (13, 16, 63, 64, 100, 257, 1000, 1024, 4097, 6000, 65536):
        for k in sorted({1, 2, 3, 8, n // 2, n - 1, n}):
            yield n, k


@every_form
@pytest.mark.parametrize("n,k", list(large_cases()))
def test_large_n(n, k, form, record_property):
    if not oracle.allowed(form, n, k):
        return
    # The oracle takes seconds for 65,536 samples: there, one kind of rewards for every weight that a k has.
    kinds = rewards.KINDS if n <= 257 else (rewards.gaussian, rewards.few_ones, rewards.offset)
    kinds = kinds if n <= 4097 else kinds[k % 3 :][:1]
    for dtype in BOUND:
        for kind in kinds:
            x = rewards.for_dtype(kind, n, dtype)
            order = x.sort().indices
            numerators, scale = scaled_integers(x[order])
            exact, denominator = oracle.integers(numerators, k, form, bits=1300 if n > 4097 else None)
            for backend in BACKENDS:
                y = call(backend, form, x, k)
                if form == "max_at_k":
                    largest = Fraction(max(map(abs, numerators)), scale)
                    error = relative_error(y[None], [exact], denominator * scale, scale=largest)
                else:
                    error = relative_error(y[order], exact, denominator * scale)
                assert error <= BOUND[dtype], (backend, kind.__name__, dtype)
                report(record_property, backend, form, dtype, error)


def scaled_integers(x):
    """Floats as integers over one power of two."""
    ratios = [value.as_integer_ratio() for value in x.tolist()]
    scale = max(denominator for _, denominator in ratios)
    return [numerator * (scale // denominator) for numerator, denominator in ratios], scale


@pytest.mark.parametrize(
    "n,k", [(1000, 500), (1100, 550), (1000, 8), (3000, 1200), (5000, 4990), (65536, 8), (65536, 3000)]
)
def test_every_weight_down_to_the_smallest_normal_number(n, k):
    """Zeros below rank q and ones from it on: loo-1 gives the ones w[q] = C(q, k-1) / C(n, k) itself."""
    between = torch.linspace(k - 1, n - 1, 40 if n <= 5000 else 8).long().tolist()
    ranks = sorted({k - 1, k, n - 2, n - 1, *between})
    x = torch.zeros(len(ranks), n, dtype=torch.float64)
    for group, q in zip(x, ranks):
        group[q:] = 1
    total = comb(n, k)
    # The CPU kernel carries its rounding errors along; what is left is that of the last operations.
    bounds = {name: {torch.float64: 1e-15, torch.float32: 6e-8} for name in CPU}
    for dtype, bound in BOUND.items():
        tiny = torch.finfo(dtype).tiny
        exact = [Fraction(comb(q, k - 1), total) for q in ranks]
        for name in BACKENDS:
            y = call(name, "loo-1", x.to(dtype), k)[:, -1]
            for q, weight, got in zip(ranks, exact, y.tolist()):
                difference = abs(Fraction(got) - weight)
                allowed = Fraction(bounds.get(name, {}).get(dtype, bound))
                assert difference <= allowed * weight or (weight < tiny and got <= 2 * tiny), (name, dtype, q, got)


@pytest.mark.parametrize("n", [65_535, 1_000_003])
def test_sums_of_many_equal_terms_do_not_drift(n):
    """With k = 1, none is x / n and loo-1 (x - mean of the others) / n: every weight is the same, and a plain running sum of
    equal terms rounds the same way a thousand times over."""
    x = torch.arange(n, dtype=torch.float64) * 0.1
    numerators, scale = scaled_integers(x)
    others = [(x[i].item(), i) for i in range(0, n, n // 50)]
    total = Fraction(sum(numerators), scale)
    for name in BACKENDS:
        bound = 1e-15 if name in CPU else 1e-13
        none, loo_1 = call(name, "none", x, 1), call(name, "loo-1", x, 1)
        for value, i in others:
            exact = Fraction(value) / n
            assert abs(Fraction(none[i].item()) - exact) <= bound * Fraction(x[-1].item()) / n
            exact = (Fraction(value) - (total - Fraction(value)) / (n - 1)) / n
            assert abs(Fraction(loo_1[i].item()) - exact) <= bound * Fraction(x[-1].item()) / (2 * n)
