"""What a training loop multiplies log-probabilities with: the transformed rewards, scaled as its loss expects."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from . import _checks
from .functional import Batch, transform_batch

SCALES = ("sum", "mean", "std")
# GRPO's, on rewards of the size of a sample's.
EPSILON = 1e-4


def advantages(
    rewards: Tensor,
    group_ids: Tensor | Sequence | None = None,
    k: int | Tensor | None = None,
    *,
    baseline: str = "loo-1",
    scale: str = "mean",
    objective: str = "max",
    lengths: Tensor | Sequence[int] | None = None,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Advantages for pass@k: :func:`pkpo_kernels.transform`, scaled as the loss of a trainer expects.

    ======== ============================================= =====================================================
    scale    advantage of sample i of n                    for a loss that
    ======== ============================================= =====================================================
    "sum"    :math:`s_i`, as in the paper                  sums over the samples of a prompt
    "mean"   :math:`n s_i`                                 averages over them; with k = 1 and "loo-1" it is the
                                                           leave-one-out advantage (RLOO)
    "std"    :math:`n s_i / (\sigma(n s) + 10^{-4})`       averages, and divides by the deviation in the group, as
                                                           GRPO does: a prompt's pull no longer depends on how far
                                                           its rewards lie apart, and the gradient is biased
    ======== ============================================= =====================================================

    with n the samples of the group that are present, and :math:`\sigma` the deviation among them (with n - 1).

    Parameters
    ----------
    rewards : Tensor
        (N,) with ``group_ids`` or ``lengths``, or (..., n) groups of n samples; see :func:`pkpo_kernels.transform`.
        NaN: could not be scored; its advantage is 0.
    group_ids : Tensor, array or sequence, optional
        (N,) the prompt of every sample, in any order. Not for a matrix: ``advantages(rewards, k=8)``.
    k, baseline, objective, lengths, mask
        As for :func:`pkpo_kernels.transform`.
    scale : "sum", "mean" or "std"

    Returns
    -------
    Tensor
        Shape and order of ``rewards``, not differentiable: a constant of the loss.

    Raises
    ------
    RuntimeError
        For an argument that is not allowed: it names the argument, what came and what is allowed.

    Examples
    --------
    >>> rewards = torch.tensor([0.0, 0.0, 1.0, 1.0, 3.0])
    >>> advantages(rewards, ["b", "a", "b", "a", "b"], 2)
    tensor([0., 0., 1., 2., 5.])
    >>> advantages(rewards, ["b", "a", "b", "a", "b"], 1)  # less the mean of the others
    tensor([-2.0000, -1.0000, -0.5000,  1.0000,  2.5000])
    """
    op = "pkpo_kernels.advantages"
    if k is None:
        _checks.fail(op, "k must be given, as the third argument or as k=...")
    if scale not in SCALES:
        _checks.fail(op, f'scale must be "sum", "mean" or "std", got "{scale}"')
    with torch.no_grad():
        batch = Batch(op, rewards, k, objective, group_ids, lengths, mask)
        y = transform_batch(batch, baseline)
        if scale != "sum":
            y = _scaled(y, batch, scale).to(y.dtype)
        return batch.finish_samples(y)


def _scaled(y: Tensor, batch: Batch, scale: str) -> Tensor:
    present = (batch.rewards == batch.rewards).double()
    n = batch.sum_of_groups(present)
    y = y * n
    if scale == "mean":
        return y
    mean = batch.sum_of_groups(y) / n.clamp(min=1)
    variance = batch.sum_of_groups((y - mean).square() * present) / (n - 1).clamp(min=1)
    # A single sample has no deviation: it stays as it is.
    return torch.where(n > 1, y / (variance.sqrt() + EPSILON), y)
