"""The public functions: the ops, for what people hold."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import _checks, _counts
from ._grouping import group_array
from .ops import OPS


class Grouping(NamedTuple):
    """Samples of prompts in any order as groups one after another; see :func:`group_by`."""

    order: Tensor  # (N,) int64: the samples, group by group
    offsets: Tensor  # (G + 1,) int64: group g is order[offsets[g]:offsets[g + 1]]
    numbers: Tensor  # (N,) int64: the group of every sample


def transform(
    rewards: Tensor,
    k: int | Tensor,
    *,
    baseline: str = "loo-1",
    objective: str = "max",
    group_ids: Tensor | Sequence | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""The rewards of every group transformed so that the policy gradient on them is that of pass@k (max@k).

    With the weights returned as :math:`s_i`, :math:`\sum_i s_i \nabla \log p(x_i)` over the n samples of a prompt is an
    unbiased estimate of the gradient of the expected best of k rewards: of pass@k where rewards are 0 and 1 (Walder and
    Karkhanis, Pass@K Policy Optimization, 2025, arXiv 2505.15201). For ``baseline="loo-1"``, with the rewards of a group
    sorted,

    .. math:: s_p = \sum_{q \le p} \frac{\binom{q}{k-1}}{\binom{n}{k}} (x_q - x_{q-1})

    Parameters
    ----------
    rewards : Tensor
        (..., n): groups of n samples; or (N,) with ``group_ids`` or ``lengths``. float64, float32, bfloat16, float16,
        bool, uint8, int8, int16, int32 or int64, without unit. NaN: an absent sample (padding, or one that could not be
        scored); it is left out of its group and its output is 0. An infinite reward acts as the limit of large ones.
    k : int or Tensor
        1 <= k <= n, for ``baseline="loo"`` at most n - 1; or an int32 or int64 tensor, () or one value a group: (...),
        or (G,) in the order of ``lengths``, or in the order in which the ids first come. A tensor's k, and an integer k
        where samples are absent, is clamped to the samples that are present (for "loo" to one less).
    baseline : "loo-1", "loo" or "none"
        What a sample's weight is compared with. "loo-1" has the lowest variance: use it.
    objective : "max" or "min"
        "min": the expected worst of k rewards; of pass^k, all k must succeed, where rewards are 0 and 1.
    group_ids : Tensor, array or sequence, optional
        (N,) the prompt of every sample, in any order: an integer tensor, a NumPy array, or any hashables, such as strings.
    lengths : Tensor or sequence, optional
        (G,) the number of samples of every group, for groups that lie one after another.
    mask : Tensor, optional
        bool, shape of ``rewards``: False marks an absent sample, like NaN.

    Returns
    -------
    Tensor
        Shape and order of ``rewards``; its dtype, float32 for bool and integers. Differentiable in ``rewards``.

    Raises
    ------
    RuntimeError
        For an argument that is not allowed: it names the argument, what came and what is allowed.

    Examples
    --------
    >>> rewards = torch.tensor([[0.0, 1.0, 3.0]])
    >>> transform(rewards, 2)
    tensor([[0.0000, 0.3333, 1.6667]])
    >>> transform(torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0]), 2, group_ids=["b", "a", "b", "a", "b"])
    tensor([0.0000, 0.0000, 0.3333, 1.0000, 1.6667])
    >>> transform(torch.tensor([True, False, True]), 2, objective="min")
    tensor([ 0.0000, -0.6667,  0.0000])
    """
    op = "pkpo_kernels.transform"
    batch = Batch(op, rewards, k, objective, group_ids, lengths, mask)
    return batch.finish_samples(transform_batch(batch, baseline))


