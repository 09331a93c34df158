"""The ops' arguments, checked before any work, for the backends that are written in Python.

Every message names the op and the argument, says what came and what is allowed. ``csrc/arguments.h`` and
``kernels/cpu/validate.h`` say the same words for the compiled ones.
"""

from __future__ import annotations

from typing import NoReturn

import torch
from torch import Tensor

BASELINES = ("none", "loo", "loo-1")
FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
INTEGRAL = (torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
LARGEST_GROUP = 2**32 - 1


def fail(op: str, message: str, cause: BaseException | None = None) -> NoReturn:
    raise RuntimeError(f"{op}: {message}") from cause


def dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def result_dtype(rewards: Tensor) -> torch.dtype:
    """Floating types come out as they went in; bool and integers come out as float32."""
    return rewards.dtype if rewards.dtype.is_floating_point else torch.float32


def check_baseline(op: str, baseline: str) -> None:
    if baseline not in BASELINES:
        fail(op, f'baseline must be "none", "loo" or "loo-1", got "{baseline}"')


def check_rewards(op: str, rewards: Tensor) -> None:
    if rewards.dtype not in FLOATING + INTEGRAL:
        allowed = ", ".join(dtype_name(dtype) for dtype in (FLOATING + INTEGRAL)[:-1])
        fail(op, f"rewards must be {allowed} or int64, got {dtype_name(rewards.dtype)}")
    if rewards.layout != torch.strided:
        fail(op, f"rewards must be a dense (strided) tensor, got {rewards.layout}")


def check_group_ids(op: str, group_ids: Tensor) -> None:
    if group_ids.dim() != 1:
        fail(op, f"group_ids must have shape (N,), got {tuple(group_ids.shape)}")
    if group_ids.dtype.is_floating_point or group_ids.dtype.is_complex:
        fail(op, f"group_ids must be integers, got {dtype_name(group_ids.dtype)}")


def check_dense(op: str, rewards: Tensor, k: int | Tensor, baseline: str) -> None:
    """rewards (..., n) with k an integer, or a tensor () or (...)."""
    check_baseline(op, baseline)
    check_rewards(op, rewards)
    if rewards.dim() == 0:
        fail(op, "rewards must have shape (..., n), got a tensor with no dimension")
    n = rewards.shape[-1]
    if isinstance(n, int):  # a symbolic n is at least 1
        if n < 1:
            fail(op, f"rewards must have n >= 1 samples a group, got shape {tuple(rewards.shape)}")
        if n > LARGEST_GROUP:
            fail(op, f"n must be at most 2**32 - 1, got {n}")
    if isinstance(k, Tensor):
        _check_k(op, rewards, k, tuple(rewards.shape[:-1]))
    elif isinstance(k, int) and isinstance(n, int):  # symbolic ones are left to the kernel: no guard, no recompilation
        if not 1 <= k <= n:
            fail(op, f"k must be between 1 and n = {n}, got {k}")
        if baseline == "loo" and k == n:
            others = (
                f'baseline "loo" compares a sample with k of the n - 1 others, so k must be at most n - 1 = {n - 1}'
            )
            fail(op, f"{others}, got {k}")


def check_curve(op: str, rewards: Tensor, ks: list, offsets: Tensor | None = None) -> None:
    """Several k at once: every one is an integer as for check_dense; with offsets at least 1."""
    if not ks:
        fail(op, "k must hold at least one integer, got []")
    for k in ks:
        if offsets is None:
            check_dense(op, rewards, k, "none")
        elif isinstance(k, int) and k < 1:
            fail(op, f"k must be at least 1, got {k}")
    if offsets is not None:
        check_grouped(op, rewards, offsets, offsets.new_ones(()), "none")


def check_grouped(op: str, rewards: Tensor, offsets: Tensor, k: Tensor, baseline: str) -> None:
    """rewards (N,), offsets (G + 1,), k () or (G,). The contents are checked by check_contents."""
    check_baseline(op, baseline)
    check_rewards(op, rewards)
    if rewards.dim() != 1:
        fail(op, f"rewards must have shape (N,) with offsets, got {tuple(rewards.shape)}")
    _check_index(op, "offsets", offsets, rewards)
    if offsets.dim() != 1 or (isinstance(offsets.shape[0], int) and offsets.shape[0] < 1):
        fail(op, f"offsets must have shape (G + 1,) for G groups, got {tuple(offsets.shape)}")
    _check_k(op, rewards, k, (offsets.shape[0] - 1,))


def check_grad(op: str, grad: Tensor, rewards: Tensor, shape: torch.Size) -> None:
    if not rewards.dtype.is_floating_point:
        fail(op, f"rewards must be a floating type to have a gradient, got {dtype_name(rewards.dtype)}")
    if grad.dtype != rewards.dtype:
        fail(op, f"grad must be {dtype_name(rewards.dtype)} like the output, got {dtype_name(grad.dtype)}")
    if grad.device != rewards.device:
        fail(op, f"grad must be on the device of rewards, {rewards.device}, got {grad.device}")
    if grad.shape != shape:
        fail(op, f"grad must have shape {tuple(shape)}, got {tuple(grad.shape)}")


def check_contents(op: str, rewards: Tensor, offsets: Tensor | None, k: int | Tensor) -> None:
    """Reads offsets and k: starting at 0, never falling, ending at N; at least 1."""
    if offsets is not None:
        if offsets[0] != 0:
            fail(op, f"offsets must start at 0, got {int(offsets[0])}")
        lengths = offsets.long().diff()
        if (lengths < 0).any():
            g = int((lengths < 0).nonzero()[0])
            fail(op, f"offsets must not decrease, got {int(offsets[g + 1])} after {int(offsets[g])} at index {g + 1}")
        if (lengths > LARGEST_GROUP).any():
            g = int((lengths > LARGEST_GROUP).nonzero()[0])
            fail(op, f"a group must have at most 2**32 - 1 samples, got {int(lengths[g])} in group {g}")
        if offsets[-1] != rewards.shape[0]:
            fail(op, f"offsets must end at the number of rewards, {rewards.shape[0]}, got {int(offsets[-1])}")
    if isinstance(k, Tensor) and (k < 1).any():
        g = int((k.reshape(-1) < 1).nonzero()[0])
        fail(op, f"k must be at least 1, got {int(k.reshape(-1)[g])}" + (f" for group {g}" if k.dim() else ""))


def _check_index(op: str, name: str, index: Tensor, rewards: Tensor) -> None:
    if index.dtype not in (torch.int32, torch.int64):
        fail(op, f"{name} must be int32 or int64, got {dtype_name(index.dtype)}")
    if index.device != rewards.device:
        fail(op, f"{name} must be on the device of rewards, {rewards.device}, got {index.device}")


def _check_k(op: str, rewards: Tensor, k: Tensor, groups: tuple) -> None:
    _check_index(op, "k", k, rewards)
    if k.dim() != 0 and tuple(k.shape) != groups:
        fail(op, f"k must have shape () or one value a group, {groups}, got {tuple(k.shape)}")
