"""From sorted groups to results: coefficients of gaps (the table in kernels/README.md), scans, gradients. What stands here is
per group and by rank; ``n`` and ``k`` are one integer a group.

Terms and their sums are float32 for float32 rewards, which pass through about log2(n) + 3 roundings, and float64 for float64;
weights and gradients are float64 always.
"""

import triton
import triton.language as tl

from .hypercube import (
    any_of,
    as_integer,
    either,
    is_right,
    largest_up_to,
    max_of_groups,
    nearest_after,
    nearest_at_or_before,
    neighbour,
    previous,
    smallest_after,
    sums_after,
    sums_before,
    value_at,
)

NONE = tl.constexpr(0)
LOO = tl.constexpr(1)
LOO_1 = tl.constexpr(2)
MAX_AT_K = tl.constexpr(3)


@triton.jit
def quotient(a, b):
    """a / b in float64 for b from 1 to 2**64, to the last place: Newton's iterations for 1 / b from a float32, then one for
    the quotient. The compiler's own division has a branch for subnormal numbers, which is a call that registers are spilled
    around."""
    y = (1.0 / b.to(tl.float32)).to(tl.float64)
    y = tl.fma(y, tl.fma(-b, y, 1.0), y)
    y = tl.fma(y, tl.fma(-b, y, 1.0), y)
    q = a * y
    rest = tl.fma(-b, q, a)
    return tl.where(rest == rest, tl.fma(rest, y, q), q)  # inf - inf where a is infinite


@triton.jit
def clamp_k(k, n, FORM: tl.constexpr):
    """k as it is used where n samples are present; 0 where the group has no answer but zeros."""
    largest = n
    if FORM == LOO:
        largest = n - 1
    k = tl.minimum(tl.maximum(k, 1), largest.to(tl.int64))
    return tl.maximum(k, 0).to(tl.int32)


@triton.jit
def factors(rank, n, k, FORM: tl.constexpr):
    """w[q] is the product of the factors of ranks q .. n-1 with loo-1, where w[q] counts gap q; else w[q-1] is, which
    counts it there."""
    q = rank.to(tl.float64)
    last = quotient(k.to(tl.float64), tl.maximum(n, 1).to(tl.float64))
    if FORM == LOO_1:
        ratio = quotient(tl.maximum(rank + 2 - k, 0).to(tl.float64), q + 1)
        factor = tl.where(rank == n - 1, last, ratio)
    else:
        ratio = quotient(tl.maximum(rank + 1 - k, 0).to(tl.float64), tl.maximum(q, 1.0))
        factor = tl.where(rank == n - 1, ratio * last, ratio)
        factor = tl.where(rank == 0, 1.0, factor)
    return tl.where(rank >= n, 1.0, factor)


@triton.jit
def up_of(w, rank, n, k, FORM: tl.constexpr):
    """What a gap counts for the ranks from it on, for the forms that have it; float64."""
    q = rank.to(tl.float64)
    N = n.to(tl.float64)
    if FORM == LOO:
        c = w * quotient(q * N, tl.maximum((N - 1) * (N - k.to(tl.float64)), 1.0))
    else:
        c = tl.where(k == 1, quotient(q, tl.maximum(N * (N - 1), 1.0)), w)
    return tl.where((rank >= 1) & (rank < n), c, 0.0)


@triton.jit
def down_of_mean(up, n):
    """down_of() of loo-1 with k = 1, from what up_of() gives: of every gap they are 1 / (n - 1) together."""
    N = n.to(tl.float64)
    return quotient(N * 0 + 1, tl.maximum(N - 1, 1.0)).to(up.dtype) - up


@triton.jit
def down_of(w, rank, n, k, kind: tl.constexpr, FORM: tl.constexpr):
    """What a gap counts, negative, for the ranks before it."""
    q = rank.to(tl.float64)
    N = n.to(tl.float64)
    K = k.to(tl.float64)
    if FORM == NONE:
        c = w.to(kind)
    elif FORM == LOO:
        c = (w * quotient(N * (N - 1 - q) + K, tl.maximum((N - 1) * (N - K), 1.0))).to(kind)
    elif FORM == MAX_AT_K:
        c = (w * quotient(q, tl.maximum(K, 1.0))).to(kind)
    else:
        c = tl.where(k == 1, down_of_mean(up_of(w, rank, n, k, FORM).to(kind), n), 0.0)
    return tl.where((rank >= 1) & (rank < n), c, 0.0)


@triton.jit
def top_of(n, k, FORM: tl.constexpr):
    """What the top reward counts; float64."""
    N = tl.maximum(n, 1).to(tl.float64)
    K = k.to(tl.float64)
    if FORM == NONE:
        return quotient(K, N)
    elif FORM == LOO:
        return quotient(-quotient(K, N), tl.maximum(N - 1, 1.0))
    elif FORM == MAX_AT_K:
        return K * 0 + 1
    else:
        return K * 0


