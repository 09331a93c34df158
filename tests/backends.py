"""The implementations that every test of the ops runs through. A new backend joins by one line."""

import torch

from pkpo_kernels import _backends, reference


class Ops:
    """What torch.ops.pkpo dispatches to for tensors of a device; the three forms told apart by the arguments."""

    def __init__(self, device):
        self.device = device
        self.transform = torch.ops.pkpo.transform
        self.max_at_k = torch.ops.pkpo.max_at_k
        self.transform_backward = torch.ops.pkpo._transform_backward
        self.max_at_k_backward = torch.ops.pkpo._max_at_k_backward


class CpuOps(Ops):
    """The CPU library on one instruction set."""

    def __init__(self, isa):
        super().__init__("cpu")
        for name in ("transform", "max_at_k", "transform_backward", "max_at_k_backward"):
            setattr(self, name, self.on(isa, getattr(self, name)))

    @staticmethod
    def on(isa, op):
        def call(*args, **keywords):
            with _backends.cpu_isa(isa):
                return op(*args, **keywords)

        return call


class Reference:
    """The reference called past the dispatcher, so that it is tested where a kernel serves."""

    device = "cpu"

    def transform(self, rewards, *args, **keywords):
        function = reference.transform_grouped if len(args) == 2 else reference.transform
        return function(rewards, *args, **keywords)

    def max_at_k(self, rewards, *args):
        if isinstance(args[-1], list):
            return (reference.max_at_k_curve_grouped if len(args) == 2 else reference.max_at_k_curve)(rewards, *args)
        return (reference.max_at_k_grouped if len(args) == 2 else reference.max_at_k)(rewards, *args)

    def transform_backward(self, grad, rewards, *args, **keywords):
        function = reference.transform_backward_grouped if len(args) == 2 else reference.transform_backward
        return function(grad, rewards, *args, **keywords)

    def max_at_k_backward(self, grad, rewards, *args):
        function = reference.max_at_k_backward_grouped if len(args) == 2 else reference.max_at_k_backward
        return function(grad, rewards, *args)


CPU = {f"cpu {isa}": CpuOps(isa) for isa in _backends.available_cpu_isas()}

BACKENDS = {
    **CPU,
    "reference": Reference(),
}
