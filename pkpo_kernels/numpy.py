"""The same functions on NumPy arrays, for reward services, evaluation scripts and JAX: no torch needed, none imported if it
is not there.

The CPU kernels work on the arrays' own memory, whatever their strides, with the interpreter's lock released.

In a jitted JAX program, as a callback on the host::

    def weights(rewards):                                  # (..., n) float32
        out = jax.ShapeDtypeStruct(rewards.shape, rewards.dtype)
        return jax.pure_callback(lambda r: pkpo_kernels.numpy.transform(np.asarray(r), 8), out, rewards,
                                 vmap_method="expand_dims")
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _counts
from ._grouping import group_array
from ._how_to_build import how_to_build, why_not_built

try:
    from . import _numpy
except ImportError as error:
    raise ImportError(
        f"pkpo_kernels.numpy needs its compiled module, which is {why_not_built('a C++ compiler or without pybind11')}: "
        f"{error}. {how_to_build('pybind11')}"
    ) from None

try:
    _numpy.isa()
except ValueError as error:
    raise ImportError(f"pkpo_kernels: the environment variable PKPO_CPU_ISA: {error}") from None

__all__ = ["group_by", "max_at_k", "pass_at_k", "transform"]

# The numbers of the kernels' enumerations, kernels/cpu/pkpo.h.
_BASELINES = {"none": 0, "loo": 1, "loo-1": 2}
_DTYPES = ("float64", "float32", "float16", "bfloat16", "bool", "uint8", "int8", "int16", "int32", "int64")


def transform(
    rewards: ArrayLike,
    k: int | ArrayLike,
    *,
    baseline: str = "loo-1",
    objective: str = "max",
    group_ids: Sequence | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    out: NDArray | None = None,
    threads: int | None = None,
) -> NDArray:
    """The rewards of every group transformed for pass@k: see :func:`pkpo_kernels.transform`, whose arguments these are.

    Parameters
    ----------
    rewards : array
        (..., n), or (N,) with ``group_ids`` or ``lengths``; float64, float32, float16, bfloat16 (of ml_dtypes), bool or an
        integer type. Any strides; copied only where the bytes are not those of an aligned array of this machine.
    k, baseline, objective, group_ids, lengths, mask
        As for :func:`pkpo_kernels.transform`.
    out : array, optional
        Where to write, of the shape and dtype of the result, any strides. It may be ``rewards`` itself.
    threads : int, optional
        At most so many; default: those this process may use. Small batches take one.

    Returns
    -------
    array
        Shape of ``rewards``; its dtype, float32 for bool and integers. ``out`` if that is given.

    Examples
    --------
    >>> transform([[0.0, 1.0, 3.0]], 2)
    array([[0.        , 0.33333333, 1.66666667]])
    >>> transform(np.array([0, 0, 1, 1, 3], np.float32), 2, group_ids=["b", "a", "b", "a", "b"]).tolist()
    [0.0, 0.0, 0.3333333432674408, 1.0, 1.6666666269302368]
    """
    op = "pkpo_kernels.numpy.transform"
    _check(baseline in _BASELINES, f'{op}: baseline must be "none", "loo" or "loo-1", got {baseline!r}')
    batch = _Batch(op, rewards, k, baseline, objective, group_ids, lengths, mask)
    return batch.run(_numpy.transform, out, batch.shape, threads, batch.k, _BASELINES[baseline])


def max_at_k(
    rewards: ArrayLike,
    k: int | ArrayLike | Sequence[int],
    *,
    objective: str = "max",
    group_ids: Sequence | None = None,
    lengths: ArrayLike | None = None,
    mask: ArrayLike | None = None,
    out: NDArray | None = None,
    threads: int | None = None,
) -> NDArray:
    """The expected best of k samples of every group: see :func:`pkpo_kernels.max_at_k`.

    A list, tuple or range for k asks for several at once, from one sort; the result then has them as its last dimension.

    >>> max_at_k([[0.0, 1.0, 3.0]], [1, 2, 3])
    array([[1.33333333, 2.33333333, 3.        ]])
    """
    op = "pkpo_kernels.numpy.max_at_k"
    several = isinstance(k, list | tuple | range)
    batch = _Batch(op, rewards, 1 if several else k, "none", objective, group_ids, lengths, mask)
    if several:
        ks = _integers(op, "k", k)
        _check(ks.ndim == 1 and ks.size > 0, f"{op}: k must hold at least one integer and no list, got {list(k)}")
        _check(ks.min() >= 1, f"{op}: k must be at least 1, got {list(k)}")
        limit = batch.limit
        _check(limit is None or ks.max() <= limit, f"{op}: k must be between 1 and n = {limit}, got {list(k)}")
        return batch.run(_numpy.max_at_k_curve, out, (*batch.groups, len(ks)), threads, ks)
    return batch.run(_numpy.max_at_k, out, batch.groups, threads, batch.k)


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int | ArrayLike) -> NDArray[np.float64]:
    """The unbiased estimate of pass@k from counts, float64: see :func:`pkpo_kernels.pass_at_k`.

    >>> pass_at_k(10, [0, 3, 10], 5)
    array([0.        , 0.91666667, 1.        ])
    >>> pass_at_k(10, 3, [1, 5, 8])
    array([0.3       , 0.91666667, 1.        ])
    """
    op = "pkpo_kernels.numpy.pass_at_k"
    n, c, k = (
        _integers(op, name, a) for name, a in (("num_samples", num_samples), ("num_correct", num_correct), ("k", k))
    )
    _check(k.ndim <= 1, f"{op}: k must be one integer or a vector of them, got shape {k.shape}")
    n, c = np.broadcast_arrays(n, c)
    if k.ndim:
        n, c = n[..., None], c[..., None]
    n, c, k = np.broadcast_arrays(n, c, k)
    bad = (c < 0) | (c > n)
    _check(not bad.any(), lambda: f"{op}: num_correct must be between 0 and num_samples = {n[bad][0]}, got {c[bad][0]}")
    wrong = (k < 1) | (k > n)
    _check(not wrong.any(), lambda: f"{op}: k must be between 1 and num_samples = {n[wrong][0]}, got {k[wrong][0]}")
    return _counts.pass_at_k(np, np.arange, *(np.asarray(a, dtype=np.float64) for a in (n, c, k)))


def group_by(group_ids: Sequence) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """(order, offsets, numbers) of samples whose prompts are ``group_ids``: see :func:`pkpo_kernels.group_by`.

    >>> [a.tolist() for a in group_by(["b", "a", "b"])]
    [[0, 2, 1], [0, 2, 3], [0, 1, 0]]
    """
    return _group_by("pkpo_kernels.numpy.group_by", group_ids)


def _group_by(op, group_ids):
    try:
        return group_array(group_ids)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{op}: {error}") from None


def _check(condition: bool, message) -> None:
    if not condition:
        raise ValueError(message() if callable(message) else message)


def _integers(op, name, value):
    array = np.asarray(value)
    _check(array.dtype.kind in "iu" or array.size == 0, f"{op}: {name} must be integers, got {array.dtype}")
    return array.astype(np.int64)


def _threads(op, threads):
    if threads is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    _check(
        isinstance(threads, int) and threads >= 1, f"{op}: threads must be an integer of at least 1, got {threads!r}"
    )
    return threads


def _readable(array):
    """The array with a dtype that the compiled module knows: bfloat16 as the 16-bit integers it lies in."""
    return array.view(np.uint16) if array.dtype.name == "bfloat16" else array


def _aligned(array):
    """Whether the elements lie as this machine's own do, whatever the strides."""
    return array.dtype.isnative and array.flags.aligned and all(s % array.itemsize == 0 for s in array.strides)


