"""The ops on Triton's kernels (kernels/triton): arguments checked, output made, kernels enqueued on torch's current stream.

What offsets and k hold is not looked at, which would wait for the device: offsets outside of the rewards are cut to them
and k is clamped; offsets that fall are the caller's mistake, and give results without meaning.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import sys
from pathlib import Path

import torch
from torch import Tensor

from . import _checks

OLDEST = (3, 4)  # Triton's version
LARGEST_GROUP = 2**31 - 1


def _kernels():
    """pkpo_kernels.triton.launch; from kernels/triton beside this package where it runs from its source folder."""
    name = "pkpo_kernels.triton"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        folder = Path(__file__).parent.parent / "kernels" / "triton"
        spec = importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return importlib.import_module(f"{name}.launch")


def problem() -> str | None:
    """Why Triton's kernels cannot be had here; None: they can. Says nothing of the device."""
    try:
        import triton
    except ImportError as error:
        return f"triton cannot be imported ({error})"
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    if version < OLDEST:
        return f"triton is {triton.__version__}, but must be {'.'.join(map(str, OLDEST))} or newer"
    return None


def describe() -> str:
    """The version, or why it cannot be had."""
    if problem():
        return problem()
    import triton

    return triton.__version__


def is_interpreted() -> bool:
    """Triton runs on the CPU, because TRITON_INTERPRET=1 was set when it was first imported."""
    return problem() is None and _kernels().INTERPRETED


def _run(launch, op_name, op, form, rewards, out_shape, *, grad=None, offsets=None, k=None, k_value=1, into=None):
    if rewards.shape[-1] > LARGEST_GROUP and offsets is None:
        _checks.fail(op_name, f"n must be at most 2**31 - 1, got {rewards.shape[-1]}")
    rewards = rewards.contiguous()
    width = 0 if offsets is not None else rewards.shape[-1]
    count = offsets.shape[0] - 1 if offsets is not None else rewards.numel() // width
    stride = 1
    if into is None:
        out = rewards.new_empty(out_shape, dtype=_checks.result_dtype(rewards))
    else:
        out, stride = into
    if count == 0 or (op != "max_at_k" and rewards.numel() == 0):
        return out

    def empty(size, dtype):
        return rewards.new_empty(size, dtype=getattr(torch, dtype))

    def sort():
        wide = dtype in launch.WIDE
        return rewards.to(torch.float64 if wide else torch.float32).sort(-1)

    dtype = _checks.dtype_name(rewards.dtype)
    device = torch.cuda.device(rewards.device) if rewards.is_cuda else contextlib.nullcontext()
    with device:
        launch.enqueue(
            op,
            form,
            dtype,
            rewards.view(torch.uint8) if rewards.dtype == torch.bool else rewards,
            None if grad is None else grad.contiguous(),
            None if offsets is None else offsets.contiguous(),
            None if k is None else k.contiguous(),
            k_value,
            out,
            count,
            width,
            stride,
            empty,
            sort,
        )
    return out


def implement(library: torch.library.Library, key: str) -> None:
    """Registers the kernels for a dispatch key of a library that has the schemas."""
    launch = _kernels()

    def form_of(op, grouped):
        """The op as a function of its tensors, offsets where it is grouped, and k."""
        op_name, per_group, backward = f"pkpo::{op}", "max_at_k" in op, op.endswith("_backward")

        def call(*args, baseline="loo-1"):
            *tensors, rewards, offsets, k = args if grouped else (*args[:-1], None, args[-1])
            if grouped:
                _checks.check_grouped(op_name, rewards, offsets, k, baseline)
                groups = torch.Size((offsets.shape[0] - 1,))
            else:
                _checks.check_dense(op_name, rewards, k, "none" if per_group else baseline)
                groups = rewards.shape[:-1]
            if backward:
                _checks.check_grad(op_name, *tensors, rewards, groups if per_group else rewards.shape)
            return _run(
                launch,
                op_name,
                "backward" if backward else "max_at_k" if per_group else "transform",
                "max_at_k" if per_group else baseline,
                rewards,
                groups if per_group and not backward else rewards.shape,
                grad=tensors[0] if backward else None,
                offsets=offsets,
                **({"k": k} if isinstance(k, Tensor) else {"k_value": k}),
            )

        return call

    def curve(rewards, *args):
        *offsets, ks = args
        offsets = offsets[0] if offsets else None
        _checks.check_curve("pkpo::max_at_k", rewards, ks, offsets)
        groups = rewards.shape[:-1] if offsets is None else (offsets.shape[0] - 1,)
        out = rewards.new_empty((*groups, len(ks)), dtype=_checks.result_dtype(rewards))
        for i, k in enumerate(ks):  # a launch each
            into = (out.view(-1)[i:], len(ks))
            if out.numel():
                _run(
                    launch,
                    "pkpo::max_at_k",
                    "max_at_k",
                    "max_at_k",
                    rewards,
                    None,
                    offsets=offsets,
                    k_value=k,
                    into=into,
                )
        return out

    # Told so, torch 2.10 and 2.11 too put it over another kernel in Python.
    register = functools.partial(library.impl, dispatch_key=key, allow_override=True)
    for op in ("transform", "max_at_k", "_transform_backward", "_max_at_k_backward"):
        register(op, form_of(op, False))
        register(f"{op}.tensor_k", form_of(op, False))
        register(f"{op}.grouped", form_of(op, True))
    register("max_at_k.curve", curve)
    register("max_at_k.curve_grouped", curve)
