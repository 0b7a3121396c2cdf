"""
Two machines for plays: this one, where the database and the vendor are, and a network namespace, for Linux and root.

Two cables lead to the second: one to the database, which `cut` cuts, and one to everything else, which stays whole: who
cannot reach the database may still reach the vendor, and browsers still reach whoever it is.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from attrs import frozen

DATABASE: Final = "10.77.1.1"
"""The address of the database, as seen from the second machine."""

WORLD: Final = "10.77.2.1"
"""The address of the vendor, for both."""

_ENDS: Final = {"d": (DATABASE, "10.77.1.2"), "w": (WORLD, "10.77.2.2")}
"""Of each cable the address here, and that of the second machine."""


@frozen
class SecondMachine:
    """A network namespace: `name` is its own, `cable` the interface here that leads to the database."""

    name: str
    cable: str

    @property
    def host(self) -> str:
        """Return its own address, for browsers."""
        return _ENDS["w"][1]

    @property
    def within(self) -> tuple[str, ...]:
        """Return how a command begins that is run there."""
        return ("ip", "netns", "exec", self.name)

    def cut(self) -> None:
        """Cut the cable to the database: nothing is refused, nothing arrives."""
        _ip("link", "set", "dev", self.cable, "down")

    def mend(self) -> None:
        """Join it again."""
        _ip("link", "set", "dev", self.cable, "up")


@contextmanager
def second_machine() -> Iterator[SecondMachine]:
    """Set up the machine and its cables, and take them away."""
    name = f"agentruns{os.getpid()}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        for cable, (here, there) in _ENDS.items():
            interface = f"{cable}{os.getpid()}"
            _ip("link", "add", "name", interface, "type", "veth", "peer", "name", cable, "netns", name)
            _ip("addr", "add", f"{here}/24", "dev", interface)
            _ip("link", "set", "dev", interface, "up")
            _ip("-n", name, "addr", "add", f"{there}/24", "dev", cable)
            _ip("-n", name, "link", "set", "dev", cable, "up")
        yield SecondMachine(name, f"d{os.getpid()}")
    finally:
        _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)
