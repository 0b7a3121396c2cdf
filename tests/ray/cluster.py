"""What the tests do to processes of Ray, and what they see of them."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path


def processes(title: str) -> set[int]:
    """Return the processes of Ray whose title begins so, as `ray::Worker` does."""
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try:
            words = (place / "cmdline").read_bytes()
        except OSError:
            continue
        if words.startswith(title.encode()):
            found.add(int(place.name))
    return found


@contextmanager
def killing(title: str, count: Callable[[], int], *at: int) -> Iterator[set[int]]:
    """Kill a process with such a title each time that *count* gets so far, without a warning; yield those killed."""
    killed: set[int] = set()
    over = threading.Event()

    def wait() -> None:
        for goal in at:
            while count() < goal or not (alive := processes(title) - killed):
                if over.wait(0.01):
                    return
            victim = min(alive)
            os.kill(victim, signal.SIGKILL)
            killed.add(victim)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield killed
    finally:
        over.set()
        thread.join()
    assert len(killed) == len(at), "everything was over before a worker could be killed"


def until(holds: Callable[[], bool], seconds: float = 30.0) -> None:
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit
        time.sleep(0.02)


def most_in_a_window(seen: Sequence[float], seconds: float) -> int:
    """Return how many of these times lie in one window of that length, at most."""
    return max((sum(begin <= each < begin + seconds - 1e-9 for each in seen) for begin in seen), default=0)
