"""Where a result was measured: the machine, the versions, the commit."""

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import pkpo_kernels


def described(*packages):
    """A result's "machine": ``packages`` are those whose versions matter beside torch's."""
    versions = {"pkpo_kernels": pkpo_kernels.__version__, "torch": torch.__version__}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": cpu(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "versions": versions,
        "commit": commit(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def in_words(about):
    """The same as a line, for results that are text."""
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    return f"{versions}; Python {about['python']} on {about['cpu']}; commit {about['commit']}, {about['time']}"


def cpu():
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    model = [line for line in lines if line.startswith("model name")]
    return model[0].partition(":")[2].strip() if model else platform.processor()


def commit():
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
