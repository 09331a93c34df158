"""The tables in the documents, written from result files: python -m bench tables [--check].

A document has ``<!-- results: NAME -->`` and ``<!-- end of results -->``; what stands between them is
bench/results/NAME.md, which the measurement of that name writes.
"""

import argparse
import re
import sys
from pathlib import Path

from bench import report

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "docs/usage.md", "docs/training.md", "docs/paper.md", "docs/numerics.md")
BLOCK = re.compile(r"(<!-- results: (\w+) -->\n).*?(<!-- end of results -->)", re.S)


def filled(text):
    return BLOCK.sub(lambda block: block[1] + (report.RESULTS / f"{block[2]}.md").read_text() + block[3], text)


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
