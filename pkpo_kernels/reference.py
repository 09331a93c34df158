"""The ops, defined plainly: every backend means this, and it serves every device that has no kernel.

One group, its samples sorted, ``x[0] <= ... <= x[n-1]``, and its gaps ``d[q] = x[q] - x[q-1]``, ``q = 1..n-1``. With the
weights ``w[q] = C(q, k-1) / C(n, k)``, the chance that the best of k samples drawn without replacement has rank q, every
baseline (arXiv 2505.15201) and ``max_at_k`` (at ``p = 0``) is

    y[p] = top x[n-1] + sum_{q <= p} up[q] d[q] - sum_{q > p} down[q] d[q]

==============  =============  =====================================  =================================================
form            top            up[q]                                  down[q]
==============  =============  =====================================  =================================================
none            k/n            0                                      w[q-1]
loo-1, k >= 2   0              w[q]                                   0
loo-1, k = 1    0              q / (n(n-1))                           (n-q) / (n(n-1))
loo             -k/(n(n-1))    w[q-1] q n / ((n-1)(n-k))              w[q-1] (n(n-1-q) + k) / ((n-1)(n-k))
max_at_k        1              0                                      w[q-1] q/k
==============  =============  =====================================  =================================================

No ``up`` or ``down`` is negative, so no sum cancels; a constant added to all rewards leaves the gaps as they are; a tie is
a gap of zero and needs no rule. NaN marks an absent sample: it takes no part and its output is 0.

All functions take ``rewards`` of shape (..., n), or (N,) with ``offsets`` (G+1,); ``k`` is an integer, or an integer tensor
of shape () or one value a group. They compute in float64 and work on any device that has it (in float32 where it has not).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import _checks

_BLOCK = 256  # length of the inner scans; a sum of n terms then passes through n / 256 + 256 roundings, not n


# ----------------------------------------------------------------------------------------------- one group, sorted


class _Sorted(NamedTuple):
    x: Tensor  # (..., size) ascending; the absent samples come last, as 0
    order: Tensor  # (..., size) where each came from
    n: Tensor  # (..., 1) samples present
    k: Tensor  # (..., 1) clamped to the group: at most n, for loo n - 1; below 1 where the group has no answer but 0


def _sort(rewards: Tensor, k: int | Tensor, form: str) -> _Sorted:
    work = torch.float32 if rewards.device.type == "mps" else torch.float64
    x, order = rewards.to(work).sort(dim=-1)  # NaN sorts last
    n = x.isnan().logical_not().sum(-1, keepdim=True)
    largest = n - 1 if form == "loo" else n
    k = torch.minimum(k.clamp(min=1).unsqueeze(-1), largest) if isinstance(k, Tensor) else largest.clamp(max=k)
    return _Sorted(x.nan_to_num(0.0, torch.inf, -torch.inf), order, n, k)


def _unsort(y: Tensor, group: _Sorted, rewards: Tensor) -> Tensor:
    y = torch.where((_rank(y) < group.n) & (group.k >= 1), y, 0.0)
    return _round(torch.empty_like(y).scatter(-1, group.order, y), rewards)


def _round(y: Tensor, rewards: Tensor) -> Tensor:
    dtype = _checks.result_dtype(rewards)
    y = y if dtype == torch.float64 else y.to(torch.float32)
    return (y + 0.0).to(dtype)  # half types from the float32 result; + 0.0 makes a zero positive


def _rank(x: Tensor) -> Tensor:
    return torch.arange(x.shape[-1], device=x.device)


# ------------------------------------------------------------------------------------------------------------- scans


def _scan(x: Tensor, scan, combine, neutral: float) -> Tensor:
    """An inclusive scan in blocks; what it gives at a rank does not depend on how far the row is padded behind it."""
    size = x.shape[-1]
    if size <= _BLOCK:
        return scan(x, -1)
    blocks = torch.nn.functional.pad(x, (0, -size % _BLOCK), value=neutral).unflatten(-1, (-1, _BLOCK))
    inner = scan(blocks, -1)
    before = torch.nn.functional.pad(scan(inner[..., -1], -1)[..., :-1], (1, 0), value=neutral)
    return combine(inner, before.unsqueeze(-1)).flatten(-2)[..., :size]


def _cumsum(x: Tensor) -> Tensor:
    return _scan(x, torch.cumsum, torch.add, 0.0)


def _from_the_top(scan, x: Tensor, neutral: float) -> Tensor:
    """The scan from the last rank down, in blocks that begin at multiples of their length from rank 0."""
    size = x.shape[-1]
    padded = torch.nn.functional.pad(x, (0, -size % _BLOCK if size > _BLOCK else 0), value=neutral)
    return scan(padded.flip(-1)).flip(-1)[..., :size]


def _reverse_cumsum(x: Tensor) -> Tensor:
    return _from_the_top(_cumsum, x, 0.0)


def _shift_up(x: Tensor) -> Tensor:
    """x[q - 1] at q, 0 at 0."""
    return torch.nn.functional.pad(x, (1, 0))[..., :-1]


def _shift_down(x: Tensor) -> Tensor:
    """x[q + 1] at q, 0 at the end."""
    return torch.nn.functional.pad(x, (0, 1))[..., 1:]


# ------------------------------------------------------------------------------------------------------ coefficients


def _weights(group: _Sorted) -> Tensor:
    """w[q] = C(q, k-1) / C(n, k) from the top: w[n-1] = k/n, w[q] = w[q+1] (q+2-k) / (q+1). A product of ratios keeps
    every digit where differences of lgamma lose them all, and sums of logarithms some."""
    q, n, k = _rank(group.x), group.n, group.k
    ratio = (q + 2 - k).clamp(min=0).to(group.x.dtype) / (q + 1)
    factor = torch.where(q < n - 1, ratio, torch.where(q == n - 1, k.to(ratio.dtype) / n, 1.0))
    w = _from_the_top(lambda x: _scan(x, torch.cumprod, torch.mul, 1.0), factor, 1.0)
    return torch.where(q < n, w, 0.0)


def _coefficients(group: _Sorted, form: str) -> tuple[Tensor, Tensor, Tensor]:
    """top (..., 1), up and down (..., size): the table above."""
    w = _weights(group)
    q, n, k = (value.to(w.dtype) for value in (_rank(w), group.n, group.k))
    before, none = _shift_up(w), torch.zeros_like(w)
    if form == "none":
        return k / n, none, before
    if form == "max_at_k":
        return torch.ones_like(n), none, before * (q / k)
    if form == "loo":
        scale = 1 / ((n - 1) * (n - k))
        return -k / (n * (n - 1)), before * (q * n * scale), before * ((n * (n - 1 - q) + k) * scale)
    others = n * (n - 1)
    return torch.zeros_like(n), torch.where(k == 1, q / others, w), torch.where(k == 1, (n - q) / others, none)


# ----------------------------------------------------------------------------------- the linear map and its transpose


def _gap(x: Tensor, n: Tensor) -> Tensor:
    """d[q] for q = 1..n-1, else 0."""
    q = _rank(x)
    return torch.where((q >= 1) & (q < n), x - _shift_up(x), 0.0)


def _highest(x: Tensor, n: Tensor) -> Tensor:
    """x[n-1]; of no sample any."""
    return x.gather(-1, (n - 1).clamp(min=0))


def _apply(values: Tensor, group: _Sorted, form: str) -> Tensor:
    """y by rank. Linear in the values, whose order is the group's."""
    top, up, down = _coefficients(group, form)
    d = _gap(values, group.n)
    highest = _highest(values, group.n)
    # A coefficient of an impossible k is infinite or NaN; its group is answered with 0 in the end.
    below = _cumsum(torch.where(d == 0, 0.0, up * d))
    above = _shift_down(_reverse_cumsum(torch.where(d == 0, 0.0, down * d)))
    return top * highest + below - above


