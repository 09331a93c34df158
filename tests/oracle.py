"""The ops in exact rational arithmetic, on the very float values given. Shares no formula with the code under test.

Three levels, each checked against the one before in test_oracle.py:

* ``by_subsets``: the definitions of the paper (arXiv 2505.15201), sums over all C(n, k) subsets;
* ``linear``: the same by counting subsets, one pass over the sorted values, in fractions; linear in the values;
* ``integers``: the same over a common denominator, for n in the tens of thousands.

An absent sample is None. An infinite value is not a rational: ``unbounded`` gives what comes of it in the limit.
"""

from fractions import Fraction
from functools import lru_cache
from itertools import accumulate, combinations
from math import comb, isinf, sqrt

FORMS = ("none", "loo", "loo-1", "max_at_k")


def allowed(form, n, k):
    return 1 <= k <= (n - 1 if form == "loo" else n)


# ------------------------------------------------------------------------------------------------- sums over subsets


def max_at_k_by_subsets(x, k):
    subsets = list(combinations(x, k))
    return sum(map(max, subsets), Fraction(0)) / len(subsets)


def _share_by_subsets(x, i, k):
    """s_i: 1/C(n,k) times the sum, over the k-subsets that contain i, of their maximum."""
    others = x[:i] + x[i + 1 :]
    return sum((max((x[i], *rest)) for rest in combinations(others, k - 1)), Fraction(0)) / comb(len(x), k)


def by_subsets(x, k, form):
    x = [Fraction(value) for value in x]
    n = len(x)
    if form == "max_at_k":
        return max_at_k_by_subsets(x, k)
    if form == "none":
        return [_share_by_subsets(x, i, k) for i in range(n)]
    if form == "loo":
        y = []
        for i in range(n):
            others = x[:i] + x[i + 1 :]
            rest = sum((_share_by_subsets(others, j, k) for j in range(n - 1)), Fraction(0))
            y.append(_share_by_subsets(x, i, k) - rest / (n - 1))
        return y
    if k == 1:  # the leave-one-out advantage, over n
        return [(x[i] - (sum(x) - x[i]) / (n - 1)) / n if n > 1 else Fraction(0) for i in range(n)]
    y = []
    for i in range(n):
        others = x[:i] + x[i + 1 :]
        gains = (max((x[i], *rest)) - max(rest) for rest in combinations(others, k - 1))
        y.append(sum(gains, Fraction(0)) / comb(n, k))
    return y


# ------------------------------------------------------------------------------------------------ counting subsets


def integers(x, k, form, bits=None):
    """x sorted integers. Returns (numerators by rank, one denominator); for max_at_k one numerator.

    Rank q is the largest of a k-subset of n in C(q, k-1) ways; with one given lower member, in C(q-1, k-2) ways.
    With ``bits``, every number of subsets is given in units of C(n, k) / 2^bits, rounded down: for n so large that exact
    counts would fill the memory. Then a weight is short of the exact one by less than 2^-bits.
    """
    n, unit = len(x), None if bits is None else (comb(len(x), k), bits)
    count = _Counts(x, unit)
    all_k, rest_k = count.subsets(n, k), count.subsets(n - 1, k)
    if form == "max_at_k":
        return sum(c * v for c, v in zip(count.column(k - 1), x)), all_k
    if form == "loo-1" and k == 1:
        total = sum(x)
        return [value * n - total for value in x], max(n * (n - 1), 1)
    own, above = count.column(k - 1), count.tail(k - 2)
    share = [own[p] * x[p] + above[p] for p in range(n)]  # s_p = C(p, k-1) x_p + sum_{q > p} C(q-1, k-2) x_q
    if form == "none":
        return share, all_k
    if form == "loo":
        # s_p less k/(n-1) times max_at_k of the rest, in which the ranks above p move down by one
        rest = [b + a for b, a in zip(count.head(k - 1), count.tail(k - 1))]
        return [s * rest_k * (n - 1) - k * r * all_k for s, r in zip(share, rest)], all_k * rest_k * (n - 1)
    # loo-1: s_p less the sum of the largest of the k-1 others over the same subsets
    return [s - (b + a) for s, b, a in zip(share, count.head(k - 2), above)], all_k


