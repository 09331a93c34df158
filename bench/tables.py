"""The tables in the documents, written from result files: python -m bench tables [--check].

A document has ``<!-- results: NAME -->`` and ``<!-- end of results -->``; what stands between them is
bench/results/NAME.md, and for NAME ``cpu`` a table made from bench/results/cpu.json.
"""

import argparse
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results"
DOCUMENTS = ("README.md", "docs/training.md", "docs/paper.md")
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.S)


def cpu():
    """Of the fastest instruction set: the op over its peers."""
    from bench.cpu import ratios

    results = json.loads((RESULTS / "cpu.json").read_text())
    machine, (isa, of_isa) = results["machine"], next(iter(results["isas"].items()))
    columns = {
        "ns/sample": "ns a sample",
        "/torch": "over torch's ops",
        "/np.sort": "over `np.sort`",
        "bool/copy": "bool, over a copy",
        "grouped": "grouped over dense",
        "backward": "backward over forward",
    }
    lines = [
        f"`make bench`: {machine['cpu']}, {isa}, one thread, float32, torch {machine['versions']['torch']}, "
        f"commit {machine['commit']}; medians.",
        "",
        "| n | " + " | ".join(columns.values()) + " |",
        "|---|" + "---|" * len(columns),
    ]
    for n, row in of_isa["sizes"].items():
        found = ratios(n, row)
        lines.append(f"| {int(n):,} | " + " | ".join(f"{found[column]:.3g}" for column in columns) + " |")
    return "\n".join([*lines, ""])


def table(name):
    return cpu() if name == "cpu" else (RESULTS / f"{name}.md").read_text()


def filled(text):
    return BLOCK.sub(lambda block: block[1] + table(block[2]) + block[3], text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--check", action="store_true", help="write nothing; fail where a document differs")
    check = parser.parse_args().check
    differ = []
    for name in DOCUMENTS:
        path = ROOT / name
        text = path.read_text()
        if filled(text) != text:
            differ.append(name)
            if not check:
                path.write_text(filled(text))
    if check and differ:
        sys.exit(f"not what the result files say: {', '.join(differ)}; run python -m bench tables")


if __name__ == "__main__":
    main()