def _apply_unbounded(group: _Sorted, form: str) -> Tensor:
    """_apply on the group's own rewards. An infinite reward acts as the limit of ever larger finite ones: the rewards are
    split into finite + M sign, and y is infinite where M counts. Halving keeps a gap of finite rewards finite."""
    infinite = group.x.isinf()
    y = 2 * _apply(torch.where(infinite, 0.0, group.x) / 2, group, form)
    sign = _apply(torch.where(infinite, group.x.sign(), 0.0), group, form)
    # Terms of M cancel only where the top one is +M, and not where all are of one sign; then what rounding leaves of 0 is
    # negligible.
    one_signed = (group.k > 1) & (form == "loo-1")
    cancels = (_highest(group.x, group.n) == torch.inf) & ~one_signed
    largest = 1 if form == "max_at_k" else group.k / group.n
    counts = sign.abs() > torch.where(cancels, 1e-12 * largest, 0.0)
    return torch.where(counts, torch.copysign(torch.full_like(sign, torch.inf), sign), y)


def _apply_transposed(grad: Tensor, group: _Sorted, form: str) -> Tensor:
    """gx by rank, shared equally among equal rewards. Gap q receives h[q] = up[q] sum_{p >= q} grad[p] -
    down[q] sum_{p < q} grad[p], a reward h[q] - h[q+1], and ranks a..b of equal rewards together h[a] - h[b+1]."""
    top, up, down = _coefficients(group, form)
    q, n, x = _rank(grad), group.n, group.x
    grad = torch.where(q < n, grad, 0.0)
    h = torch.where((q >= 1) & (q < n), up * _reverse_cumsum(grad) - down * _shift_up(_cumsum(grad)), 0.0)
    begins = (q == 0) | (x != _shift_up(x)) | (q == n)
    first = torch.where(begins, q, 0).cummax(-1).values
    after = torch.where(_shift_down(begins.to(q.dtype)).bool(), q + 1, q.shape[0]).flip(-1).cummin(-1).values.flip(-1)
    h = torch.nn.functional.pad(h, (0, 1))
    total = h.gather(-1, first) - h.gather(-1, after)
    total = torch.where(after == n, total + top * grad.sum(-1, keepdim=True), total)
    return total / (after - first)


