"""Pass@k policy optimization as one fused op.

``import pkpo_kernels`` registers ``torch.ops.pkpo.transform`` and ``torch.ops.pkpo.max_at_k``, and offers functions around
them that take what people hold. ``pkpo_kernels.numpy`` has the same functions on NumPy arrays and works without torch.
"""

from ._info import info
from ._version import __version__

__all__ = [
    "Grouping",
    "__version__",
    "advantages",
    "group_by",
    "info",
    "max_at_k",
    "pass_at_k",
    "reference",
    "transform",
    "use_backend",
]

try:
    import torch as _torch  # noqa: F401
except ImportError as _error:
    _no_torch = str(_error)

    def __getattr__(name):
        if name in __all__:
            raise ImportError(
                f"pkpo_kernels.{name} needs torch >= 2.10, which cannot be imported here ({_no_torch}); "
                "pkpo_kernels.numpy works without it"
            )
        raise AttributeError(f"module 'pkpo_kernels' has no attribute {name!r}")

else:
    from . import _backends, _choice, reference
    from ._advantages import advantages
    from ._choice import use_backend
    from .functional import Grouping, group_by, max_at_k, pass_at_k, transform

    _backends.load()
    _backends.load_gpu_when_needed()
    _choice.choose_from_environment()
