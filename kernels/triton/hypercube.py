"""Tensors with an axis of two for every bit of an element's number: neighbours at any power of two are the two along one
axis, and everything that must not depend on a layout is built from exchanges between them.

The last ``log_n`` axes are a group's ranks, those before them the groups of a program, ``dims`` axes in all. A tensor with
one value a group has the same axes, of one instead of two where the ranks are; one with a value for 2**bit ranks, a subtree
of them, has one instead of two on the last ``bit`` axes: what a thread's ranks have in common is exchanged once. ``rank`` is
the element's rank.

All sums and products go along one binary tree whose leaves are the ranks: to what lies before (or after) a rank, its siblings
are added from the nearest on. The tree does not depend on how many ranks the tensor has room for, and absent ones add the
neutral element: a group has the same bits in whichever shape it is computed.
"""

import triton
import triton.language as tl


@triton.jit
def exchange(x, bit: tl.constexpr, dims: tl.constexpr):
    """Every element's neighbour, of integers: what is left of the sum of both."""
    return tl.sum(x, dims - 1 - bit, keep_dims=True) - x


@triton.jit
def as_integer(x):
    if x.dtype == tl.float32:
        return x.to(tl.int32, bitcast=True)
    elif x.dtype == tl.float64:
        return x.to(tl.int64, bitcast=True)
    else:
        return x


@triton.jit
def neighbour(x, bit: tl.constexpr, dims: tl.constexpr):
    """Every element's neighbour, of floating numbers."""
    return exchange(as_integer(x), bit, dims).to(x.dtype, bitcast=True)


