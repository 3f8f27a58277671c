"""An entry point of `vllm.general_plugins`: the engine's processes end with the one above them.

vLLM calls it in each of its processes. Without it a worker that is killed leaves its engine core
behind, with the model's memory. It does nothing where vLLM is used by somebody else.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys

from services.runtime.supervisor import SOCKET_VARIABLE

_PR_SET_PDEATHSIG = 1


def register() -> None:
    """Ask the kernel to kill this process when the thread that started it ends."""
    parent = multiprocessing.parent_process()
    if parent is None or SOCKET_VARIABLE not in os.environ or sys.platform != "linux":
        return
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have ended while this process was still reading its modules.
    if os.getppid() != parent.pid:
        os._exit(1)
