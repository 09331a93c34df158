"""All measurements: python -m bench NAME [NAME ...] [options, such as --quick]; NAME ``all``: all that can be had here."""

import subprocess
import sys
from importlib.util import find_spec
from typing import NamedTuple

import torch

from setup import nvcc


class Measurement(NamedTuple):
    module: str
    about: str
    missing: str | None = None  # what it needs and this machine or environment has not


def unless(there, what):
    return None if there else what


TRAINERS = "{} is not installed; {} has an environment with it"

MEASUREMENTS = {
    "cpu": Measurement("bench.cpu", "the CPU kernel beside torch's ops, np.sort and a copy"),
    "call": Measurement("bench.call", "the cost of one small call"),
    "grouping": Measurement("bench.grouping", "ids in any order to output"),
    "gpu": Measurement(
        "bench.gpu",
        "the GPU kernels beside their peers; needs an NVIDIA GPU",
        unless(torch.cuda.is_available(), "torch finds no GPU"),
    ),
    "estimate": Measurement(
        "bench.estimate",
        "what the CUDA kernels should take, from their machine code; needs nvcc",
        unless(nvcc(), "there is no nvcc"),
    ),
    "accuracy": Measurement("bench.accuracy", "the largest errors, against exact arithmetic"),
    "verl": Measurement(
        "bench.verl",
        "verl's estimators beside this package's; make bench-verl",
        unless(find_spec("verl"), TRAINERS.format("verl", "make bench-verl")),
    ),
    "learn": Measurement(
        "bench.trl_learning",
        "learning in TRL's trainer; make learn",
        unless(find_spec("trl"), TRAINERS.format("trl", "make learn")),
    ),
    "toy": Measurement("bench.paper.toy", "the paper's toy problem, learned and integrated"),
    "variance": Measurement("bench.paper.variance", "bias and variance of the gradient estimates"),
    "claims": Measurement("bench.paper.claims", "the paper's claims on a small transformer"),
    "tables": Measurement("bench.tables", "writes the documents' tables from the result files; --check compares"),
}


def main():
    first_option = next((i for i, word in enumerate(sys.argv) if word.startswith("-")), len(sys.argv))
    names, options = sys.argv[1:first_option], sys.argv[first_option:]
    unknown = [name for name in names if name not in (*MEASUREMENTS, "all")]
    if unknown or not names:
        print("\n".join([__doc__, *(f"  {name:<10}{m.about}" for name, m in MEASUREMENTS.items())]))
        sys.exit(f"\nno measurement is called {unknown[0]}" if unknown else 0)
    if "all" in names:
        for name, measurement in MEASUREMENTS.items():
            if measurement.missing:
                print(f"{name}: left out, {measurement.missing}")
        names = [name for name, measurement in MEASUREMENTS.items() if not measurement.missing and name != "tables"]
    for name in names:  # each in a process of its own: what one sets, threads say, is not the next one's
        if len(names) > 1:
            print(f"\n{name}: {MEASUREMENTS[name].about}\n", flush=True)
        done = subprocess.run([sys.executable, "-m", MEASUREMENTS[name].module, *options], check=False)
        if done.returncode:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