def max_at_k(
    rewards: Tensor,
    k: int | Tensor | Sequence[int],
    *,
    objective: str = "max",
    group_ids: Tensor | Sequence | None = None,
    lengths: Tensor | Sequence[int] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""The expected best of k samples of every group, drawn without replacement: the unbiased estimate of max@k.

    .. math:: \binom{n}{k}^{-1} \sum_{|I| = k} \max_{i \in I} x_i = \sum_q \frac{\binom{q}{k-1}}{\binom{n}{k}} x_q

    with the rewards of a group sorted (arXiv 2505.15201). For rewards 0 and 1 it is pass@k.

    Parameters
    ----------
    rewards, objective, group_ids, lengths, mask
        As for :func:`transform`.
    k : int, Tensor or sequence of int
        As for :func:`transform`. A list, tuple or range asks for several at once, a curve; on the CPU from one sort.

    Returns
    -------
    Tensor
        One value a group: shape (...), or (G,) in the order of ``lengths`` or in which the ids first come; with several k,
        those are the last dimension. NaN for a group with no sample. Dtype as for :func:`transform`. Differentiable.

    Examples
    --------
    >>> max_at_k(torch.tensor([[0.0, 1.0, 3.0]]), 2)
    tensor([2.3333])
    >>> max_at_k(torch.tensor([[0.0, 1.0, 3.0]]), [1, 2, 3])
    tensor([[1.3333, 2.3333, 3.0000]])
    """
    op = "pkpo_kernels.max_at_k"
    batch = Batch(op, rewards, k, objective, group_ids, lengths, mask)
    if isinstance(batch.k, list):
        curve = OPS["max_at_k"].curve if batch.offsets is None else OPS["max_at_k"].curve_grouped
        arguments = (batch.rewards,) if batch.offsets is None else (batch.rewards, batch.offsets)
        return batch.finish(curve(*arguments, batch.k))
    if batch.offsets is None:
        return batch.finish(OPS["max_at_k"](batch.rewards, batch.k))
    return batch.finish(OPS["max_at_k"](batch.rewards, batch.offsets, batch.k))


def pass_at_k(
    num_samples: int | Tensor | Sequence[int],
    num_correct: int | Tensor | Sequence[int],
    k: int | Tensor | Sequence[int],
) -> Tensor:
    r"""The unbiased estimate of pass@k from counts (Chen et al., 2021, arXiv 2107.03374).

    .. math:: 1 - \binom{n-c}{k} / \binom{n}{k}

    Computed in log space with all terms of one sign: right to the last digits for n up to a million, near 0 and near 1.

    Parameters
    ----------
    num_samples, num_correct : int, integer Tensor or sequence
        n samples drawn for a problem and c of them correct, 0 <= c <= n; shapes that broadcast.
    k : int, or vector (Tensor or sequence) of int
        1 <= k <= n. Several k give a curve: they become the last dimension.

    Returns
    -------
    Tensor
        float64, of the broadcast shape, (..., K) for K values of k.

    Raises
    ------
    RuntimeError
        For an argument that is not allowed: it names the argument, what came and what is allowed.

    Examples
    --------
    >>> pass_at_k(10, torch.tensor([0, 3, 10]), 5)
    tensor([0.0000, 0.9167, 1.0000], dtype=torch.float64)
    >>> pass_at_k(10, 3, [1, 5, 8])
    tensor([0.3000, 0.9167, 1.0000], dtype=torch.float64)
    """
    op = "pkpo_kernels.pass_at_k"
    given = {"num_samples": num_samples, "num_correct": num_correct, "k": k}
    device = next((value.device for value in given.values() if isinstance(value, Tensor) and value.dim()), None)
    n, c, k = (_integers(op, name, value, device) for name, value in given.items())
    if k.dim() > 1:
        _checks.fail(op, f"k must be one integer or a vector of them, got shape {tuple(k.shape)}")
    if k.dim():
        n, c = n.unsqueeze(-1), c.unsqueeze(-1)
    n, c, k = torch.broadcast_tensors(n, c, k)
    bad = (c < 0) | (c > n)
    if bad.any():
        _checks.fail(op, f"num_correct must be between 0 and num_samples = {int(n[bad][0])}, got {int(c[bad][0])}")
    bad = (k < 1) | (k > n)
    if bad.any():
        _checks.fail(op, f"k must be between 1 and num_samples = {int(n[bad][0])}, got {int(k[bad][0])}")
    return _counts.pass_at_k(torch, partial(torch.arange, device=n.device), n.double(), c.double(), k.double())


def group_by(group_ids: Tensor | Sequence) -> Grouping:
    """Lines up samples that come in any order with the id of their prompt.

    Parameters
    ----------
    group_ids : Tensor, array or sequence
        (N,) the prompt of every sample: an integer tensor, a NumPy array, or any hashables.

    Returns
    -------
    Grouping
        order (N,), offsets (G + 1,) and numbers (N,), int64, on the device of a tensor of ids, else on the CPU. Groups are
        numbered in the order in which their ids first come and keep the order of their samples:
        ``torch.ops.pkpo.transform(rewards[order], offsets, k)`` is the op on them, and a k a group is ``k[numbers[i]]``.

    Examples
    --------
    >>> order, offsets, numbers = group_by(["b", "a", "b"])
    >>> order, offsets, numbers
    (tensor([0, 2, 1]), tensor([0, 2, 3]), tensor([0, 1, 0]))
    """
    return _group_by("pkpo_kernels.group_by", group_ids)


def _group_by(op: str, group_ids) -> Grouping:
    if isinstance(group_ids, Tensor):
        _checks.check_group_ids(op, group_ids)
        if group_ids.device.type != "cpu":
            return _group_on_device(group_ids)
        group_ids = group_ids.numpy()
    try:
        return Grouping(*map(torch.from_numpy, group_array(group_ids)))
    except (TypeError, ValueError) as error:
        _checks.fail(op, str(error))


def _group_on_device(ids: Tensor) -> Grouping:
    """Where the ids are, without carrying them to the host."""
    _, inverse = torch.unique(ids, return_inverse=True)
    groups = int(inverse.max()) + 1 if len(ids) else 0
    places = torch.arange(len(ids), device=ids.device)
    first = places.new_full((groups,), len(ids)).scatter_reduce(0, inverse, places, "amin")
    numbers = first.argsort().argsort()[inverse]
    order = numbers.argsort(stable=True)
    offsets = torch.nn.functional.pad(torch.bincount(numbers, minlength=groups).cumsum(0), (1, 0))
    return Grouping(order, offsets, numbers)


def _to(device: torch.device, tensor: Tensor) -> Tensor:
    """From the host without a wait for what the device has to do before."""
    return tensor.to(device, non_blocking=tensor.device.type == "cpu")


def _integers(op: str, name: str, value, device=None) -> Tensor:
    try:
        tensor = value if isinstance(value, Tensor) else torch.as_tensor(np.asarray(value))
    except TypeError:
        _checks.fail(op, f"{name} must be integers, got {type(value).__name__}")
    if tensor.numel() and tensor.dtype not in (*_checks.INTEGRAL[1:],):
        _checks.fail(op, f"{name} must be integers, got {_checks.dtype_name(tensor.dtype)}")
    return tensor.to(device, torch.int64)


def transform_batch(batch: Batch, baseline: str) -> Tensor:
    """The op on samples as they are lined up."""
    if batch.offsets is None:
        return OPS["transform"](batch.rewards, batch.k, baseline=baseline)
    return OPS["transform"](batch.rewards, batch.offsets, batch.k, baseline=baseline)


class Batch:
    """The arguments that transform and max_at_k share, as those of the ops."""

    def __init__(self, op, rewards, k, objective, group_ids, lengths, mask):
        if not isinstance(rewards, Tensor):
            _checks.fail(op, f"rewards must be a tensor, got {type(rewards).__name__}; pkpo_kernels.numpy takes arrays")
        if objective not in ("max", "min"):
            _checks.fail(op, f'objective must be "max" or "min", got "{objective}"')
        if group_ids is not None and lengths is not None:
            _checks.fail(op, "give group_ids or lengths, not both")
        _checks.check_rewards(op, rewards)
        self.dtype, self.negated = _checks.result_dtype(rewards), objective == "min"
        if not rewards.dtype.is_floating_point and (self.negated or mask is not None):
            rewards = rewards.to(torch.float32 if rewards.dtype == torch.bool else torch.float64)
        if mask is not None:
            if mask.dtype != torch.bool:
                _checks.fail(op, f"mask must be bool, got {_checks.dtype_name(mask.dtype)}")
            if mask.shape != rewards.shape:
                _checks.fail(op, f"mask must have shape {tuple(rewards.shape)}, got {tuple(mask.shape)}")
            rewards = torch.where(mask, rewards, torch.nan)
        if self.negated:
            rewards = -rewards
        self.rewards, self.order, self.offsets = rewards, None, None
        if group_ids is not None or lengths is not None:
            self._line_up(op, group_ids, lengths)
        self.k = self._k(op, k)

    def _line_up(self, op, group_ids, lengths):
        rewards = self.rewards
        if rewards.dim() != 1:
            _checks.fail(op, f"rewards must have shape (N,) with group_ids or lengths, got {tuple(rewards.shape)}")
        if lengths is not None:
            lengths = _integers(op, "lengths", lengths)
            if lengths.dim() != 1:
                _checks.fail(op, f"lengths must have shape (G,), got {tuple(lengths.shape)}")
            smallest, total = torch.stack([lengths.min(), lengths.sum()]).tolist() if lengths.numel() else (0, 0)
            if smallest < 0:
                _checks.fail(op, f"lengths must not be negative, got {smallest}")
            if total != len(rewards):
                _checks.fail(op, f"lengths must add up to the number of rewards, {len(rewards)}, got {total}")
            self.offsets = _to(rewards.device, torch.nn.functional.pad(lengths.cumsum(0), (1, 0)))
            return
        order, offsets, _ = _group_by(op, group_ids)
        if len(order) != len(rewards):
            _checks.fail(op, f"group_ids must have one id a reward, {len(rewards)}, got {len(order)}")
        self.order, self.offsets = _to(rewards.device, order), _to(rewards.device, offsets)
        self.rewards = rewards.index_select(0, self.order)

    def _k(self, op, k):
        """What the ops take: an integer or a tensor, with offsets a tensor; a list for several."""
        if isinstance(k, list | tuple | range):
            ks = _integers(op, "k", k)
            if ks.dim() != 1 or not len(ks):
                _checks.fail(op, f"k must hold at least one integer and no list, got {list(k)}")
            k = ks.tolist()
            if min(k) < 1:
                _checks.fail(op, f"k must be at least 1, got {k}")
            return k
        if isinstance(k, Tensor):
            return k
        if isinstance(k, np.ndarray) and k.shape:
            return _to(self.rewards.device, torch.as_tensor(k))
        if isinstance(k, (np.ndarray, np.integer)):
            k = k.item()
        if isinstance(k, bool) or not isinstance(k, int | torch.SymInt):
            _checks.fail(op, f"k must be an integer or an integer tensor, got {type(k).__name__}")
        if self.offsets is None:
            return k
        if k < 1:
            _checks.fail(op, f"k must be at least 1, got {k}")
        return torch.full((), k, dtype=torch.int64, device=self.rewards.device)

    def sum_of_groups(self, x: Tensor) -> Tensor:
        """For every sample, as they are lined up, the sum over its group; float64."""
        x = x.double()
        if self.offsets is None:
            return x.sum(-1, keepdim=True).expand_as(x)
        offsets = self.offsets.to(torch.int64)
        return torch.segment_reduce(x, "sum", offsets=offsets).repeat_interleave(offsets.diff(), output_size=len(x))

    def finish_samples(self, y: Tensor) -> Tensor:
        """Results of samples, in the caller's order."""
        if self.order is not None:
            y = torch.empty_like(y).scatter(0, self.order, y)
        return self.finish(y)

    def finish(self, y: Tensor) -> Tensor:
        y = 0 - y if self.negated else y
        return y.to(self.dtype)