class _Batch:
    """The checked arguments of a call."""

    def __init__(self, op, rewards, k, baseline, objective, group_ids, lengths, mask):
        self.op = op
        rewards = np.asarray(rewards)
        _check(objective in ("max", "min"), f'{op}: objective must be "max" or "min", got {objective!r}')
        name = rewards.dtype.name
        _check(
            name in _DTYPES, f"{op}: rewards must be {', '.join(_DTYPES[:-1])} or {_DTYPES[-1]}, got {rewards.dtype}"
        )
        _check(rewards.ndim > 0, f"{op}: rewards must have shape (..., n), got an array with no dimension")
        self.shape = rewards.shape
        floating = name in _DTYPES[:4]
        self.result_dtype = rewards.dtype.newbyteorder("=") if floating else np.dtype(np.float32)
        self.negated = objective == "min"
        if not floating and (self.negated or mask is not None):
            rewards = rewards.astype(np.float32 if name == "bool" else np.float64)
        if mask is not None:
            mask = np.asarray(mask)
            _check(mask.dtype == bool, f"{op}: mask must be bool, got {mask.dtype}")
            _check(mask.shape == rewards.shape, f"{op}: mask must have shape {rewards.shape}, got {mask.shape}")
            rewards = np.where(mask, rewards, np.array(np.nan, rewards.dtype))
        if self.negated:
            rewards = -rewards
        self._arrange(rewards, group_ids, lengths)
        self.code = _DTYPES.index(self.rewards.dtype.name)
        # What the kernel writes: the type it reads, or float32.
        self.kernel_dtype = self.rewards.dtype.newbyteorder("=") if self.code < 4 else np.dtype(np.float32)
        self._set_k(k, baseline)
        if not _aligned(self.rewards):
            self.rewards = np.ascontiguousarray(self.rewards, dtype=self.rewards.dtype.newbyteorder("="))

    def _arrange(self, rewards, group_ids, lengths):
        op, self.order, self.offsets = self.op, None, None
        _check(group_ids is None or lengths is None, f"{op}: give group_ids or lengths, not both")
        if group_ids is None and lengths is None:
            _check(self.shape[-1] > 0, f"{op}: rewards must have n >= 1 samples a group, got shape {self.shape}")
            self.rewards, self.groups = rewards, self.shape[:-1]
            return
        _check(rewards.ndim == 1, f"{op}: rewards must have shape (N,) with group_ids or lengths, got {self.shape}")
        if lengths is not None:
            lengths = _integers(op, "lengths", lengths)
            _check(lengths.ndim == 1, f"{op}: lengths must have shape (G,), got {lengths.shape}")
            _check((lengths >= 0).all(), lambda: f"{op}: lengths must not be negative, got {lengths.min()}")
            total = int(lengths.sum())
            _check(
                total == len(rewards),
                f"{op}: lengths must add up to the number of rewards, {len(rewards)}, got {total}",
            )
            self.offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])
            self.rewards = rewards
        else:
            self.order, self.offsets, numbers = _group_by(op, group_ids)
            same = len(numbers) == len(rewards)
            _check(same, f"{op}: group_ids must have one id a reward, {len(rewards)}, got {len(numbers)}")
            self.rewards = rewards[self.order]
        self.groups = (len(self.offsets) - 1,)

    def _set_k(self, k, baseline):
        op, n = self.op, self.shape[-1] if self.offsets is None else None
        k = _integers(op, "k", k)
        self.limit = n
        if k.ndim == 0:
            limit = n - 1 if baseline == "loo" and n is not None else n
            what = "n" if baseline != "loo" else "n - 1"
            message = f"k must be between 1 and {what} = {limit}" if n is not None else "k must be at least 1"
            _check(k >= 1 and (limit is None or k <= limit), f"{op}: {message}, got {k}")
        else:
            expected = f"one integer or one value a group, {self.groups}"
            _check(k.shape == self.groups, f"{op}: k must be {expected}, got shape {k.shape}")
            _check((k >= 1).all(), lambda: f"{op}: k must be at least 1, got {k.min()}")
        # One k a group even where there is one group: the compiled module reads a single value as everybody's.
        self.k = np.ascontiguousarray(k)

    def run(self, function, out, shape, threads, *arguments):
        """Calls the compiled function on the arrays' own memory where they allow it."""
        threads = _threads(self.op, threads)
        result = self._output(out, shape)
        in_order = self.order is None or function is not _numpy.transform  # groups have no order to be put back in
        direct = in_order and self.kernel_dtype == result.dtype and _aligned(result) and not self._overlaps(result)
        if function is _numpy.max_at_k_curve:  # writes the ks of a group side by side
            direct = direct and result.flags.c_contiguous
        target = result if direct else np.empty(shape, self.kernel_dtype)
        function(_readable(self.rewards), self.offsets, self.code, _readable(target), threads, *arguments)
        if not in_order:
            result[self.order] = target
        elif not direct:
            result[...] = target
        if self.negated:
            np.subtract(0, result, out=result)
        return result

    def _overlaps(self, result):
        """A result may be written over the rewards, element on element, but not shifted."""
        rewards = self.rewards
        same = result.__array_interface__["data"][0] == rewards.__array_interface__["data"][0]
        if same and result.shape == rewards.shape and result.strides == rewards.strides:
            return False
        return np.may_share_memory(result, rewards)

    def _output(self, out, shape):
        if out is None:
            return np.empty(shape, self.result_dtype)
        _check(isinstance(out, np.ndarray), f"{self.op}: out must be a NumPy array, got {type(out).__name__}")
        _check(out.shape == tuple(shape), f"{self.op}: out must have shape {tuple(shape)}, got {out.shape}")
        _check(out.dtype == self.result_dtype, f"{self.op}: out must be {self.result_dtype}, got {out.dtype}")
        _check(out.flags.writeable, f"{self.op}: out must be writeable")
        return out
