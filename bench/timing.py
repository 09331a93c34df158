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
    """Medians, spread and the ratio to the timing named ``over``; unit: "us" or "ms"."""
    scale = {"us": 1e6, "ms": 1e3}[unit]
    lines = [f"{title:<40}{f'median {unit}':>10}{'20%-80%':>16}{'ratio':>8}"]
    for name, timing in timings.items():
        spread = f"{timing.low * scale:.3f}-{timing.high * scale:.3f}"
        ratio = timing.median / timings[over].median
        lines.append(f"{name:<40}{timing.median * scale:>10.3f}{spread:>16}{ratio:>8.2f}")
    return "\n".join(lines)


def summary(values):
    if len(values) < 2:
        return Timing(values[0], values[0], values[0])
    percentiles = statistics.quantiles(values, n=10, method="inclusive")
    return Timing(statistics.median(values), percentiles[1], percentiles[7])
