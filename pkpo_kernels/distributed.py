"""Groups whose samples lie on different ranks of torch.distributed.

Every rank gives the samples that it holds and gets their weights, which are, bit for bit, those of a single process that
holds all of them. Two exchanges: a header of fixed size, with which all ranks learn how many samples each has and whether
something is wrong on any, then the samples, 24 bytes each at most. So an error on one rank is raised on all of them.
"""

from __future__ import annotations

import hashlib
import operator
import uuid
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from . import _checks
from ._advantages import advantages as _advantages
from ._grouping import integers_or_objects
from .functional import transform as _transform

__all__ = ["advantages", "transform"]

HEADER_BYTES = 1024
DTYPES = _checks.FLOATING + _checks.INTEGRAL
# What ids are exchanged as: none here; 64-bit integers; digests.
NO_IDS, INTEGERS, DIGESTS = range(3)
ID_BYTES = (0, 8, 16)


def transform(
    rewards: Tensor,
    k: int | Tensor,
    *,
    group_ids: Tensor | Sequence,
    baseline: str = "loo-1",
    objective: str = "max",
    process_group: dist.ProcessGroup | None = None,
    timeout: float = 600.0,
) -> Tensor:
    """:func:`pkpo_kernels.transform` over the samples of all ranks. All ranks must call it, with the same k, baseline,
    objective and dtype; one that has no samples gives empty rewards.

    Parameters
    ----------
    rewards : Tensor
        (N,) this rank's samples; N may differ from rank to rank and be 0. NaN: absent.
    k : int, or integer Tensor of shape ()
        At least 1; clamped to the samples of a group that are present.
    group_ids : Tensor, array or sequence
        (N,) the prompt of every sample: integers, strings, bytes or ``uuid.UUID``, which mean the same on every rank. Others
        than integers are told apart by a digest of 128 bits.
    baseline, objective
        As for :func:`pkpo_kernels.transform`.
    process_group : ProcessGroup, optional
        gloo or NCCL; the default group if not given. Without torch.distributed, this process is the only one.
    timeout : float
        Seconds to wait for the other ranks.

    Returns
    -------
    Tensor
        (N,) the weights of this rank's samples. Not differentiable.

    Raises
    ------
    RuntimeError
        On every rank: for an argument of any rank that is not allowed, naming the rank; for arguments that differ between
        ranks; and where a rank does not answer in time.

    Examples
    --------
    >>> transform(torch.tensor([0.0, 3.0, 1.0]), 2, group_ids=["a", "a", "a"])
    tensor([0.0000, 1.6667, 0.3333])
    """
    op = "pkpo_kernels.distributed.transform"
    settings = {"baseline": baseline, "objective": objective}
    return _over_all_ranks(op, _transform, rewards, k, group_ids, settings, process_group, timeout)


def advantages(
    rewards: Tensor,
    group_ids: Tensor | Sequence,
    k: int | Tensor,
    *,
    baseline: str = "loo-1",
    scale: str = "mean",
    objective: str = "max",
    process_group: dist.ProcessGroup | None = None,
    timeout: float = 600.0,
) -> Tensor:
    """:func:`pkpo_kernels.advantages` over the samples of all ranks; arguments, result and errors as for :func:`transform`.

    Examples
    --------
    >>> advantages(torch.tensor([0.0, 3.0, 1.0]), ["a", "a", "a"], 2)
    tensor([0., 5., 1.])
    """
    op = "pkpo_kernels.distributed.advantages"
    settings = {"baseline": baseline, "scale": scale, "objective": objective}

    def of_all(rewards, k, *, group_ids, **settings):
        return _advantages(rewards, group_ids, k, **settings)

    return _over_all_ranks(op, of_all, rewards, k, group_ids, settings, process_group, timeout)


class _Local(NamedTuple):
    """What a rank sends, or what keeps it from sending."""

    rewards: Tensor | None = None
    k: int = 0
    kind: int = NO_IDS
    ids: Tensor | None = None  # (N, 8 or 16) bytes
    error: Exception | None = None


