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


def pytest_terminal_summary(terminalreporter):
    """The largest error of every form, dtype and backend over all that the run compared with exact arithmetic."""
    worst = {}
    for report in terminalreporter.stats.get("passed", []):
        for name, value in report.user_properties:
            if name == "error":
                *key, error = value
                worst[tuple(key)] = max(worst.get(tuple(key), 0), error)
    if worst:
        terminalreporter.section("largest error over max|exact|")
        for key, error in sorted(worst.items()):
            terminalreporter.write_line("{:<11} {:<9} {:<9}".format(*key) + f" {error:.1e}")
