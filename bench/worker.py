"""Work in a process of its own: what fails there, hangs or ends the process takes nothing with it, and what comes next has a
new one. A fault of a kernel leaves the process that launched it without a GPU; other processes keep theirs."""

import contextlib
import multiprocessing
import os
import signal
from concurrent.futures import ProcessPoolExecutor

START = 120  # seconds that a process may take to come up


class Worker:
    """One process at a time. Each first calls ``begin()``, and ``check()`` after every piece of work: where that fails it is
    not used again. These, and the work, are functions of modules, which a process finds by name."""

    def __init__(self, begin, check):
        self.begin, self.check = begin, check
        self.executor = self.process = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def run(self, work, seconds):
        """What ``work()`` returns. Raises what it raises; concurrent.futures' TimeoutError after so many seconds, and
        BrokenProcessPool where its process ended."""
        try:
            if self.executor is None:
                self.executor = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"))
                self.process = self.executor.submit(os.getpid).result(START)
                self.executor.submit(self.begin).result(START)
            result = self.executor.submit(work).result(seconds)
        except BaseException:
            self.end()
            raise
        try:
            self.executor.submit(self.check).result(seconds)
        except Exception:
            self.end()
        return result

    def end(self):
        """The process, whatever it does."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.process, signal.SIGKILL)
        if self.executor is not None:
            self.executor.shutdown()
        self.executor = self.process = None