def _over_all_ranks(op, function, rewards, k, group_ids, settings, process_group, timeout):
    is_time = isinstance(timeout, int | float) and timeout > 0
    exchange = _Exchange(op, process_group, timeout if is_time else 600)
    try:
        if not is_time:
            _checks.fail(op, f"timeout must be above 0 seconds, got {timeout}")
        local = _check(op, rewards, k, group_ids)
        # What the function itself refuses, it refuses before anything is sent.
        function(rewards[:0].detach(), local.k, group_ids=[], **settings)
    except Exception as error:
        local = _Local(error=error)
    headers = exchange.headers(_header(local, settings))
    _compare(op, headers, local)
    counts = [header["count"] for header in headers]
    kind = max(header["kind"] for header in headers)
    sizes = local.rewards.element_size(), ID_BYTES[kind]
    all_rewards, all_ids = [], []
    for count, piece in zip(counts, exchange.samples(_packed(local), max(counts) * sum(sizes))):
        values, ids = piece[: count * sum(sizes)].split([count * size for size in sizes])
        all_rewards.append(values.clone().view(local.rewards.dtype))
        all_ids.append(ids)
    begin = sum(counts[: exchange.rank])
    everything = torch.cat(all_rewards).to(rewards.device)
    y = function(everything, local.k, group_ids=_ids_of(torch.cat(all_ids), kind), **settings)
    return y[begin : begin + counts[exchange.rank]]


def _check(op, rewards, k, group_ids) -> _Local:
    if not isinstance(rewards, Tensor):
        _checks.fail(op, f"rewards must be a tensor, got {type(rewards).__name__}")
    _checks.check_rewards(op, rewards)
    if rewards.dim() != 1:
        _checks.fail(op, f"rewards must have shape (N,), got {tuple(rewards.shape)}")
    if rewards.requires_grad:
        _checks.fail(op, "rewards must not require grad: the result is not differentiable; give rewards.detach()")
    if isinstance(k, Tensor) and k.dim():
        _checks.fail(
            op, f"k must be one for all groups, an integer or a tensor of shape (), got shape {tuple(k.shape)}"
        )
    try:
        k = operator.index(k)
    except TypeError:
        _checks.fail(op, f"k must be an integer, got {type(k).__name__}")
    if not 1 <= k < 2**62:
        _checks.fail(op, f"k must be at least 1, got {k}")
    kind, ids = _bytes_of_ids(op, group_ids)
    if len(ids) != len(rewards):
        _checks.fail(op, f"group_ids must have one id a reward, {len(rewards)}, got {len(ids)}")
    return _Local(rewards.detach().cpu().contiguous(), k, kind, ids)


def _bytes_of_ids(op, group_ids):
    if isinstance(group_ids, Tensor):
        _checks.check_group_ids(op, group_ids)
        group_ids = group_ids.cpu().numpy()
    try:
        group_ids = integers_or_objects(group_ids)
    except (TypeError, ValueError) as error:
        _checks.fail(op, str(error))
    if not isinstance(group_ids, np.ndarray) or group_ids.dtype == np.uint64:
        group_ids = list(group_ids)
    if not len(group_ids):
        return NO_IDS, torch.empty(0, 0, dtype=torch.uint8)
    if isinstance(group_ids, list):
        if not all(isinstance(id, int | np.integer) for id in group_ids):
            digests = b"".join(_digest(op, id) for id in group_ids)
            return DIGESTS, torch.frombuffer(bytearray(digests), dtype=torch.uint8).view(-1, 16)
        if any(not -(2**63) <= id < 2**63 for id in group_ids):
            _checks.fail(op, "group_ids that are integers must be from -2**63 to 2**63 - 1")
        group_ids = np.array(group_ids, dtype=np.int64)
    return INTEGERS, torch.from_numpy(np.array(group_ids, dtype=np.int64)).view(torch.uint8).view(-1, 8)


def _digest(op, id) -> bytes:
    """Ids of different types differ, as keys of a dictionary do."""
    if isinstance(id, str):
        kind, content = b"s", id.encode("utf-8", "surrogatepass")
    elif isinstance(id, bytes):
        kind, content = b"b", id
    elif isinstance(id, uuid.UUID):
        kind, content = b"u", id.bytes
    elif isinstance(id, int | np.integer):
        kind, content = b"i", str(int(id)).encode()
    else:
        _checks.fail(op, f"group_ids must be integers, strings, bytes or uuid.UUID, got {type(id).__name__}")
    return hashlib.blake2b(kind + content, digest_size=16).digest()