@triton.jit
def has_down(k, FORM: tl.constexpr):
    """For any group of the program."""
    if FORM == LOO_1:
        return any_of(k == 1)
    else:
        return True


@triton.jit
def sums_down(gap, w, rank, n, k, FORM: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    """What gaps count for the ranks before them: sums over the ranks after, and over all."""
    terms = tl.where(gap == 0, 0.0, down_of(w, rank, n, k, gap.dtype, FORM) * gap)
    return sums_after(terms, log_n, dims)


@triton.jit
def scan(gap, x_top, w, rank, n, k, below, above, FORM: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    """y by rank, from finite gaps and the top reward; ``below`` and ``above`` are what lies before and after these ranks, one
    number a group. Gives what lies before the next ranks too."""
    y = tl.zeros_like(gap)
    if FORM != LOO_1:
        y = y + top_of(n, k, FORM).to(gap.dtype) * x_top
    if has_down(k, FORM):
        after, _ = sums_down(gap, w, rank, n, k, FORM, log_n, dims)
        y = y - (after + above.to(gap.dtype))
    if (FORM == LOO) | (FORM == LOO_1):
        terms = tl.where(gap == 0, 0.0, up_of(w, rank, n, k, FORM).to(gap.dtype) * gap)
        before, all = sums_before(terms, log_n, dims)
        y = y + (before + terms + below.to(gap.dtype))
        below = below + all.to(tl.float64)
    return y, below


@triton.jit
def too_large(x):
    """Whether a difference of such values may overflow, or one is infinite."""
    if x.dtype == tl.float32:
        return (tl.abs(x) < 8.507059173023462e37) == 0
    else:
        return (tl.abs(x) < 4.49423283715579e307) == 0


@triton.jit
def negligible(top, n, k, FORM: tl.constexpr):
    """An infinite part not larger than this is what rounding left of 0. Without a +M at the top a result has one term of
    M at most, so that nothing cancels. ``top``: the infinite part of the top value."""
    least = 1e-12
    if top.dtype == tl.float32:
        least = 4e-7
    largest = quotient(k.to(tl.float64), tl.maximum(n, 1).to(tl.float64))
    if FORM == MAX_AT_K:
        largest = largest * 0 + 1
    if FORM == LOO_1:
        largest = tl.where(k == 1, largest, 0.0)
    return tl.where(top > 0, largest * least, 0.0).to(top.dtype)


@triton.jit
def finite_part(x, is_wild):
    """Where a group's values are wild: infinite ones left out, the others at a quarter."""
    scale = tl.where(is_wild, 0.25, 1.0).to(x.dtype)
    return tl.where(tl.abs(x) == float("inf"), 0.0, x * scale)


@triton.jit
def infinite_part(x):
    return tl.where(x == float("inf"), 1.0, tl.where(x == float("-inf"), -1.0, 0.0)).to(x.dtype)


@triton.jit
def put_together(finite, infinite, top, is_wild, n, k, FORM: tl.constexpr):
    """Infinite rewards act as the limit of ever larger finite ones: the result is infinite where they count."""
    limit = negligible(top, n, k, FORM)
    y = tl.where(is_wild, finite * 4, finite)
    unbounded = tl.where(infinite < 0, float("-inf"), float("inf")).to(finite.dtype)
    return tl.where(is_wild & (tl.abs(infinite) > limit), unbounded, y)


@triton.jit
def share_among_equal(y, x, log_n: tl.constexpr, dims: tl.constexpr):
    """Of equal values in a row all get what the first of them has."""
    last_x = x
    last_y = y
    for bit in tl.static_range(log_n):
        sibling_x = neighbour(last_x, bit, dims)
        sibling_y = neighbour(last_y, bit, dims)
        right = is_right(bit, log_n, dims)
        y = tl.where(right & (x == sibling_x), sibling_y, y)
        # Of both together the right one's, but where that is equal to the left one's.
        last_y = either(tl.where(right ^ (last_x == sibling_x), last_y, sibling_y), bit, dims)
        last_x = either(tl.where(right, last_x, sibling_x), bit, dims)
    return y


@triton.jit
def weigh(x, w, rank, n, k, FORM: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    """transform, or at rank 0 max_at_k, of whole groups, by rank."""
    x = tl.where(rank < n, x, 0.0)
    tied = (x == previous(x, rank, log_n, dims)) & (rank > 0)
    x_top = value_at(x, rank, n - 1, log_n, dims)
    is_wild = too_large(x_top) | too_large(value_at(x, rank, tl.zeros_like(n), log_n, dims))
    nothing = tl.zeros_like(x_top).to(tl.float64)
    finite = finite_part(x, is_wild)
    gap = finite - previous(finite, rank, log_n, dims)
    y, _ = scan(gap, finite_part(x_top, is_wild), w, rank, n, k, nothing, nothing, FORM, log_n, dims)
    if any_of(is_wild):
        sign = infinite_part(x)
        gap = sign - previous(sign, rank, log_n, dims)
        top = infinite_part(x_top)
        infinite, _ = scan(gap, top, w, rank, n, k, nothing, nothing, FORM, log_n, dims)
        y = put_together(y, infinite, top, is_wild, n, k, FORM)
    # Equal rewards get the result of the first of them: sums along the tree differ in their rounding from rank to rank.
    if any_of(tied & (rank < n)):
        y = share_among_equal(y, x, log_n, dims)
    return y


@triton.jit
def power_of_two(x):
    """Rounded down; 0 for a subnormal number, whose sums are exact anyway."""
    return (as_integer(x) & 0x7FF0000000000000).to(tl.float64, bitcast=True)


@triton.jit
def cuts_for(largest, n):
    """Two places for sums of n terms of at most this magnitude, below each of which so many bits are left that sums of the
    pieces above it are exact (Demmel and Nguyen, Fast reproducible floating-point summation, 2013): so the order in which
    equal rewards come to stand does not matter. (term + cut) - cut is the piece above the place; 0 is for no cut."""
    terms = tl.maximum(n, 1).to(tl.float64)
    first = power_of_two(largest * terms) * 4
    second = first * 2.220446049250313e-16 * (power_of_two(terms) * 8)
    fits = first < 1.1235582092889474e307
    return tl.where(fits, 1.5 * first, 0.0), tl.where(fits, 1.5 * second, 0.0)


@triton.jit
def cut(term, first, second):
    high = (term + first) - first
    low = ((term - high) + second) - second
    return high, tl.where(low == low, low, 0.0)  # inf - inf where terms are infinite


@triton.jit
def gradients_of_gaps(
    high,
    low,
    high_below,
    low_below,
    high_above,
    low_above,
    w,
    rank,
    n,
    k,
    FORM: tl.constexpr,
    log_n: tl.constexpr,
    dims: tl.constexpr,
):
    """h[q] = up[q] sum_{p >= q} gy[p] - down[q] sum_{p < q} gy[p], from gy cut in two; ``.._below`` and ``.._above`` are
    the sums before and after these ranks, one number a group. Gives the sums before the next ranks too."""
    high_before, high_all = sums_before(high, log_n, dims)
    low_before, low_all = sums_before(low, log_n, dims)
    h = tl.zeros_like(high)
    # Where nothing counts nothing comes, even of an infinite sum.
    if (FORM == LOO) | (FORM == LOO_1):
        up = up_of(w, rank, n, k, FORM)
        high_after, _ = sums_after(high, log_n, dims)
        low_after, _ = sums_after(low, log_n, dims)
        above = (high_after + high + high_above) + (low_after + low + low_above)
        h = tl.where(up != 0, up * above, h)
    down = down_of(w, rank, n, k, tl.float64, FORM)
    h = tl.where(down != 0, h - down * ((high_before + high_below) + (low_before + low_below)), h)
    return tl.where(rank == 0, 0.0, h), high_below + high_all, low_below + low_all


@triton.jit
def end_of(total, n, k, FORM: tl.constexpr):
    """h[n]: the top reward's gradient, which counts the total of gy, with its sign turned."""
    top = top_of(n, k, FORM)
    return tl.where(top != 0, -(top * total), 0.0)


@triton.jit
def size_of(gy):
    """Magnitudes; NaN counts as infinite."""
    size = tl.abs(gy)
    return tl.where(size == size, size, float("inf"))


@triton.jit
def weigh_gradient(x, gy, w, rank, n, k, FORM: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    """The gradient of whole groups, by rank: ranks a..b of equal rewards get (h[a] - h[b+1]) / (b - a + 1) each."""
    first_cut, second_cut = cuts_for(max_of_groups(size_of(gy), log_n, dims), n)
    high, low = cut(gy, first_cut, second_cut)
    nothing = tl.zeros_like(first_cut)
    h, high_all, low_all = gradients_of_gaps(
        high, low, nothing, nothing, nothing, nothing, w, rank, n, k, FORM, log_n, dims
    )
    end = end_of(high_all + low_all, n, k, FORM)
    h = tl.where(rank < n, h, end)
    begins = (x != previous(x, rank, log_n, dims)) | (rank == 0) | (rank >= n)
    first = largest_up_to(tl.where(begins, rank, 0), log_n, dims)
    after = smallest_after(tl.where(begins, rank, 1 << log_n), log_n, dims)
    count = tl.minimum(after, n) - first
    share = nearest_at_or_before(h, begins, log_n, dims) - nearest_after(h, begins, end, log_n, dims)
    return quotient(share, tl.maximum(count, 1).to(tl.float64))