def _mean_of_ties(values: Tensor, group: _Sorted) -> Tensor:
    tie = ((group.x != _shift_up(group.x)) & (_rank(values) > 0)).cumsum(-1)
    total = torch.zeros_like(values).scatter_add(-1, tie, values)
    count = torch.zeros_like(values).scatter_add(-1, tie, torch.ones_like(values))
    return total.gather(-1, tie) / count.gather(-1, tie)


# ----------------------------------------------------------------------------------------------------------- the ops


def transform(rewards: Tensor, k: int | Tensor, *, baseline: str = "loo-1") -> Tensor:
    """The transformed rewards, (..., n)."""
    _check_dense("pkpo::transform", rewards, k, baseline)
    group = _sort(rewards, k, baseline)
    return _unsort(_apply_unbounded(group, baseline), group, rewards)


def max_at_k(rewards: Tensor, k: int | Tensor) -> Tensor:
    """The mean over all k-subsets of a group of their largest reward, (...); NaN for a group with no sample."""
    _check_dense("pkpo::max_at_k", rewards, k, "none")
    group = _sort(rewards, k, "max_at_k")
    value = _apply_unbounded(group, "max_at_k")[..., 0]
    return _round(torch.where(group.n.squeeze(-1) > 0, value, torch.nan), rewards)


def max_at_k_curve(rewards: Tensor, ks: list[int]) -> Tensor:
    """max_at_k for every k of a list, from one sort, (..., len(ks))."""
    _checks.check_curve("pkpo::max_at_k", rewards, ks)
    group = _sort(rewards, 1, "max_at_k")
    each = (_apply_unbounded(group._replace(k=group.n.clamp(max=k)), "max_at_k")[..., 0] for k in ks)
    return _round(torch.where(group.n > 0, torch.stack(list(each), -1), torch.nan), rewards)