def _ids_of(ids: Tensor, kind: int):
    if kind == INTEGERS:
        return ids.clone().view(torch.int64)
    content = ids.numpy().tobytes()
    return [content[i : i + 16] for i in range(0, len(content), 16)]


def _packed(local: _Local) -> Tensor:
    return torch.cat([local.rewards.view(torch.uint8).flatten(), local.ids.flatten()])


FIELDS = ("failed", "count", "kind", "dtype", "k", "settings")


def _header(local: _Local, settings: dict) -> Tensor:
    if local.error is not None:
        values, text = (1, 0, NO_IDS, 0, 0, 0), str(local.error)
    else:
        # Equal where the settings are, which are also spelt out for the message.
        text = ", ".join(f'{name} "{value}"' for name, value in settings.items())
        digest = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest(), "little")
        values = (0, len(local.rewards), local.kind, DTYPES.index(local.rewards.dtype), local.k, digest)
    content = np.array(values, dtype=np.int64).tobytes()
    content += text.encode("utf-8", "replace")[: HEADER_BYTES - len(content)]
    return torch.frombuffer(bytearray(content.ljust(HEADER_BYTES, b"\0")), dtype=torch.uint8)


def _compare(op, headers, local):
    """Raises on every rank what is wrong on any, the first rank's."""
    for rank, header in enumerate(headers):
        if header["failed"]:
            _checks.fail(op, f"rank {rank}: {header['text'].removeprefix(op + ': ')}", local.error)
    for field, name, describe in (
        ("dtype", "the dtype of rewards", lambda header: _checks.dtype_name(DTYPES[header["dtype"]])),
        ("k", "k", lambda header: header["k"]),
        ("settings", "the other arguments", lambda header: header["text"]),
    ):
        for rank, header in enumerate(headers):
            if header[field] != headers[0][field]:
                found = f"got {describe(headers[0])} on rank 0, {describe(header)} on rank {rank}"
                _checks.fail(op, f"{name} must be the same on all ranks, {found}")
    kinds = {header["kind"]: rank for rank, header in enumerate(headers) if header["kind"] != NO_IDS}
    if len(kinds) > 1:
        _checks.fail(
            op,
            f"group_ids must be integers on all ranks or on none, got integers on rank {kinds[INTEGERS]}, "
            f"others on rank {kinds[DIGESTS]}",
        )


class _Exchange:
    """All-gather of bytes, on the device that the process group needs, within a time."""

    def __init__(self, op, process_group, timeout):
        self.op, self.group, self.timeout = op, process_group, timeout
        if not (dist.is_available() and dist.is_initialized()):
            if process_group is not None:
                _checks.fail(op, "process_group was given, but torch.distributed is not initialised")
            self.rank, self.ranks = 0, 1
            return
        self.rank, self.ranks = dist.get_rank(process_group), dist.get_world_size(process_group)
        if self.rank < 0:
            _checks.fail(op, "process_group must contain the rank that calls")
        on_gpu = "nccl" in dist.get_backend(process_group)
        self.device = torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")

    def headers(self, header: Tensor) -> list[dict]:
        found = []
        for content in self._gather(header):
            content = content.numpy().tobytes()
            numbers = np.frombuffer(content[: 8 * len(FIELDS)], dtype=np.int64).tolist()
            text = content[8 * len(FIELDS) :].rstrip(b"\0").decode("utf-8", "replace")
            found.append(dict(zip(FIELDS, numbers)) | {"text": text})
        return found

    def samples(self, content: Tensor, size: int) -> list[Tensor]:
        """Of every rank, filled up to the largest."""
        return self._gather(torch.nn.functional.pad(content, (0, size - len(content))))

    def _gather(self, content: Tensor) -> list[Tensor]:
        if self.ranks == 1:
            return [content]
        content = content.to(self.device)
        pieces = [torch.empty_like(content) for _ in range(self.ranks)]
        try:
            work = dist.all_gather(pieces, content, group=self.group, async_op=True)
            work.wait(timedelta(seconds=self.timeout))
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            waited = f"waited for at most timeout = {self.timeout} s"
            _checks.fail(self.op, f"not all of {self.ranks} ranks answered; {waited} ({reason})", error)
        return [piece.cpu() for piece in pieces]
