"""The accuracy that every backend owes: per group, max |y - exact| <= bound max|exact| + t."""

from fractions import Fraction

import torch

# t is the smallest normal number: where ties push every weight that counts below it, zero is right.
BOUND = {torch.float64: Fraction(1, 10**13), torch.float32: Fraction(1, 10**6)}


def relative_error(actual, numerators, denominator, scale=None):
    """Largest |actual - numerators / denominator| less t, over the largest |exact| (or ``scale``): one group, a float."""
    t = Fraction(torch.finfo(actual.dtype).tiny)
    largest = max(map(abs, numerators)) if scale is None else scale * denominator  # over denominator
    ratios = [value.as_integer_ratio() for value in actual.tolist()]  # raises for what is not finite
    common = max((b for _, b in ratios), default=1)  # powers of two
    differences = [
        abs(a * (common // b) * denominator - n * common) for (a, b), n in zip(ratios, numerators, strict=True)
    ]
    worst = max(differences, default=0)  # over common denominator
    if worst * t.denominator <= t.numerator * common * denominator:
        return 0.0
    assert largest, f"got {actual[differences.index(worst)]}, exactly 0 is right"
    return float(Fraction(worst, common) / largest)


def relative_error_of(actual, exact, scale=None):
    """The same with exact a list of fractions."""
    denominator = 1
    for value in exact:
        if denominator % value.denominator:
            denominator *= value.denominator
    return relative_error(actual, [int(value * denominator) for value in exact], denominator, scale)
