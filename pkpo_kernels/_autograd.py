"""Registers derivatives of ops that are linear in one argument, given what else they take.

``torch.library.register_autograd`` would do, but for two things: its formulas refuse to run under ``torch.func.grad``, and it
spends two microseconds on a call that needs no gradient. This does what it does (a Python kernel at the Autograd key around
an ``autograd.Function``) with one level of ``torch.func`` handled at a time, as for torch's own ops, and with forward mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch._functorch.utils import enable_single_level_autograd_function
from torch.autograd import forward_ad
from torch.autograd.forward_ad import _set_fwd_grad_enabled
from torch.autograd.function import _SingleLevelFunction

_AFTER_AUTOGRAD = torch._C._after_autograd_keyset
_functorch_is_active = torch._C._are_functorch_transforms_active
_function_mode_is_on = torch._C._is_torch_function_mode_enabled
_is_recorded = torch.is_grad_enabled
_any_requires_grad = torch._C._any_requires_grad


# Within it calls go past the Autograd key, where a kernel in Python takes longer than all else of a small call; to all
# else that torch has for a call (other keys, modes, profilers) they are as before.
below_autograd = torch._C._AutoDispatchBelowAutograd


def needs_no_derivative(args) -> bool:
    """Is it certain of a call with these plain tensors and numbers? Modes over torch's functions and torch.func may
    differentiate where it does not show."""
    return not (
        (_is_recorded() and _any_requires_grad(*args))
        or forward_ad._current_level >= 0
        or _functorch_is_active()
        or _function_mode_is_on()
    )


def register_linear(library: torch.library.Library, op, *, at: int, vjp: Callable, jvp: Callable) -> None:
    """Gives ``op`` its derivatives with respect to its first argument.

    The op is linear in it around the point that argument number ``at`` gives: the first itself, or the one behind it, which
    has no derivative. ``vjp(grad, *args, **keywords)`` is the gradient that flows to the first argument and
    ``jvp(tangent, *args, **keywords)`` the change of the output, where args are those of the op from ``at`` on.
    """

    class Derivative(_SingleLevelFunction):
        @staticmethod
        def forward(ctx, keyset, keywords, *args):
            # A Function switches differentiation off inside; the outer levels of torch.func, further down, need it on.
            outer = _functorch_is_active()
            with below_autograd(), torch.set_grad_enabled(outer), _set_fwd_grad_enabled(outer):
                output = op.redispatch(keyset & _AFTER_AUTOGRAD, *args, **keywords)
            point = args[at:]
            ctx.keywords, ctx.count = keywords, len(args)
            ctx.tensors_at = [i for i, value in enumerate(point) if isinstance(value, Tensor)]
            ctx.numbers = [None if isinstance(value, Tensor) else value for value in point]
            tensors = [point[i] for i in ctx.tensors_at]
            ctx.save_for_backward(*tensors)
            ctx.save_for_forward(*tensors)
            return output

        @staticmethod
        def point(ctx):
            args = list(ctx.numbers)
            for i, value in zip(ctx.tensors_at, ctx.saved_tensors):
                args[i] = value
            return args

        @staticmethod
        def backward(ctx, grad):
            first = vjp(grad, *Derivative.point(ctx), **ctx.keywords) if ctx.needs_input_grad[2] else None
            return None, None, first, *(None for _ in range(ctx.count - 1))

        @staticmethod
        def jvp(ctx, _keyset, _keywords, tangent, *_):
            if tangent is None:
                return None
            return jvp(tangent, *Derivative.point(ctx), **ctx.keywords)

    Derivative.__name__ = Derivative.__qualname__ = f"Derivative_{op._opname}_{op._overloadname}"

    def kernel(keyset, *args, **keywords):
        if (_is_recorded() and _any_requires_grad(*args)) or forward_ad._current_level >= 0:
            if _functorch_is_active():
                with enable_single_level_autograd_function():
                    return Derivative.apply(keyset, keywords, *args)
            return Derivative.apply(keyset, keywords, *args)
        return op.redispatch(keyset & _AFTER_AUTOGRAD, *args, **keywords)

    name = op._schema.name + (f".{op._overloadname}" if op._overloadname != "default" else "")
    library.impl(name, kernel, "Autograd", with_keyset=True)
