"""The accuracy that every backend owes: per group, max |y - exact| <= bound max|exact| + t."""

from fractions import Fraction

import torch

# t is the smallest normal number: where ties push every weight that counts below it, zero is right.
BOUND = {torch.float64: Fraction(1, 10**13), torch.float32: Fraction(1, 10**6)}


def relative_error(actual, numerators, denominator, scale=None):
    """Largest |actual - numerators / denominator| less t, over the largest |exact| (or ``scale``): one group, a float."""
    t = Fraction(torch.finfo(actual.dtype).tiny)
    largest = max(map(abs, numerators)) if scale is None else scale * denominator  # over denominator
    worst = Fraction(0)
    for value, numerator in zip(actual.tolist(), numerators, strict=True):
        a, b = value.as_integer_ratio()  # raises for what is not finite
        difference = abs(a * denominator - numerator * b)  # over b denominator
        if difference * t.denominator > t.numerator * b * denominator:
            assert largest, f"got {value}, exactly 0 is right"
            worst = max(worst, Fraction(difference, b) / largest)
    return float(worst)


def relative_error_of(actual, exact, scale=None):
    """The same with exact a list of fractions."""
    denominator = 1
    for value in exact:
        if denominator % value.denominator:
            denominator *= value.denominator
    return relative_error(actual, [int(value * denominator) for value in exact], denominator, scale)
