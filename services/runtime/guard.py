"""Runs one foreign program and ends it when the parent goes away.

Our own processes watch their parent's pipe themselves (`process.end_with_parent`). A program that
cannot, such as Postgres, runs under this guard, which holds the pipe for it. Standard library only:
it is started with `python -I -S`, so that it costs a few milliseconds and megabytes.

Usage: guard.py PARENT_FD STOP_SIGNAL GRACE_SECONDS PROGRAM [ARGUMENT ...]
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

PARENT_GONE = "parent gone"
STOP_ASKED = "stop asked"
PROGRAM_ENDED = "program ended"

_wake_read, _wake_write = os.pipe()
_asked_to_stop = False


def _on_signal(signum: int, _frame: object) -> None:
    """Note the request; the main loop acts on it."""
    global _asked_to_stop  # signal handlers have no other way to hand a fact on
    if signum != signal.SIGCHLD:
        _asked_to_stop = True
    os.write(_wake_write, b"x")


def _wait_for_event(parent_fd: int, program: subprocess.Popen[bytes]) -> str:
    """Block until the program ends, the parent goes, or a stop is asked for."""
    while True:
        if program.poll() is not None:
            return PROGRAM_ENDED
        if _asked_to_stop:
            return STOP_ASKED
        readable, _, _ = select.select([parent_fd, _wake_read], [], [])
        if _wake_read in readable:
            os.read(_wake_read, 64)
        if parent_fd in readable and not os.read(parent_fd, 64):
            return PARENT_GONE


def _kill_group(pid: int) -> None:
    """Kill what is left of the program's own process group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass  # the group is gone already


def _stop(program: subprocess.Popen[bytes], stop_signal: int, grace_s: float) -> None:
    """Ask the program to end, and make it end once the grace is over."""
    program.send_signal(signal.SIGCONT)
    program.send_signal(stop_signal)
    try:
        program.wait(grace_s)
    except subprocess.TimeoutExpired:
        _kill_group(program.pid)
        program.wait()


def main(arguments: list[str]) -> int:
    """Run the program to its end and return its exit status."""
    parent_fd, stop_signal, grace_s = int(arguments[0]), int(arguments[1]), float(arguments[2])
    os.set_blocking(_wake_write, False)
    for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):
        signal.signal(signum, _on_signal)
    program = subprocess.Popen(arguments[3:], start_new_session=True)
    if _wait_for_event(parent_fd, program) != PROGRAM_ENDED:
        _stop(program, stop_signal, grace_s)
    _kill_group(program.pid)
    return program.returncode if program.returncode >= 0 else 128 - program.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
