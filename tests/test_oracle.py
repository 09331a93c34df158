"""The oracle against the definitions."""

import random
from fractions import Fraction
from itertools import product

import oracle
import pytest


@pytest.mark.parametrize("form", oracle.FORMS)
def test_counting_subsets_equals_summing_over_them(form):
    rng = random.Random(0)
    for n in range(1, 9):
        for k in range(1, n + 1):
            if not oracle.allowed(form, n, k):
                continue
            for values in (range(-3, 60), range(3), (7,)):
                x = [Fraction(rng.choice(values), 4) for _ in range(n)]
                assert oracle.transform(x, k, form) == oracle.by_subsets(x, k, form), (n, k, x)


@pytest.mark.parametrize("form", oracle.FORMS)
def test_infinite_values_are_the_limit_of_finite_ones(form):
    large = Fraction(10) ** 9
    for n in range(1, 6):
        for signs in product((-1, 0, 1), repeat=n):
            x = [sign * float("inf") if sign else i / 4 for i, sign in enumerate(signs)]
            of_finite = [sign * large if sign else Fraction(i, 4) for i, sign in enumerate(signs)]
            for k in range(1, n + 1):
                if not oracle.allowed(form, n, k):
                    continue
                (c, f), y = oracle.unbounded(x, k, form), oracle.by_subsets(of_finite, k, form)
                if form == "max_at_k":
                    c, f, y = [c], [f], [y]
                assert [a * large + b for a, b in zip(c, f, strict=True)] == y


def test_worked_by_hand():
    # n = 3, k = 2, rewards 0, 1, 3: the pairs' maxima are 1 (0,1), 3 (0,3), 3 (1,3).
    x = [0, 1, 3]
    assert oracle.by_subsets(x, 2, "max_at_k") == Fraction(7, 3)
    assert oracle.by_subsets(x, 2, "none") == [Fraction(4, 3), Fraction(4, 3), Fraction(6, 3)]
    # a sample's gain over the rest of its pair: 0; 1-0 and 0; 3-0 and 3-1
    assert oracle.by_subsets(x, 2, "loo-1") == [0, Fraction(1, 3), Fraction(5, 3)]
    # s_i less half the sum of the others' s in the pair that is left: max of it, twice, halved
    assert oracle.by_subsets(x, 2, "loo") == [Fraction(4, 3) - 3, Fraction(4, 3) - 3, 2 - Fraction(1)]


@pytest.mark.parametrize("form", oracle.FORMS)
def test_gradient_is_the_slope_of_the_definition(form):
    rng = random.Random(1)
    n, step = 5, Fraction(1, 1000)
    x = [Fraction(value) for value in rng.sample(range(20), n)]
    for k in range(1, n + 1):
        if not oracle.allowed(form, n, k):
            continue
        grad = Fraction(3) if form == "max_at_k" else [Fraction(rng.randint(-5, 5)) for _ in range(n)]

        def loss(x, k=k, grad=grad):
            y = oracle.by_subsets(x, k, form)
            return grad * y if form == "max_at_k" else sum(g * v for g, v in zip(grad, y))

        for i, slope in enumerate(oracle.gradient(x, grad, k, form)):
            up, down = list(x), list(x)
            up[i] += step
            down[i] -= step
            assert (loss(up) - loss(down)) / (2 * step) == slope


def test_closed_form_for_binary_rewards():
    """With c ones among n: none gives k/n and k/n (1 - C(n-1-c,k-1)/C(n-1,k-1)), loo-1 gives C(n-c,k-1)/C(n,k) and 0."""
    from math import comb

    for n, c in product(range(1, 9), range(9)):
        for k in range(1, n + 1):
            if c > n:
                continue
            x = [1] * c + [0] * (n - c)
            none = oracle.transform(x, k, "none")
            if c:
                assert none[0] == Fraction(k, n)
            if c < n:
                assert none[-1] == Fraction(k, n) * (1 - Fraction(comb(n - 1 - c, k - 1), comb(n - 1, k - 1)))
            if k >= 2:
                gain = Fraction(comb(n - c, k - 1), comb(n, k)) if c < n else 0
                assert oracle.transform(x, k, "loo-1") == [gain] * c + [0] * (n - c)
