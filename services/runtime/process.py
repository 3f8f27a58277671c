"""Starting processes that never outlive the one that started them.

Every child holds the read end of a pipe whose write end only its parent has. However the parent
ends (exit, crash, kill -9), the child reads end-of-file and ends too. This needs nothing of the
operating system but pipes, so it works alike on Linux and macOS.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from services.runtime import guard

PARENT_FD_VARIABLE = "ECHOMESH_PARENT_FD"
"""Environment variable that tells a child the number of the pipe from its parent."""

MAX_SOCKET_FOLDER_BYTES = 70
"""A unix socket path holds 103 bytes on macOS; this leaves 33 for the file name."""

_ORPHAN_POLL_S = 0.05


class Child:
    """A running child process in a session of its own, and our end of its pipe."""

    def __init__(self, popen: subprocess.Popen[bytes], write_fd: int) -> None:
        self._popen = popen
        self._write_fd: int | None = write_fd
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self._ended = threading.Event()
        threading.Thread(target=self._reap, name=f"reap-{popen.pid}", daemon=True).start()

    @property
    def pid(self) -> int:
        """Process id, which is also the id of the child's process group."""
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Exit status, negative for a signal, or None while it runs."""
        return self._popen.returncode if self._ended.is_set() else None

    def signal_group(self, signum: int) -> None:
        """Send a signal to the child and everything in its process group, if still there."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signum)

    def release(self) -> None:
        """Close our end of the pipe, which tells the child to end by itself."""
        with self._lock:
            if self._write_fd is not None:
                os.close(self._write_fd)
                self._write_fd = None

    async def wait(self) -> int:
        """Wait for the end of the child and return its exit status."""
        loop = asyncio.get_running_loop()
        done = asyncio.Event()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the waiting loop may be closed by now
                loop.call_soon_threadsafe(done.set)

        self._on_end(tell)
        try:
            await done.wait()
        finally:
            self._forget(tell)
        return self._popen.returncode

    async def stop(self, *, grace_s: float, signum: int = signal.SIGTERM) -> int:
        """Ask the child to end, and kill its group when it has not within `grace_s` seconds."""
        if self.returncode is None:
            self.signal_group(signum)
            self.signal_group(signal.SIGCONT)
        try:
            return await asyncio.wait_for(self.wait(), grace_s)
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """Kill the child's whole process group at once."""
        self.signal_group(signal.SIGKILL)
        return await self.wait()

    def _on_end(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if not self._ended.is_set():
                self._callbacks.append(callback)
                return
        callback()

    def _forget(self, callback: Callable[[], None]) -> None:
        with self._lock:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

    def _reap(self) -> None:
        self._popen.wait()
        self.signal_group(signal.SIGKILL)
        self.release()
        with self._lock:
            self._ended.set()
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[Any] | int | None = None,
) -> Child:
    """Start one of our own programs, which must call `end_with_parent` early.

    Args:
        argv: program and arguments; no shell is involved.
        env: the child's whole environment; this process's own when left out.
        cwd: folder to start in.
        output: where standard output and error go; inherited when left out.

    """
    read_fd, write_fd = os.pipe()
    try:
        popen = subprocess.Popen(
            list(argv),
            env={**(os.environ if env is None else env), PARENT_FD_VARIABLE: str(read_fd)},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            pass_fds=(read_fd,),
            start_new_session=True,
        )
    except BaseException:
        os.close(write_fd)
        raise
    finally:
        os.close(read_fd)
    return Child(popen, write_fd)


def spawn_guarded(
    argv: Sequence[str],
    *,
    stop_signal: int,
    grace_s: float,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    output: IO[Any] | int | None = None,
) -> Child:
    """Start a foreign program under `guard`, which ends it when this process ends.

    SIGTERM to the returned child makes the guard send `stop_signal` to the program.
    """
    read_fd, write_fd = os.pipe()
    prefix = [sys.executable, "-I", "-S", guard.__file__, str(read_fd)]
    try:
        popen = subprocess.Popen(
            [*prefix, str(int(stop_signal)), str(grace_s), *argv],
            env=env,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT if output is not None else None,
            pass_fds=(read_fd,),
            start_new_session=True,
        )
    except BaseException:
        os.close(write_fd)
        raise
    finally:
        os.close(read_fd)
    return Child(popen, write_fd)


def end_with_parent(*, grace_s: float) -> bool:
    """End this process when its parent does: SIGTERM to itself, then a hard exit.

    Call it once, early in `main`. Does nothing in a process that nobody supervises.

    Args:
        grace_s: seconds that an orderly stop may take; 0 exits at once.

    Returns:
        Whether a parent is being watched.

    """
    value = os.environ.pop(PARENT_FD_VARIABLE, None)
    if value is None:
        return False
    parent_fd = int(value)
    os.set_inheritable(parent_fd, False)
    watch = threading.Thread(
        target=_end_at_eof, args=(parent_fd, grace_s), name="parent-watch", daemon=True
    )
    watch.start()
    return True


def _end_at_eof(parent_fd: int, grace_s: float) -> None:
    while os.read(parent_fd, 64):
        pass
    if grace_s > 0:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
    os._exit(1)


def socket_folder(data_dir: Path) -> Path:
    """Return a private (0700) folder whose path is short enough for unix sockets.

    It is `<data>/run`, or for a deep data folder one under the system's temporary folder, named
    after this user and the data folder.

    Raises:
        PermissionError: somebody else owns the folder of that name.

    """
    inside = data_dir.resolve() / "run"
    if len(os.fsencode(inside)) <= MAX_SOCKET_FOLDER_BYTES:
        return private_folder(inside)
    return short_folder(data_dir)


def short_folder(data_dir: Path, uid: int | None = None) -> Path:
    """Return a private folder under the system's temporary folder, named after `data_dir`.

    `uid` is its owner where that is not this process's user.
    """
    digest = hashlib.sha256(os.fsencode(data_dir.resolve())).hexdigest()[:12]
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) > MAX_SOCKET_FOLDER_BYTES - 32:
        base = Path("/tmp")  # noqa: S108 - the folder inside is private and its owner is checked
    return private_folder(base / f"echomesh-{os.getuid() if uid is None else uid}-{digest}", uid)


def private_folder(folder: Path, uid: int | None = None) -> Path:
    """Create `folder` with mode 0700, or check that the one there belongs to us (or `uid`)."""
    owner = os.getuid() if uid is None else uid
    try:
        folder.mkdir(mode=0o700, parents=True)
        if owner != os.getuid():
            os.chown(folder, owner, -1)
    except FileExistsError:
        pass  # whose it is, is looked at below
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != owner:
        raise PermissionError(f"{folder} belongs to somebody else")
    folder.chmod(0o700)
    return folder


async def wait_until_gone(pid: int, *, timeout_s: float) -> bool:
    """Wait until no process has this id; False when it is still there after `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while is_alive(pid):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_ORPHAN_POLL_S)
    return True


def is_alive(pid: int) -> bool:
    """Whether a process with this id exists, ours or not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
