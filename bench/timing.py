"""Side-by-side timing: candidates take turns in one run, so that what the machine does meanwhile falls on all of them."""

import statistics
import time
from typing import NamedTuple


class Timing(NamedTuple):
    """Seconds a call."""

    median: float
    low: float  # 20th percentile
    high: float  # 80th percentile


def side_by_side(candidates, *, rounds=15, seconds_a_round=0.02, tick=lambda: None):
    """candidates: name -> function of no argument. Returns name -> Timing. ``tick`` is called after every round."""
    calls = {}
    for name, function in candidates.items():
        function()
        begin = time.perf_counter()
        function()
        once = max(time.perf_counter() - begin, 1e-7)
        calls[name] = max(1, round(seconds_a_round / once))
    samples = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, function in candidates.items():
            begin = time.perf_counter()
            for _ in range(calls[name]):
                function()
            samples[name].append((time.perf_counter() - begin) / calls[name])
        tick()
    return {name: summary(values) for name, values in samples.items()}


def table(timings, *, over, unit, title=""):
    """Lines of Markdown: medians, spread and the ratio to the timing named ``over``; unit: "us" or "ms"."""
    scale = {"us": 1e6, "ms": 1e3}[unit]
    lines = [f"| {title:<38} | {unit:>9} | 20 % to 80 % | ratio |", f"|{'-' * 40}|{'-' * 11}|{'-' * 14}|{'-' * 7}|"]
    for name, timing in timings.items():
        spread = f"{timing.low * scale:.3f}-{timing.high * scale:.3f}"
        ratio = timing.median / timings[over].median
        lines.append(f"| {name:<38} | {timing.median * scale:>9.3f} | {spread:>12} | {ratio:>5.2f} |")
    return lines


def summary(values):
    if len(values) < 2:
        return Timing(values[0], values[0], values[0])
    percentiles = statistics.quantiles(values, n=10, method="inclusive")
    return Timing(statistics.median(values), percentiles[1], percentiles[7])
