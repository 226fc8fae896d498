"""Running a command in several processes that know each other, and ending them all."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

__all__ = ["run_workers"]

LAST_LINES = 12


def run_workers(
    command: Sequence[str], number: int, *, timeout: float = 300
) -> list[str]:
    """Run a Python command in several processes of this machine, which find each other.

    Each gets a TF_CONFIG with free ports of 127.0.0.1, no proxies and no GPU. None outlives this.

    Args:
        command: arguments of Python, as `["train.py", "--fast"]` or `["-c", source]`.
        number: how many processes.
        timeout: seconds that they may take in all.

    Returns:
        What each wrote to stdout, a list of strings.

    Raises:
        ValueError: when command is a string, or number is not a positive integer.
        RuntimeError: when a worker failed: which, and its last lines.
        TimeoutError: when time is up: who was still running, and their last lines.

    >>> run_workers(["-c", "print('hello', end='')"], 2)
    ['hello', 'hello']
    """
    if isinstance(command, str) or not isinstance(number, int) or number < 1:
        raise ValueError(
            "command must be a list of arguments, and number a positive integer; got "
            f"{command!r} and {number!r}. Try run_workers(['train.py'], 2)."
        )
    with contextlib.ExitStack() as stack:
        workers = [
            stack.enter_context(_worker(command, environment))
            for environment in _environments(number)
        ]
        _wait(workers, timeout)
        return [_read(out) for _, out, _ in workers]


def _environments(number):
    """Yield the environment of each worker."""
    with contextlib.ExitStack() as held:  # all at once, so that no port comes twice
        sockets = [
            held.enter_context(socket.create_server(("127.0.0.1", 0)))
            for _ in range(number)
        ]
        addresses = [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]
    kept = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    for place in range(number):
        task = {"type": "worker", "index": place}
        yield {
            "TF_CPP_MIN_LOG_LEVEL": "3",
            **kept,
            "CUDA_VISIBLE_DEVICES": "-1",
            "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task}),
        }


@contextlib.contextmanager
def _worker(command, environment):
    """Start a process and yield it with the files of its stdout and stderr; kill it in the end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(
            [sys.executable, *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=environment,
        )
        try:
            yield process, out, err
        finally:
            process.kill()  # TensorFlow waiting for a peer is deaf to anything less
            process.wait()


def _wait(workers, timeout):
    """Return when all have ended well; raise at the first failure, or when time is up."""
    deadline, running = time.monotonic() + timeout, True
    while running:
        time.sleep(0.05)
        codes = [process.poll() for process, _, _ in workers]
        _refuse_failure(workers, codes)
        running = [place for place, code in enumerate(codes) if code is None]
        if running and time.monotonic() > deadline:
            raise TimeoutError(
                f"{len(workers)} workers must end in {timeout} s; still running, and now "
                f"stopped: {running}. Their last lines:\n{_last_lines(workers, running)}"
            )


def _refuse_failure(workers, codes):
    for place, code in enumerate(codes):
        if code:
            raise RuntimeError(
                f"worker {place} of {len(workers)} ended with code {code}; the others were "
                f"stopped. Its last lines:\n{_last_lines(workers, [place])}"
            )


def _last_lines(workers, places):
    """Return what some workers wrote last, each line behind its worker's number."""
    lines = []
    for place in places:
        _, out, err = workers[place]
        text = (_read(out) + _read(err)).splitlines()[-LAST_LINES:]
        lines += [f"[{place}] {line}" for line in text]
    return "\n".join(lines) or "(they wrote nothing)"


def _read(file):
    file.seek(0)
    return file.read()