class _Counts:
    """Sums of C(q, j) x_q over sorted x."""

    def __init__(self, x, unit):
        self.x, self.unit = x, unit

    def subsets(self, n, k):
        return _in_units(comb(n, k), self.unit)

    def column(self, j):
        return _column(len(self.x), j, self.unit)

    def head(self, j):
        """sum_{q < p} C(q, j) x_q for every p"""
        return [0, *accumulate(c * v for c, v in zip(self.column(j), self.x))][:-1]

    def tail(self, j):
        """sum_{q > p} C(q-1, j) x_q for every p"""
        terms = [c * v for c, v in zip(self.column(j), self.x[1:])]
        return [*reversed([*accumulate(reversed(terms))]), 0]


def _in_units(count, unit):
    if unit is None:
        return count
    total, bits = unit
    return 0 if count.bit_length() + bits < total.bit_length() else (count << bits) // total


@lru_cache(maxsize=8)
def _column(n, j, unit):
    """C(q, j) for q = 0..n-1; 0 for j < 0"""
    column, value = [], 0
    for q in range(n):
        if q == j:
            value = 1
        elif j >= 0 and q > j:
            value = value * q // (q - j)
        column.append(_in_units(value, unit))
    return column


def linear(x, k, form):
    """By rank, for x in sorted order or, as the ops are linear there, any values in its place."""
    x = [Fraction(value) for value in x]
    scale = _common_denominator(x)
    numerators, denominator = integers([int(value * scale) for value in x], k, form)
    if form == "max_at_k":
        return Fraction(numerators, denominator * scale)
    return [Fraction(value, denominator * scale) for value in numerators]


def _common_denominator(x):
    """Floats are integers over a power of two: the largest of those serves all; other fractions are multiplied up."""
    scale = 1
    for value in x:
        if scale % value.denominator:
            scale *= value.denominator
    return scale


def clamp(form, n, k):
    return min(k, n - 1 if form == "loo" else n)


def transform(x, k, form):
    """In the order of x, None for absent samples, k clamped; fractions. max_at_k: one fraction, None for no sample."""
    present = [i for i, value in enumerate(x) if value is not None]
    order = sorted(present, key=lambda i: x[i])
    n, k = len(order), clamp(form, len(order), k)
    if form == "max_at_k":
        return linear([x[i] for i in order], k, form) if n else None
    y = [Fraction(0)] * len(x)
    if k >= 1:
        for i, value in zip(order, linear([x[i] for i in order], k, form)):
            y[i] = value
    return y


def unbounded(x, k, form):
    """Of values some of which may be infinite, c M + f for M in their place: (c, f), each as transform() gives it. The result
    is infinite where c is not 0, with its sign, else f."""
    order = sorted(range(len(x)), key=lambda i: x[i])
    infinite = [(x[i] > 0) - (x[i] < 0) if isinf(x[i]) else 0 for i in order]
    finite = [0 if isinf(x[i]) else x[i] for i in order]
    c, f = linear(infinite, k, form), linear(finite, k, form)
    if form == "max_at_k":
        return c, f
    rank = sorted(range(len(x)), key=lambda p: order[p])
    return [c[p] for p in rank], [f[p] for p in rank]


def advantages(x, k, form, scale):
    """transform, scaled: "sum", "mean" or "std", as floats; 0 for absent samples."""
    y = transform(x, k, form)
    there = [i for i, value in enumerate(x) if value is not None]
    n = len(there)
    if scale != "sum":
        y = [n * value for value in y]
    if scale == "std" and n > 1:
        mean = sum(y[i] for i in there) / n
        deviation = sqrt(sum((y[i] - mean) ** 2 for i in there) / (n - 1))
        y = [float(value) / (deviation + 1e-4) for value in y]
    return [float(value) for value in y]


def gradient(x, grad, k, form):
    """Of sum(grad * transform(x)), or grad * max_at_k(x); at a tie shared equally among the tied. n in the tens."""
    present = [i for i, value in enumerate(x) if value is not None]
    order = sorted(present, key=lambda i: x[i])
    n, k = len(order), clamp(form, len(order), k)
    gx = [Fraction(0)] * len(x)
    if k < 1:
        return gx
    by_rank = []
    for q in range(n):  # the column of rank q: what each output receives of it
        column = linear([int(p == q) for p in range(n)], k, form)
        if form == "max_at_k":
            by_rank.append(Fraction(grad) * column)
        else:
            by_rank.append(sum((Fraction(grad[i]) * c for i, c in zip(order, column)), Fraction(0)))
    for i in order:
        tied = [r for r in range(n) if x[order[r]] == x[i]]
        gx[i] = sum((by_rank[r] for r in tied), Fraction(0)) / len(tied)
    return gx
