"""From the prompt of every sample to groups that lie one after another. Without torch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

try:
    from . import _numpy
except ImportError:  # built without a compiler
    _numpy = None


def group_array(group_ids: Sequence | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(order (N,), offsets (G + 1,), numbers (N,)), int64, for a NumPy array or any sequence of hashables.

    Groups are numbered in the order in which their ids first come, and keep the order of their samples. ``order`` lists the
    samples group by group, group g at ``order[offsets[g]:offsets[g + 1]]``; ``numbers`` is the group of every sample.
    """
    group_ids = integers_or_objects(group_ids)
    if isinstance(group_ids, np.ndarray):
        return _group_integers(np.ascontiguousarray(group_ids.astype(np.int64, copy=False)))
    try:
        return _group_objects(group_ids)
    except TypeError as error:
        raise TypeError(f"group_ids must be hashable: {error}") from None


def integers_or_objects(group_ids: Sequence | np.ndarray) -> Sequence | np.ndarray:
    """An array of integers as it is; other ids as a sequence of objects."""
    if isinstance(group_ids, np.ndarray):
        if group_ids.ndim != 1:
            raise ValueError(f"group_ids must have shape (N,), got {group_ids.shape}")
        return group_ids if group_ids.dtype.kind in "iub" else group_ids.tolist()
    if isinstance(group_ids, str | bytes) or not hasattr(group_ids, "__iter__"):
        raise TypeError(f"group_ids must be a sequence with one id a sample, got {type(group_ids).__name__}")
    return group_ids


def _group_integers(ids):
    if _numpy is not None:
        return _numpy.group_integers(ids)
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    return _line_up(np.argsort(np.argsort(first, kind="stable"), kind="stable")[inverse], len(first))


def _group_objects(ids):
    if _numpy is not None:
        return _numpy.group_objects(ids)
    number: dict = {}
    return _line_up(np.array([number.setdefault(key, len(number)) for key in ids], dtype=np.int64), len(number))


def _line_up(numbers, groups):
    offsets = np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=groups))])
    return np.argsort(numbers, kind="stable"), offsets.astype(np.int64), numbers
