"""The ops: their schemas, defined once and here, and what holds for every backend: the reference for devices that have no
kernel, fake tensors, autograd, vmap and autocast.

A backend only implements the schemas for its dispatch key (``csrc/cpu.cpp`` for CPU tensors), so the ops exist without a
compiler too. Each comes in three forms, told apart by the arguments:

* ``(rewards, k)``: rewards (..., n), k an integer;
* ``.tensor_k``: the same with k in an integer tensor, () or one value a group;
* ``.grouped``: rewards (N,) of G groups one after another, offsets (G+1,), k a tensor () or (G,).

``max_at_k`` has two more, ``.curve`` and ``.curve_grouped``, with a list of integers for k.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from . import _checks, reference
from ._autograd import below_autograd, needs_no_derivative, register_linear
from ._op_docs import DOCS

library = torch.library.Library("pkpo", "DEF")

# op -> (tensors before offsets and k, keyword arguments)
_SCHEMAS = {
    "transform": ("Tensor rewards", ', *, str baseline="loo-1"'),
    "max_at_k": ("Tensor rewards", ""),
    "_transform_backward": ("Tensor grad, Tensor rewards", ', *, str baseline="loo-1"'),
    "_max_at_k_backward": ("Tensor grad, Tensor rewards", ""),
    "_transform_jvp": ("Tensor tangent, Tensor rewards", ', *, str baseline="loo-1"'),
    "_max_at_k_jvp": ("Tensor tangent, Tensor rewards", ""),
}


def define_schemas(library) -> None:
    tags = (torch.Tag.pt2_compliant_tag,)
    for name, (tensors, keywords) in _SCHEMAS.items():
        for overload, form in {
            "": f"{tensors}, SymInt k",
            ".tensor_k": f"{tensors}, Tensor k",
            ".grouped": f"{tensors}, Tensor offsets, Tensor k",
        }.items():
            library.define(f"{name}{overload}({form}{keywords}) -> Tensor", tags=tags)
    # max_at_k for several k from one sort: (..., K), (G, K).
    library.define("max_at_k.curve(Tensor rewards, SymInt[] k) -> Tensor", tags=tags)
    library.define("max_at_k.curve_grouped(Tensor rewards, Tensor offsets, SymInt[] k) -> Tensor", tags=tags)


define_schemas(library)

# Of the compiled CPU library alone; see _backends.py.
library.define("_cpu_isa(str name) -> str")

OPS = {name: getattr(torch.ops.pkpo, name) for name in _SCHEMAS}
_DENSE = ("default", "tensor_k")

# What torch's own message, a page for every schema, comes to.
_FORMS = {
    "transform": "(rewards, k), k an integer or an integer tensor, or (rewards, offsets, k), all tensors, and baseline=",
    "max_at_k": "(rewards, k), k an integer, an integer tensor or a list of integers, or (rewards, offsets, k)",
}


# ---------------------------------------------------------------------------------------------- telling the forms apart


def choose_form_by_type(packet, name: str) -> None:
    """Left alone, torch takes a k of shape () for the integer it holds: that would wait for the device, and a captured CUDA
    graph would keep the k it was captured with. And it finds a form by trying one schema after another, which costs ten
    microseconds for each that does not fit. Calls whose form shows in their positional arguments go to it directly."""
    tensors = _SCHEMAS[name][0].count("Tensor")
    by_schema, tensor_k, grouped = packet._op, packet.tensor_k, packet.grouped
    plain = {
        (Tensor,) * tensors + (int,): packet.default._op,
        (Tensor,) * tensors + (Tensor,): tensor_k._op,
        (Tensor,) * tensors + (Tensor, Tensor): grouped._op,
    }

    def of_no_form(args, keywords):
        kinds = [type(a).__name__ for a in args] + [f"{word}={type(a).__name__}" for word, a in keywords.items()]
        return RuntimeError(f"pkpo::{name}: arguments must be {_FORMS[name]}, got ({', '.join(kinds)})")

    def are_plain(keywords):
        return len(keywords) == 1 and type(keywords.get("baseline")) is str

    def call(*args, **keywords):
        form = plain.get(tuple(map(type, args)))
        if form and needs_no_derivative(args) and (not keywords or are_plain(keywords)):
            with below_autograd():
                return form(*args, **keywords)
        # For None torch hands on an undefined tensor, of which its own functions crash before 2.13.
        if name in _FORMS:
            for argument in (*args, *keywords.values()):
                if argument is None:
                    raise of_no_form(args, keywords)
        count = len(args) - tensors  # of offsets and k
        if count == 1:
            if isinstance(args[-1], Tensor) and "k" not in keywords:
                return tensor_k(*args, **keywords)
        elif count == 2:
            if isinstance(args[-1], Tensor):
                return grouped(*args, **keywords)
        elif "k" in keywords and "offsets" not in keywords and isinstance(keywords["k"], Tensor):
            return tensor_k(*args, **keywords)
        try:
            return by_schema(*args, **keywords)
        except Exception as error:
            if name not in _FORMS or "Declaration: pkpo::" not in str(error):
                raise
        raise of_no_form(args, keywords)

    packet._op = call


for _name in _SCHEMAS:
    choose_form_by_type(OPS[_name], _name)

for _name, _doc in DOCS.items():
    OPS[_name].__doc__ = _doc


# ------------------------------------------------------------------------------------------- devices without a kernel


def implement_reference(library: torch.library.Library, key: str) -> None:
    # Told so, torch 2.10 and 2.11 too put it over another kernel in Python.
    register = functools.partial(library.impl, dispatch_key=key, allow_override=True)
    for name in _SCHEMAS:
        dense = getattr(reference, name.removeprefix("_"))
        register(name, dense)
        register(f"{name}.tensor_k", dense)
        register(f"{name}.grouped", getattr(reference, f"{name.removeprefix('_')}_grouped"))
    register("max_at_k.curve", reference.max_at_k_curve)
    register("max_at_k.curve_grouped", reference.max_at_k_curve_grouped)


implement_reference(library, "CompositeExplicitAutograd")


# ------------------------------------------------------------------------------------------------------- fake tensors


def _register_fakes(name: str, *, tangent: bool, per_group: bool) -> None:
    """``tangent``: the first argument is a gradient or a tangent; ``per_group``: the result has one value a group."""
    op = f"pkpo::{name}"

    def dense(*args, baseline="loo-1"):
        *_, rewards, k = args
        _checks.check_dense(op, rewards, k, baseline if "transform" in name else "none")
        return _result(args[0], rewards, rewards.shape[:-1])

    def grouped(*args, baseline="loo-1"):
        *_, rewards, offsets, k = args
        _checks.check_grouped(op, rewards, offsets, k, baseline)
        return _result(args[0], rewards, torch.Size((offsets.shape[0] - 1,)))

    def _result(first, rewards, groups):
        if tangent:
            of_a_gradient = groups if "max_at_k" in name and not per_group else rewards.shape
            _checks.check_grad(op, first, rewards, of_a_gradient)
        return rewards.new_empty(groups if per_group else rewards.shape, dtype=_checks.result_dtype(rewards))

    torch.library.register_fake(op, dense, lib=library)
    torch.library.register_fake(f"{op}.tensor_k", dense, lib=library)
    torch.library.register_fake(f"{op}.grouped", grouped, lib=library)


_register_fakes("transform", tangent=False, per_group=False)
_register_fakes("max_at_k", tangent=False, per_group=True)
_register_fakes("_transform_backward", tangent=True, per_group=False)
_register_fakes("_max_at_k_backward", tangent=True, per_group=False)
_register_fakes("_transform_jvp", tangent=True, per_group=False)
_register_fakes("_max_at_k_jvp", tangent=True, per_group=True)


@torch.library.register_fake("pkpo::max_at_k.curve", lib=library)
def _(rewards, k):
    _checks.check_curve("pkpo::max_at_k", rewards, k)
    return rewards.new_empty((*rewards.shape[:-1], len(k)), dtype=_checks.result_dtype(rewards))


@torch.library.register_fake("pkpo::max_at_k.curve_grouped", lib=library)
def _(rewards, offsets, k):
    _checks.check_curve("pkpo::max_at_k", rewards, k, offsets)
    return rewards.new_empty((offsets.shape[0] - 1, len(k)), dtype=_checks.result_dtype(rewards))


# ----------------------------------------------------------------------------------------------------------- autograd
#
# The ops are linear in the sorted rewards; the order of the rewards is piecewise constant and has no derivative. So the
# derivative of an op is its linear map (_jvp) and its transpose (_backward), and theirs are each other.

for _name in ("transform", "max_at_k"):
    for _overload in (*_DENSE, "grouped"):
        _op, _vjp, _jvp = (getattr(OPS[name], _overload) for name in (_name, f"_{_name}_backward", f"_{_name}_jvp"))
        register_linear(library, _op, at=0, vjp=_vjp, jvp=_jvp)
        register_linear(library, _vjp, at=1, vjp=_jvp, jvp=_vjp)
        register_linear(library, _jvp, at=1, vjp=_vjp, jvp=_jvp)


def _curve_vjp(grad, rewards, *args):
    *offsets, ks = args
    backward = OPS["_max_at_k_backward"]
    if offsets:
        each = (backward(g, rewards, *offsets, offsets[0].new_full((), k)) for g, k in zip(grad.unbind(-1), ks))
    else:
        each = (backward(g, rewards, k) for g, k in zip(grad.unbind(-1), ks))
    return sum(each)


def _curve_jvp(tangent, rewards, *args):
    *offsets, ks = args
    jvp = OPS["_max_at_k_jvp"]
    if offsets:
        return torch.stack([jvp(tangent, rewards, *offsets, offsets[0].new_full((), k)) for k in ks], -1)
    return torch.stack([jvp(tangent, rewards, k) for k in ks], -1)


for _overload in ("curve", "curve_grouped"):
    _op = getattr(OPS["max_at_k"], _overload)
    register_linear(library, _op, at=0, vjp=_curve_vjp, jvp=_curve_jvp)


# --------------------------------------------------------------------------------------------------------------- vmap


def _batched(tensor: Tensor, dim: int | None, size: int) -> Tensor:
    return tensor.expand(size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)


def _vmap_dense(op):
    """The batch becomes one more leading dimension."""

    def rule(info, in_dims, *args, **keywords):
        size = info.batch_size
        *values, k = args
        values = [_batched(value, dim, size) for value, dim in zip(values, in_dims)]
        if isinstance(k, Tensor):
            groups = values[-1].shape[:-1]
            k = _batched(k, in_dims[-1], size)
            k = k.reshape(size, *(k.shape[1:] or (1,) * (len(groups) - 1))).expand(groups)
        return op(*values, k, **keywords), 0

    return rule


def _vmap_grouped(op):
    """The batches' groups follow one another."""

    def rule(info, in_dims, *args, **keywords):
        size = info.batch_size
        *values, offsets = (_batched(value, dim, size) for value, dim in zip(args[:-1], in_dims))
        samples, groups = values[-1].shape[1], offsets.shape[1] - 1
        starts = torch.arange(size, device=offsets.device, dtype=torch.int64).unsqueeze(-1) * samples
        offsets = torch.cat([(offsets[:, :-1] + starts).flatten(), starts.new_full((1,), size * samples)])
        k = args[-1]
        if isinstance(k, Tensor):
            k = _batched(k, in_dims[-1], size)
            k = k.reshape(size, *(k.shape[1:] or (1,))).expand(size, groups).flatten()
        out = op(*(value.flatten() for value in values), offsets, k, **keywords)
        return out.unflatten(0, (size, -1)), 0

    return rule


for _op in OPS.values():
    for _overload in _DENSE:
        torch.library.register_vmap(getattr(_op, _overload), _vmap_dense(getattr(_op, _overload)), lib=library)
    torch.library.register_vmap(_op.grouped, _vmap_grouped(_op.grouped), lib=library)
torch.library.register_vmap(OPS["max_at_k"].curve, _vmap_dense(OPS["max_at_k"].curve), lib=library)
torch.library.register_vmap(OPS["max_at_k"].curve_grouped, _vmap_grouped(OPS["max_at_k"].curve_grouped), lib=library)


# ----------------------------------------------------------------------------------------------------------- autocast
#
# As for softmax and sum: under autocast, rewards of a half type are transformed in float32, and come out in it.

for _name in ("transform", "max_at_k"):
    for _overload in OPS[_name].overloads():
        for _device_type in ("cpu", "cuda"):
            torch.library.register_autocast(getattr(OPS[_name], _overload), _device_type, torch.float32, lib=library)
