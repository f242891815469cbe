"""Start a queue's own consumer command, wait until it is ready, and end it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
BIN = Path(sys.executable).parent


class Consumer:
    """A consumer process of its own group, whose output is kept for the failure's text.

    ``command``: as its user types it; its first word is looked up beside this Python.
    ``ready``: a pattern that the output shows once jobs are taken. ``forgot``: one that it
    shows only where the consumer was told to stop and goes on all the same; "" for one that
    does not. ``killed_before``: whether the process before this one was killed.
    """

    def __init__(
        self,
        command: Sequence[str],
        ready: str,
        folder: Path,
        env: Mapping[str, str] | None = None,
        forgot: str = "",
    ) -> None:
        own = BIN / command[0]
        self._command = [str(own) if own.exists() else command[0], *command[1:]]
        self._ready, self._env, self._log = ready, dict(env or {}), folder / "consumer.log"
        self._forgot = forgot
        self._process: subprocess.Popen[bytes] | None = None
        self.killed_before = False

    @property
    def output(self) -> str:
        """Return what the consumer wrote, in all its starts."""
        return self._log.read_text("utf-8", "replace") if self._log.exists() else ""

    @property
    def pid(self) -> int:
        """Return the process's id."""
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Tell whether the process runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = 120.0) -> None:
        """Start it and wait until it is ready.

        SIGRA_CONTRACT_RECORD and SIGRA_CONTRACT_EVENTS come from this process, where the
        suite's ``Journal`` set them.
        """
        path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
        env = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1", **self._env}
        before = len(self.output)
        self.killed_before = self._process is not None and self._process.poll() == -signal.SIGKILL
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + timeout
        going_on = True  # as of before its output was read: it may be killed as soon as it is ready
        while not re.search(self._ready, self.output[before:]):
            if not going_on or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the consumer did not become ready:\n{self.output[before:]}")
            going_on = self.alive
            time.sleep(0.05)

    def stop(self, timeout: float = 120.0) -> int:
        """End it as its operator does (SIGTERM), who tells it again if it forgot; return its code."""
        assert self._process is not None
        before, deadline = len(self.output), time.monotonic() + timeout
        self._process.send_signal(signal.SIGTERM)
        while time.monotonic() < deadline:
            try:
                return self._process.wait(2.0)
            except subprocess.TimeoutExpired:
                if self._forgot and re.search(self._forgot, self.output[before:]):
                    self._process.send_signal(signal.SIGTERM)
        self.kill()
        raise AssertionError(f"the consumer did not stop:\n{self.output[-5000:]}")

    def kill(self) -> None:
        """Kill it and its children with -9."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
