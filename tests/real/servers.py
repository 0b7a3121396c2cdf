"""A real server in an environment of its own: installed once, started on a port of this machine, stopped or killed."""

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Final, NoReturn
from urllib.error import URLError
from urllib.request import urlopen

from attrs import define, field, frozen

HOME: Final = "AGENTRUNS_REAL"
"""The variable that names the folder of the environments; `tox -e real` sets it."""

LONG: Final = "AGENTRUNS_REAL_LONG"
"""The variable that has played, by hand, what takes too long for a gate: `AGENTRUNS_REAL_LONG=1 tox -e real`."""

_INSTALL_SECONDS: Final = 240.0
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 10.0


def told() -> Path:
    """Return the file of what the session says at its end, one line each."""
    return Path(os.environ[HOME]).resolve() / "told.txt"


def tell(line: str) -> None:
    """Say a line at the end of the session."""
    with told().open("a") as file:
        file.write(f"{line}\n")


class MissingServerError(Exception):
    """A server cannot be installed here."""


@frozen
class Package:
    """
    What a server is made of: its *requirements*, as pip reads them, each with its version.

    It runs on this Python, or on the one of the version *python*, such as "3.12".
    """

    name: str
    requirements: Sequence[str]
    python: str = sys.executable

    def install(self) -> Path:
        """
        Return the folder of the programs of an environment that has it, which is made once and kept.

        Raise `MissingServerError` where it cannot be installed.
        """
        wanted = "\n".join([sys.version, self.python, *self.requirements])
        mark = hashlib.blake2b(wanted.encode(), digest_size=6).hexdigest()
        place = told().with_name(f"{self.name}-{mark}")
        if not (place / "installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            uv = shutil.which("uv") or self._miss("uv is not installed, which makes its environment")
            self._run(uv, "venv", "--quiet", "--no-python-downloads", "--python", self.python, str(place))
            self._run(uv, "pip", "install", "--quiet", "--python", str(place / "bin" / "python"), *self.requirements)
            (place / "installed").write_text(wanted)
        tell(f"{self.name}: {', '.join(self.requirements)}")
        return place / "bin"

    def _run(self, *words: str) -> None:
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            self._miss(f"it was not installed within {_INSTALL_SECONDS:g} s")
        if done.returncode:
            self._miss(f"it cannot be installed: {' '.join(done.stderr.split())[-500:]}")

    def _miss(self, why: str) -> NoReturn:
        raise MissingServerError(f"{self.name.upper()}: {why}")


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@define
class Server:
    """
    A server that *command*, a function of its port, starts in *folder*; `url` is where it listens.

    It is up once the path *ready* is answered. What it prints is in `log`. It can be started again, on the same port.
    *beside* runs what it needs, as long as it is used, and gives more variables for it.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    folder: Path
    ready: str
    variables: Mapping[str, str] = field(factory=dict)
    port: int = field(factory=free_port)
    beside: Callable[[], AbstractContextManager[Mapping[str, str]]] = lambda: nullcontext({})
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Return scheme, host and port."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """Return the file of what it has printed."""
        return self.folder / f"{self.name}.log"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command(self.port),
                cwd=self.folder,
                env={**os.environ, **self.variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        until = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"{self.name} does not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urlopen(self.url + self.ready, timeout=2):
                return True
        except (URLError, OSError):
            return False

    def stop(self) -> None:
        """Ask it to end, as who deploys it does; kill it if it does not."""
        self._end(signal.SIGTERM, signal.SIGKILL)

    def kill(self) -> None:
        """Kill it: what it has not kept is gone."""
        self._end(signal.SIGKILL)

    def _end(self, *signals: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        for each in signals:
            if process.poll() is None:
                os.killpg(process.pid, each)
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                continue
            return


@contextmanager
def running(server: Server) -> Iterator[Server]:
    """Start a server and what it needs, and stop them at the end."""
    with server.beside() as variables:
        server.variables = {**server.variables, **variables}
        server.start()
        try:
            yield server
        finally:
            server.stop()
