"""All measurements: python -m bench NAME [options of that one, such as --quick]."""

import importlib
import sys

BENCHMARKS = {
    "cpu": ("bench.cpu", "the CPU kernel beside torch's ops, np.sort and a copy"),
    "call": ("bench.call", "the cost of one small call"),
    "grouping": ("bench.grouping", "ids in any order to output"),
    "gpu": ("bench.gpu", "the GPU kernels beside their peers; needs an NVIDIA GPU"),
    "estimate": ("bench.estimate", "what the CUDA kernels should take, from their machine code"),
    "verl": ("bench.verl", "verl's estimators beside this package's; in the environment of make bench-verl"),
    "learn": ("bench.trl_learning", "learning in TRL's trainer; in the environment of make learn"),
    "toy": ("bench.paper.toy", "the paper's toy problem, learned and integrated"),
    "variance": ("bench.paper.variance", "bias and variance of the gradient estimates"),
    "claims": ("bench.paper.claims", "the paper's claims on a small transformer"),
    "tables": ("bench.tables", "writes the documents' tables from the result files; --check compares"),
}


def main():
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name not in BENCHMARKS:
        lines = [__doc__, *(f"  {name:<10}{about}" for name, (_, about) in BENCHMARKS.items())]
        print("\n".join(lines))
        sys.exit(0 if name in ("-h", "--help") else f"\nno benchmark is called {name}")
    module, _ = BENCHMARKS[name]
    sys.argv = [f"python -m bench {name}", *sys.argv[2:]]
    importlib.import_module(module).main()


if __name__ == "__main__":
    main()
