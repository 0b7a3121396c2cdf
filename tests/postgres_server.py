"""
A PostgreSQL server of the tests' own, in a temporary folder: started, stopped, killed, and cut off by a proxy.

PostgreSQL refuses to run as root, so root runs it as another user. A process of its own clears away what is left when
the tests are over, however they end. Where there is none on the machine, `needed` skips,
and says so; where `AGENTRUNS_POSTGRES=required` is set, as in CI, it fails instead.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_PLACES = ("/usr/lib/postgresql/*/bin", "/usr/local/pgsql/bin", "/opt/homebrew/opt/postgresql*/bin")
_START_SECONDS = 60.0


def programs() -> Path | None:
    """Return the folder of the server's programs, None where there is none."""
    for place in _PLACES:
        root = Path("/")
        for folder in sorted(root.glob(place.lstrip("/")), reverse=True):
            if (folder / "initdb").exists() and (folder / "postgres").exists():
                return folder
    found = shutil.which("initdb")
    return Path(found).resolve().parent if found else None


def needed() -> Path:
    """Return the folder of the server's programs, or skip the test."""
    found = programs()
    if found is None:
        why = "PostgreSQL is not installed: `apt-get install postgresql` brings what these tests start"
        if os.environ.get("AGENTRUNS_POSTGRES") == "required":
            pytest.fail(why)
        pytest.skip(why)
    pytest.importorskip("psycopg", reason="psycopg is not installed: `pip install 'agentruns[postgres]'`")
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """One server; *folder* is its own, and must be reachable for everybody."""

    def __init__(self, folder: Path, binaries: Path, *, everywhere: bool = False) -> None:
        self._data = folder / "data"
        self._binaries = binaries
        self._user = _unprivileged()
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "log"
        self._everywhere = everywhere
        self.port = free_port()
        if self._user is not None:
            os.chown(folder, pwd.getpwnam(self._user).pw_uid, pwd.getpwnam(self._user).pw_gid)
        options = ["--no-sync", "--auth=trust", "--username=agentruns", "--encoding=UTF8", "--locale=C"]
        self._run("initdb", *options, "--pgdata", str(self._data))
        if everywhere:
            with (self._data / "pg_hba.conf").open("a") as allowed:
                allowed.write("host all all 0.0.0.0/0 trust\n")

    def url(self, *, host: str = "127.0.0.1", port: int | None = None, **options: object) -> str:
        """Return the URL of a journal: *options* are `schema`, `prefix` and `lease`."""
        said = "&".join(f"{name}={value}" for name, value in options.items())
        return f"postgresql://agentruns:not-to-be-shown@{host}:{port or self.port}/postgres?{said}"

    def start(self) -> None:
        """Start, and return when it answers."""
        listens = "*" if self._everywhere else "127.0.0.1"
        options = ["fsync=off", f"listen_addresses={listens}", "unix_socket_directories=", "max_connections=200"]
        options.append("dynamic_shared_memory_type=mmap")  # so that nothing is left outside the folder
        command = [str(self._binaries / "postgres"), "-D", str(self._data), "-p", str(self.port)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                command + [word for option in options for word in ("-c", option)],
                stdout=log, stderr=log, user=self._user, cwd=self._data, env=_environment(),
            )  # fmt: skip
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"PostgreSQL did not start: {self._log.read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop: by SIGINT the connections are ended, by SIGQUIT it is as after a crash."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(how)
            process.wait(30)

    def _answers(self) -> bool:
        import psycopg

        try:
            psycopg.connect(self.url().partition("?")[0], connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, name: str, *words: str) -> None:
        subprocess.run(
            [str(self._binaries / name), *words],
            check=True, capture_output=True, user=self._user, cwd=self._data.parent, env=_environment(),
        )  # fmt: skip


_CLEAR_AWAY = """
import os, pathlib, shutil, signal, sys, time
sys.stdin.read()  # until whoever started this has closed it, or is no more
folder = pathlib.Path(sys.argv[1])
try:
    server = int((folder / "data" / "postmaster.pid").read_text().split()[0])
    while True:
        os.kill(server, signal.SIGQUIT)
        time.sleep(0.05)
except (OSError, ValueError, IndexError):
    pass  # it has stopped, or never ran
shutil.rmtree(folder, ignore_errors=True)
"""


@contextlib.contextmanager
def server(*, everywhere: bool = False) -> Iterator[Server]:
    """Run a server of its own, which is reached from this machine, or from *everywhere*."""
    binaries = needed()
    folder = Path(tempfile.mkdtemp(prefix="agentruns-postgres-"))
    clearing = subprocess.Popen(
        [sys.executable, "-c", _CLEAR_AWAY, str(folder)], stdin=subprocess.PIPE, start_new_session=True
    )
    try:
        folder.chmod(0o755)
        made = Server(folder, binaries, everywhere=everywhere)
        made.start()
        try:
            yield made
        finally:
            made.stop()
    finally:
        clearing.communicate()


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no user to run it as")


def _environment() -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C", "TZ": "UTC"}


class Proxy:
    """
    Stands between a client and the server, and can fall silent, as a network that is cut off does.

    `cut` lets nothing through any more, and closes nothing; `drop` closes what is open; `mend` lets new ones through.
    `lose_next` drops a connection when the client sends a text, before or after the server gets it: no answer comes.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        self._is_cut = self._is_closed = False
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._losing: tuple[bytes, bool] | None = None
        self.lost = self.connections = 0
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    def cut(self) -> None:
        self._is_cut = True

    def drop(self) -> None:
        for pair in tuple(self._pairs):
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def lose_next(self, text: bytes, *, arrives: bool) -> None:
        self._losing = (text, arrives)

    def mend(self) -> None:
        self.drop()
        self._is_cut = False

    def close(self) -> None:
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self.mend()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._is_closed:
            with contextlib.suppress(OSError):
                near, _ = self._listening.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self._target))
                except OSError:
                    near.close()
                    continue
                self._pairs.add((near, far))
                self.connections += 1
                self._threads.append(threading.Thread(target=self._carry, args=(near, far), daemon=True))
                self._threads[-1].start()

    def _carry(self, near: socket.socket, far: socket.socket) -> None:
        with near, far, contextlib.suppress(OSError):
            while not self._is_closed:
                for source in select.select([near, far], [], [], 0.05)[0]:
                    data = source.recv(65536)
                    while self._is_cut and not self._is_closed:
                        time.sleep(0.01)
                    if source is near and self._losing is not None and self._losing[0] in data:
                        arrives, self._losing = self._losing[1], None
                        if arrives:
                            far.sendall(data)
                            far.recv(65536)  # of which the client hears nothing
                        self.lost += 1
                        data = b""
                    if not data:
                        self._pairs.discard((near, far))
                        return
                    (far if source is near else near).sendall(data)
        self._pairs.discard((near, far))
