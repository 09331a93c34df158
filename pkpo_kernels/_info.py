"""What is installed and what serves which device: the report that a bug needs. Works without torch."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from ._how_to_build import why_not_built
from ._version import __version__


def info() -> str:
    """Versions, what is compiled and what serves the tensors of each device, as text."""
    lines = {"pkpo_kernels": f"{__version__} ({Path(__file__).parent})"}
    try:
        import torch

        from . import _backends, _choice, _triton

        lines["torch"] = f"{torch.__version__} (CUDA {torch.version.cuda}, HIP {torch.version.hip})"
        lines["threads"] = str(torch.get_num_threads())
        lines["CPU library"] = _backends.cpu_problem or str(_backends.CPU_LIBRARY)
        serving = _backends.serving(_choice.forced())
        lines["CUDA library"] = _backends.cuda_problem or str(_backends.CUDA_LIBRARY)
        lines["Triton"] = _triton.describe()
        if _choice.forced():
            lines["asked for"] = f"{_choice.forced()} (use_backend or PKPO_BACKEND)"
    except ImportError as error:
        lines["torch"] = f"not importable ({error})"
        serving = {}
    import numpy

    lines["numpy"] = numpy.__version__
    try:
        from . import _numpy

        lines["NumPy module"] = _numpy.__file__
    except ImportError as error:
        lines["NumPy module"] = f"{why_not_built('a C++ compiler or without pybind11')}: {error}"
    lines["python"] = f"{sys.version.split()[0]} on {platform.platform()}"
    lines |= {device: f"served by: {backend}" for device, backend in serving.items()}
    return "\n".join(f"{name:<16} {value}" for name, value in lines.items())
