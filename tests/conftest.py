import json
import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

# One thread for each test worker: the suite runs with two workers. Tests of threads ask for more.
torch.set_num_threads(1)

# The same examples in every run.
settings.register_profile("suite", derandomize=True, deadline=None, max_examples=150)
settings.load_profile("suite")


@pytest.fixture
def two_threads():
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


def is_slow(item):
    """Of Triton's compiler or its interpreter, which take seconds a test."""
    if item.get_closest_marker("always"):
        return False
    on_triton = os.environ.get("TRITON_INTERPRET") == "1" or os.environ.get("PKPO_TEST_BACKENDS") == "triton"
    return on_triton or "::test_compiles_without_spilling" in item.nodeid


def pytest_collection_modifyitems(config, items):
    slow = {item: i for i, item in enumerate(filter(is_slow, items))}
    chosen = {item for item, i in slow.items() if i % config.option.slow_every == 0}
    config.hook.pytest_deselected(items=[item for item in slow if item not in chosen])
    items[:] = [item for item in items if item not in slow or item in chosen]


def pytest_runtest_logfinish():
    """Where a fault of a kernel left this process without a GPU it ends, and xdist has a new one for the tests to come."""
    if "PYTEST_XDIST_WORKER" in os.environ and torch.cuda.is_initialized():
        try:
            torch.cuda.synchronize()
        except Exception:
            os._exit(1)


def pytest_addoption(parser):
    parser.addoption("--slow-every", type=int, default=1, metavar="N", help="of Triton's slow tests run each Nth")
    parser.addoption("--errors", type=Path, metavar="FILE", help="write the largest errors into it, as JSON")


def pytest_terminal_summary(terminalreporter, config):
    """The largest error of every form, dtype and backend over all that the run compared with exact arithmetic; and the
    gradient estimates beside what they must be."""
    worst = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "error":
                *key, error = value
                worst[tuple(key)] = max(worst.get(tuple(key), 0), error)
    if config.option.errors:
        config.option.errors.write_text(json.dumps([[*key, error] for key, error in sorted(worst.items())]))
    if worst:
        terminalreporter.section("largest error over max|exact|")
        for key, error in sorted(worst.items()):
            terminalreporter.write_line("{:<18} {:<20} {:<9}".format(*key) + f" {error:.1e}")

    unbiased = [
        value
        for report in terminalreporter.stats.get("passed", [])
        for name, value in report.user_properties
        if name == "unbiased"
    ]
    if unbiased:
        terminalreporter.section("gradient estimates: worst of five coordinates, in standard errors of the mean")
        for name, exact, mean, error, z in sorted(unbiased):
            i = max(range(len(exact)), key=lambda i: abs(mean[i] - exact[i]) / error[i])
            interval = f"{mean[i]:+.5f} +- {1.96 * error[i]:.5f}"
            terminalreporter.write_line(f"{name:<30} exact {exact[i]:+.5f}  estimate {interval} (95%)  {z:.2f}")