@triton.jit
def is_right(bit: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    """Of neighbours, the right one: of ranks, and of what 2**bit of them have in common."""
    half = tl.arange(0, 1 << (log_n - bit))
    return (tl.reshape(half, [1] * (dims - log_n) + [2] * (log_n - bit) + [1] * bit) & 1) != 0


@triton.jit
def either(x, bit: tl.constexpr, dims: tl.constexpr):
    """Of neighbours that are equal one."""
    return tl.max(as_integer(x), dims - 1 - bit, keep_dims=True).to(x.dtype, bitcast=True)


@triton.jit
def right_of(x, bit: tl.constexpr, log_n: tl.constexpr, dims: tl.constexpr):
    """Of neighbours, integers, the right one."""
    return tl.sum(tl.where(is_right(bit, log_n, dims), x, 0), dims - 1 - bit, keep_dims=True)


@triton.jit
def sum_of_groups(x, log_n: tl.constexpr, dims: tl.constexpr):
    """One number a group: their sum, exact in any order; of integers, or of floating numbers whose sums are exact."""
    for bit in tl.static_range(log_n):
        x = tl.sum(x, dims - 1 - bit, keep_dims=True)
    return x


@triton.jit
def max_of_groups(x, log_n: tl.constexpr, dims: tl.constexpr):
    """One number a group, none of them NaN: the largest."""
    for bit in tl.static_range(log_n):
        x = tl.max(x, dims - 1 - bit, keep_dims=True)
    return x


@triton.jit
def any_of(x):
    """Is it so anywhere in the program?"""
    return tl.max(tl.reshape(x.to(tl.int32), [x.numel]), 0) != 0


@triton.jit
def value_at(x, rank, at, log_n: tl.constexpr, dims: tl.constexpr):
    """One floating number a group: the one at rank ``at``; 0 where there is no such rank."""
    own = tl.where(rank == at, as_integer(x), 0)
    return sum_of_groups(own, log_n, dims).to(x.dtype, bitcast=True)


@triton.jit
def sums_before(x, log_n: tl.constexpr, dims: tl.constexpr):
    """Sums over the ranks before, and over all, one number a group."""
    before = tl.zeros_like(x)
    for bit in tl.static_range(log_n):
        before = tl.where(is_right(bit, log_n, dims), before + neighbour(x, bit, dims), before)
        x = tl.sum(x, dims - 1 - bit, keep_dims=True)
    return before, x


@triton.jit
def sums_after(x, log_n: tl.constexpr, dims: tl.constexpr):
    """Sums over the ranks after, and over all, one number a group."""
    after = tl.zeros_like(x)
    for bit in tl.static_range(log_n):
        after = tl.where(is_right(bit, log_n, dims), after, after + neighbour(x, bit, dims))
        x = tl.sum(x, dims - 1 - bit, keep_dims=True)
    return after, x


@triton.jit
def products_from(x, log_n: tl.constexpr, dims: tl.constexpr):
    """Products over a rank and those after it, and over all, one number a group."""
    after = x
    for bit in tl.static_range(log_n):
        sibling = neighbour(x, bit, dims)
        after = tl.where(is_right(bit, log_n, dims), after, after * sibling)
        x = either(x * sibling, bit, dims)
    return after, x


@triton.jit
def previous(x, rank, log_n: tl.constexpr, dims: tl.constexpr):
    """The number one rank below; at rank 0 its own."""
    last = as_integer(x)
    found = last
    for bit in tl.static_range(log_n):
        found = tl.where((rank & ((2 << bit) - 1)) == (1 << bit), exchange(last, bit, dims), found)
        last = right_of(last, bit, log_n, dims)
    return found.to(x.dtype, bitcast=True)


@triton.jit
def largest_up_to(x, log_n: tl.constexpr, dims: tl.constexpr):
    """The largest integer at a rank or before."""
    found = x
    for bit in tl.static_range(log_n):
        found = tl.where(is_right(bit, log_n, dims), tl.maximum(found, exchange(x, bit, dims)), found)
        x = tl.max(x, dims - 1 - bit, keep_dims=True)
    return found


@triton.jit
def smallest_after(x, log_n: tl.constexpr, dims: tl.constexpr):
    """The smallest integer after a rank; 2**log_n where there is none."""
    found = tl.zeros_like(x) + (1 << log_n)
    for bit in tl.static_range(log_n):
        found = tl.where(is_right(bit, log_n, dims), found, tl.minimum(found, exchange(x, bit, dims)))
        x = tl.min(x, dims - 1 - bit, keep_dims=True)
    return found


@triton.jit
def nearest_at_or_before(x, marked, log_n: tl.constexpr, dims: tl.constexpr):
    """The number at the nearest marked rank at or before; its own where there is none."""
    last = as_integer(x)
    found = last
    has = marked.to(tl.int32)
    done = has
    for bit in tl.static_range(log_n):
        sibling = exchange(last, bit, dims)
        sibling_has = exchange(has, bit, dims)
        right = is_right(bit, log_n, dims)
        found = tl.where(right & (done == 0) & (sibling_has != 0), sibling, found)
        done = tl.where(right, done | sibling_has, done)
        # Of both together the right one's, if it has one.
        from_sibling = tl.where(right, has == 0, sibling_has != 0)
        last = either(tl.where(from_sibling, sibling, last), bit, dims)
        has = tl.max(has, dims - 1 - bit, keep_dims=True)
    return found.to(x.dtype, bitcast=True)


@triton.jit
def nearest_after(x, marked, otherwise, log_n: tl.constexpr, dims: tl.constexpr):
    """The number at the nearest marked rank after; ``otherwise`` where there is none."""
    first = as_integer(x)
    found = tl.zeros_like(first) + as_integer(otherwise)
    has = marked.to(tl.int32)
    done = tl.zeros_like(has)
    for bit in tl.static_range(log_n):
        sibling = exchange(first, bit, dims)
        sibling_has = exchange(has, bit, dims)
        right = is_right(bit, log_n, dims)
        found = tl.where((right == 0) & (done == 0) & (sibling_has != 0), sibling, found)
        done = tl.where(right, done, done | sibling_has)
        # Of both together the left one's, if it has one.
        from_sibling = tl.where(right, sibling_has != 0, has == 0)
        first = either(tl.where(from_sibling, sibling, first), bit, dims)
        has = tl.max(has, dims - 1 - bit, keep_dims=True)
    return found.to(x.dtype, bitcast=True)