def transform_backward(grad: Tensor, rewards: Tensor, k: int | Tensor, *, baseline: str = "loo-1") -> Tensor:
    """The gradient of sum(grad * transform(rewards)) with respect to rewards, (..., n)."""
    _check_dense("pkpo::_transform_backward", rewards, k, baseline)
    _checks.check_grad("pkpo::_transform_backward", grad, rewards, rewards.shape)
    group = _sort(rewards, k, baseline)
    grad = grad.to(group.x.dtype).gather(-1, group.order)
    return _unsort(_apply_transposed(grad, group, baseline), group, rewards)


def max_at_k_backward(grad: Tensor, rewards: Tensor, k: int | Tensor) -> Tensor:
    """The gradient of sum(grad * max_at_k(rewards)) with respect to rewards, (..., n)."""
    _check_dense("pkpo::_max_at_k_backward", rewards, k, "none")
    _checks.check_grad("pkpo::_max_at_k_backward", grad, rewards, rewards.shape[:-1])
    group = _sort(rewards, k, "max_at_k")
    at_first = torch.nn.functional.pad(grad.to(group.x.dtype).unsqueeze(-1), (0, rewards.shape[-1] - 1))
    return _unsort(_apply_transposed(at_first, group, "max_at_k"), group, rewards)


def transform_jvp(tangent: Tensor, rewards: Tensor, k: int | Tensor, *, baseline: str = "loo-1") -> Tensor:
    """The derivative of transform(rewards) in the direction of tangent: the transpose of transform_backward."""
    _check_dense("pkpo::_transform_jvp", rewards, k, baseline)
    _checks.check_grad("pkpo::_transform_jvp", tangent, rewards, rewards.shape)
    group = _sort(rewards, k, baseline)
    values = tangent.to(group.x.dtype).gather(-1, group.order)
    return _unsort(_apply(_mean_of_ties(values, group), group, baseline), group, rewards)


def max_at_k_jvp(tangent: Tensor, rewards: Tensor, k: int | Tensor) -> Tensor:
    """The derivative of max_at_k(rewards) in the direction of tangent."""
    _check_dense("pkpo::_max_at_k_jvp", rewards, k, "none")
    _checks.check_grad("pkpo::_max_at_k_jvp", tangent, rewards, rewards.shape)
    group = _sort(rewards, k, "max_at_k")
    values = tangent.to(group.x.dtype).gather(-1, group.order)
    value = _apply(_mean_of_ties(values, group), group, "max_at_k")[..., 0]
    return _round(torch.where(group.n.squeeze(-1) > 0, value, 0.0), rewards)


def _check_dense(op: str, rewards: Tensor, k: int | Tensor, baseline: str) -> None:
    _checks.check_dense(op, rewards, k, baseline)
    if isinstance(k, Tensor) and k.device.type == "cpu":  # elsewhere reading k would wait for the device
        _checks.check_contents(op, rewards, None, k)


# --------------------------------------------------------------------------------------------- groups of any lengths


def _by_length(op: str, rewards: Tensor, offsets: Tensor, k: Tensor, baseline: str):
    """Yields (groups, rows, index, present): which groups, their k, and where their samples lie. Groups of similar length
    go together, so that padding at most doubles them."""
    _checks.check_grouped(op, rewards, offsets, k, baseline)
    _checks.check_contents(op, rewards, offsets, k)
    lengths = offsets.diff().long()
    size_class = torch.frexp((lengths - 1).clamp(min=0).double()).exponent  # of lengths 2^(c-1) + 1 .. 2^c
    for c in size_class.unique().tolist():
        groups = (size_class == c).nonzero().squeeze(-1)
        within = torch.arange(int(lengths[groups].max()), device=rewards.device)
        present = within < lengths[groups, None]
        index = torch.where(present, offsets[groups, None].long() + within, 0)
        yield groups, k if k.dim() == 0 else k[groups], index, present


def _pad(values: Tensor, index: Tensor, present: Tensor) -> Tensor:
    values = values if values.dtype.is_floating_point else values.double()
    return torch.where(present, values[index], torch.nan) if index.numel() else values.new_empty(index.shape)


