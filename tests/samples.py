"""Sample inputs of every op and form, one table for opcheck, compile and dtypes."""

from typing import NamedTuple

import torch

import pkpo_kernels  # noqa: F401 - registers the ops

ops = torch.ops.pkpo


class Sample(NamedTuple):
    name: str
    op: object
    args: tuple
    keywords: dict


def x(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator).to(dtype)


def strided():
    """(5, 6), neither contiguous nor without gaps."""
    return x(12, 10).t()[::2, ::2]


def samples():
    offsets = torch.tensor([0, 3, 3, 4, 10])
    nonempty = torch.tensor([0, 3, 4, 6, 10])
    k = torch.tensor([2, 1, 5, 3])
    dense = {
        "matrix": x(4, 6),
        "vector": x(6),
        "float64": x(4, 6, dtype=torch.float64),
        "bfloat16": x(4, 6, dtype=torch.bfloat16),
        "float16": x(4, 6, dtype=torch.float16),
        "bool": x(4, 6) > 0,
        "int64": (3 * x(4, 6)).long(),
        "uint8": (3 * x(4, 6)).abs().to(torch.uint8),
        "leading": x(2, 3, 2, 6),
        "no_groups": x(0, 6),
        "strided": strided(),
        "expanded": x(1, 6).expand(4, 6),
        "nan": torch.where(x(4, 6) > 0.5, torch.nan, x(4, 6)),
    }
    for name, rewards in dense.items():
        yield Sample(f"transform-{name}", ops.transform.default, (rewards, 3), {})
        yield Sample(f"max_at_k-{name}", ops.max_at_k.default, (rewards, 3), {})
        k_groups = torch.arange(1, rewards[..., 0].numel() + 1).reshape(rewards.shape[:-1])
        yield Sample(f"transform-tensor_k-{name}", ops.transform.tensor_k, (rewards, k_groups), {})
        yield Sample(f"max_at_k-tensor_k-{name}", ops.max_at_k.tensor_k, (rewards, k_groups), {})
    for baseline in ("none", "loo", "loo-1"):
        keywords = {"baseline": baseline}
        yield Sample(f"transform-{baseline}", ops.transform.default, (x(4, 6), 2), keywords)
        yield Sample(f"transform-tensor_k-{baseline}", ops.transform.tensor_k, (x(4, 6), torch.tensor(2)), keywords)
        yield Sample(f"transform-grouped-{baseline}", ops.transform.grouped, (x(10), offsets, k), keywords)
    yield Sample("max_at_k-grouped", ops.max_at_k.grouped, (x(10), nonempty, k), {})
    yield Sample("max_at_k-grouped-one_k", ops.max_at_k.grouped, (x(10), nonempty.int(), torch.tensor(2)), {})
    yield Sample("max_at_k-curve", ops.max_at_k.curve, (x(4, 6), [1, 3, 6]), {})
    yield Sample("max_at_k-curve_grouped", ops.max_at_k.curve_grouped, (x(10), nonempty, [1, 3, 20]), {})
    yield Sample("transform-grouped-bool", ops.transform.grouped, (x(10) > 0, offsets, k), {})
    yield Sample("backward", ops._transform_backward.default, (x(4, 6), x(4, 6), 3), {"baseline": "none"})
    yield Sample("backward-tensor_k", ops._transform_backward.tensor_k, (x(4, 6), x(4, 6), k), {})
    yield Sample("backward-grouped", ops._transform_backward.grouped, (x(10), x(10), offsets, k), {})
    yield Sample("max_at_k_backward", ops._max_at_k_backward.default, (x(4), x(4, 6), 3), {})
    yield Sample("max_at_k_backward-tensor_k", ops._max_at_k_backward.tensor_k, (x(4), x(4, 6), k), {})
    yield Sample("max_at_k_backward-grouped", ops._max_at_k_backward.grouped, (x(4), x(10), offsets, k), {})
    yield Sample("jvp", ops._transform_jvp.default, (x(4, 6), x(4, 6), 3), {"baseline": "loo"})
    yield Sample("jvp-tensor_k", ops._transform_jvp.tensor_k, (x(4, 6), x(4, 6), k), {})
    yield Sample("jvp-grouped", ops._transform_jvp.grouped, (x(10), x(10), offsets, k), {})
    yield Sample("max_at_k_jvp", ops._max_at_k_jvp.default, (x(4, 6), x(4, 6), 3), {})
    yield Sample("max_at_k_jvp-tensor_k", ops._max_at_k_jvp.tensor_k, (x(4, 6), x(4, 6), k), {})
    yield Sample("max_at_k_jvp-grouped", ops._max_at_k_jvp.grouped, (x(10), x(10), offsets, k), {})


SAMPLES = list(samples())
