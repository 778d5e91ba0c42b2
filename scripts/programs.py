"""Programs that are run and measured: for scripts/gpu-check and scripts/bench."""

import contextlib
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading

RUNNING: set[subprocess.Popen] = set()
# Whether signals wait, and those that do: see `held`.
HELD, LATE = threading.Event(), []


class TimedOut(RuntimeError):
    """A program has not ended in time. It has been killed, and what it printed until then is `out` and `error`."""

    def __init__(self, limit_s: float, out: str, error: str) -> None:
        super().__init__(f"not done after {limit_s:.0f} s")
        self.out, self.error = out, error


def run(line: list, limit_s: float, env: dict | None = None, cwd: pathlib.Path | None = None) -> subprocess.CompletedProcess:
    """Runs a program to its end, or raises TimedOut. It has a session of its own: whatever ends it early ends all that it has started, too,
    which would go on beside what is measured next."""
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    process = None
    try:
        with held():
            process = subprocess.Popen(line, env=env, cwd=cwd, start_new_session=True, **pipes)
            RUNNING.add(process)
        out, error = process.communicate(timeout=limit_s)
    except subprocess.TimeoutExpired as late:
        raise TimedOut(limit_s, *end(process)) from late
    except BaseException:
        if process:
            end(process)
        raise
    finally:
        RUNNING.discard(process)
    return subprocess.CompletedProcess(line, process.returncode, out, error)


def end(process: subprocess.Popen) -> tuple[str, str]:
    """Ends a program and its session: asks first, since it may have programs in sessions of their own to end. What it has printed."""
    printed = "", ""
    for number, wait_s in ((signal.SIGTERM, 5), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired, ValueError):  # a driver does not let go of it; another thread has read it
            printed = process.communicate(timeout=wait_s)
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return printed


def end_all() -> None:
    """Ends what other threads run."""
    for process in list(RUNNING):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def leave(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    sys.exit(128 + number)


@contextlib.contextmanager
def held():
    """Signals of `take_along` wait meanwhile: a program that runs before this process knows of it would be left behind."""
    if threading.current_thread() is not threading.main_thread():
        yield  # where no signal is heard
        return
    HELD.set()
    try:
        yield
    finally:
        HELD.clear()
        if LATE:
            leave(LATE.pop())


def take_along() -> None:
    """Lets a signal that ends this process end what it runs, too."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda number, _: LATE.append(number) if HELD.is_set() else leave(number))


def reason_of(done: subprocess.CompletedProcess) -> str:
    """The line that says why a program failed: an error of kiln's, which advice may follow, a panic with its message, or the last line."""
    lines = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
    for at, line in enumerate(lines):
        if line.startswith("error: "):
            return line
        if " panicked at " in line:
            return " ".join(lines[at : at + 2])
    return lines[-1]


def pace(epoch_seconds: list[float]) -> float:
    """Seconds of an epoch: the median of those after the first, which holds what is done once, or of the one that there is."""
    return statistics.median(epoch_seconds[1:] or epoch_seconds)
