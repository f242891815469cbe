"""Run the command in a fork of a process that has loaded it already.

``python loaded.py SOCKET WORDS...`` stands for ``python -m sigra WORDS...`` and begins in a tenth
of the time: the command has its streams, folder, environment and limit of a file's size, gets the
signals that it gets, and it ends as the command does. ``python loaded.py serve FD`` is the process
that has loaded.
"""

import atexit
import contextlib
import gc
import json
import os
import resource
import runpy
import signal
import socket
import sys
import threading
from importlib import import_module

LOADED = ("sigra.cli.app", "sigra.cli.keeping", "sigra.store.sink", "sqlalchemy.dialects.sqlite")
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def stand_in(place: str, words: list[str]) -> None:
    """Have a command run elsewhere, and end as it does."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)  # until it is known whom they are for
    server = socket.socket(socket.AF_UNIX)
    server.connect(place)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    streams = [n for n, stream in enumerate((sys.stdin, sys.stdout, sys.stderr)) if stream]
    order = json.dumps([streams, words, os.getcwd(), dict(os.environ), limit]) + "\n"
    socket.send_fds(server, [order.encode()], streams)
    answers = server.makefile()
    pid = int(answers.readline())

    def forward(sign: int, _: object) -> None:
        with contextlib.suppress(ProcessLookupError):  # it has just ended, and its status is coming
            os.kill(pid, sign)

    for each in FORWARDED:
        signal.signal(each, forward)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    status = int(answers.readline())
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    os._exit(status)


def serve(listener: socket.socket) -> None:
    """Load what commands need, and run each that is asked for in a process of its own."""
    for module in LOADED:
        import_module(module)
    gc.freeze()  # no fork looks for garbage among it as it ends
    while True:
        asked, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            watch(asked)
            return
        asked.close()
        with contextlib.suppress(ChildProcessError):  # once all that ended were waited for
            while os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG):
                pass


def watch(asked: socket.socket) -> None:
    """Run a command, tell how it ends, and kill it where nobody waits for that any more."""
    order, streams, _, _ = socket.recv_fds(asked, 1 << 16, 3)
    while not order.endswith(b"\n"):
        order += asked.recv(1 << 16)
    pid = os.fork()
    if pid == 0:
        asked.close()
        command(streams, *json.loads(order))
        return
    for stream in streams:
        os.close(stream)
    threading.Thread(target=kill_when_forgotten, args=(pid, asked), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):  # the stand-in was killed
        asked.sendall(b"%d\n" % pid)
        asked.sendall(b"%d\n" % os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    os._exit(0)


def kill_when_forgotten(pid: int, asked: socket.socket) -> None:
    """Kill a command whose stand-in was killed."""
    asked.recv(1)
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def command(
    received: list[int], streams: list[int], words: list[str], folder: str,
    environment: dict[str, str], limit: list[int],
) -> None:  # fmt: skip
    """Be the command."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if number in streams:
            os.dup2(stream := received[streams.index(number)], number)
            os.close(stream)
        else:  # as the interpreter has it that begins without
            os.close(number)
            setattr(sys, name, None)
            setattr(sys, f"__{name}__", None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit[0], limit[1]))
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[0], sys.argv = folder, ["sigra", *words]
    try:
        runpy.run_module("sigra", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        # As the interpreter ends, but that it does not take apart all that was loaded.
        threading._shutdown()
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
        if isinstance(end.code, int):
            os._exit(end.code)
        raise


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(socket.socket(fileno=int(sys.argv[2])))
    else:
        stand_in(sys.argv[1], sys.argv[2:])
