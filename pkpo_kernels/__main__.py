"""``python -m pkpo_kernels info``: versions, what is compiled, what serves each device; the report that a bug needs."""

import argparse

from ._info import info

parser = argparse.ArgumentParser(
    prog="python -m pkpo_kernels", description="Pass@k policy optimization as one fused op."
)
commands = parser.add_subparsers(dest="command", required=True)
commands.add_parser("info", help="print versions, what is compiled and what serves each device")
parser.parse_args()
print(info())