def _per_sample(function, op: str, rewards: Tensor, offsets: Tensor, k: Tensor, baseline: str) -> Tensor:
    out = torch.empty_like(rewards, dtype=_checks.result_dtype(rewards))
    for groups, group_k, index, present in _by_length(op, rewards, offsets, k, baseline):
        if index.shape[-1]:
            y = function(_pad(rewards, index, present), group_k, groups, index)
            out[index[present]] = y[present].to(out.dtype)
    return out


def _per_group(function, op: str, rewards: Tensor, offsets: Tensor, k: Tensor, fill: float, shape=()) -> Tensor:
    out = rewards.new_full((len(offsets[1:]), *shape), fill, dtype=_checks.result_dtype(rewards))
    for groups, group_k, index, present in _by_length(op, rewards, offsets, k, "none"):
        if index.shape[-1]:
            out[groups] = function(_pad(rewards, index, present), group_k, index).to(out.dtype)
    return out


def transform_grouped(rewards: Tensor, offsets: Tensor, k: Tensor, *, baseline: str = "loo-1") -> Tensor:
    def one_class(x, k, groups, index):
        return transform(x, k, baseline=baseline)

    return _per_sample(one_class, "pkpo::transform", rewards, offsets, k, baseline)


def max_at_k_grouped(rewards: Tensor, offsets: Tensor, k: Tensor) -> Tensor:
    def one_class(x, k, index):
        return max_at_k(x, k)

    return _per_group(one_class, "pkpo::max_at_k", rewards, offsets, k, torch.nan)


def max_at_k_curve_grouped(rewards: Tensor, offsets: Tensor, ks: list[int]) -> Tensor:
    def one_class(x, k, index):
        return max_at_k_curve(x, [min(k, x.shape[-1]) for k in ks])

    _checks.check_curve("pkpo::max_at_k", rewards, ks, offsets)
    k = offsets.new_ones(())
    return _per_group(one_class, "pkpo::max_at_k", rewards, offsets, k, torch.nan, shape=(len(ks),))


def transform_backward_grouped(
    grad: Tensor, rewards: Tensor, offsets: Tensor, k: Tensor, *, baseline: str = "loo-1"
) -> Tensor:
    def one_class(x, k, groups, index):
        return transform_backward(grad[index], x, k, baseline=baseline)

    _checks.check_grad("pkpo::_transform_backward", grad, rewards, rewards.shape)
    return _per_sample(one_class, "pkpo::_transform_backward", rewards, offsets, k, baseline)


def max_at_k_backward_grouped(grad: Tensor, rewards: Tensor, offsets: Tensor, k: Tensor) -> Tensor:
    def one_class(x, k, groups, index):
        return max_at_k_backward(grad[groups], x, k)

    _checks.check_grad("pkpo::_max_at_k_backward", grad, rewards, offsets[1:].shape)
    return _per_sample(one_class, "pkpo::_max_at_k_backward", rewards, offsets, k, "none")


def transform_jvp_grouped(
    tangent: Tensor, rewards: Tensor, offsets: Tensor, k: Tensor, *, baseline: str = "loo-1"
) -> Tensor:
    def one_class(x, k, groups, index):
        return transform_jvp(tangent[index], x, k, baseline=baseline)

    _checks.check_grad("pkpo::_transform_jvp", tangent, rewards, rewards.shape)
    return _per_sample(one_class, "pkpo::_transform_jvp", rewards, offsets, k, baseline)


def max_at_k_jvp_grouped(tangent: Tensor, rewards: Tensor, offsets: Tensor, k: Tensor) -> Tensor:
    def one_class(x, k, index):
        return max_at_k_jvp(tangent[index], x, k)

    _checks.check_grad("pkpo::_max_at_k_jvp", tangent, rewards, rewards.shape)
    return _per_group(one_class, "pkpo::_max_at_k_jvp", rewards, offsets, k, 0.0)
