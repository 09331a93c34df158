"""How a measurement is written down: bench/results/NAME.json, which says machine, versions and commit, and NAME.md, a table
that the documents take over (bench/tables.py)."""

import argparse
import json
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def options(doc, quick):
    """A parser with ``--quick``, which all measurements have: ``quick`` says what it leaves out. It writes nothing."""
    parser = argparse.ArgumentParser(description=doc.partition("\n\n")[0])
    parser.add_argument("--quick", action="store_true", help=f"{quick}; nothing is written: does it run?")
    return parser


def save(name, about, content, words, table):
    """``about``: bench.machine.described(); ``words``: a line above the lines of the table."""
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": about} | content) + "\n")
    (RESULTS / f"{name}.md").write_text("\n".join([words, "", *table, ""]))


def write(name, about, content, words, table):
    save(name, about, content, words, table)
    print(f"Written: bench/results/{name}.json and {name}.md")
