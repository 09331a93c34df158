"""Pass@k policy optimization as one fused op.

``import pkpo_kernels`` registers ``torch.ops.pkpo.transform`` and ``torch.ops.pkpo.max_at_k``; what they compute is in
``pkpo_kernels.reference``, which reads beside the mathematics.
"""

from . import _backends, reference
from . import ops as _ops  # noqa: F401 - registers torch.ops.pkpo
from ._version import __version__

_backends.load()

info = _backends.info

__all__ = ["__version__", "info", "reference"]
