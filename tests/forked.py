"""Children that a process forks while its threads are at work."""

import subprocess
import sys

_AT_WORK = """
import os, signal, threading

def use_on_and_on():
    while True:
        use()

for _ in range(3):
    threading.Thread(target=use_on_and_on, daemon=True).start()
for _ in range({children}):
    if not (child := os.fork()):
        signal.alarm(60)
        use()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        os._exit(1)
os._exit(0)
"""


def run_beside_threads(code: str, children: int) -> None:
    """Fork so many children, in each of which ``use``, of the code, must come to its end.

    Three threads of their parent's run the same all the while.
    """
    command = [sys.executable, "-W", "ignore", "-c", code + _AT_WORK.format(children=children)]
    assert 0 == subprocess.run(command, timeout=240, check=False).returncode
