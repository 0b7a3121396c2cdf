"""A vendor in a package of its own: built here, installed by pip where nothing else is, and used by its name alone."""

import ensurepip
import json
import os
import re
import signal
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from urllib.request import HTTPCookieProcessor, build_opener

import pytest
from attrs import frozen

from tests.conformance import acme
from tests.guides import ROOT

pytestmark = pytest.mark.timeout(240)

NAME = "acme_agentruns"
INFO = f"{NAME}-0.1.dist-info"

TESTS = f"""
from agentruns.testing import Conformance
from {NAME} import AcmeCase

class TestAcme(AcmeCase, Conformance):
    pass
"""

LOOK = """
import sys
from agentruns import Run
run = Run.from_json(sys.stdin.readline())
print(type(run.detail).__module__, type(run.detail).__name__, run.detail.answer)
"""


def built(folder: Path) -> Path:
    """Build the wheel by hand: the dialect, its emulator and its case, offered by an entry point."""
    files = {
        f"{NAME}/__init__.py": Path(acme.__file__).read_text(),
        f"{INFO}/METADATA": f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 0.1\n",
        f"{INFO}/WHEEL": "Wheel-Version: 1.0\nGenerator: by hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{INFO}/entry_points.txt": f"[agentruns.dialects]\nacme = {NAME}\nbroken = {NAME}.nothing\n",
    }
    files[f"{INFO}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{INFO}/RECORD"])
    wheel = folder / f"{NAME}-0.1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return wheel


@frozen
class Place:
    """An environment with the package in it, and where its commands are run."""

    python: Path
    folder: Path
    variables: Mapping[str, str]

    def popen(self, *argv: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.python), *argv],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            env={**os.environ, **self.variables},
        )

    def run(self, *argv: str, given: str = "") -> str:
        process = self.popen(*argv)
        told, wrong = process.communicate(given, timeout=200)
        assert process.returncode == 0, told + wrong
        return told

    def agentruns(self, *argv: str) -> str:
        return self.run("-m", "agentruns", *argv)


def environment(folder: Path) -> Place:
    """Make an environment of nothing but the package; what that needs is lent by the one of these tests."""
    bundled = sorted((Path(ensurepip.__file__).parent / "_bundled").glob("pip-*.whl"))
    venv.create(folder / "env", with_pip=not bundled)
    python = folder / "env" / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    pip = [f"{bundled[0]}/pip"] if bundled else ["-m", "pip"]
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    subprocess.run([str(python), *pip, "install", *options, str(built(folder))], check=True, timeout=100)
    (site,) = (folder / "env").rglob("site-packages")
    lent = "; ".join(f"site.addsitedir({path!r})" for path in sys.path if path.endswith("site-packages"))
    (site / "lent.pth").write_text(f"import site; {lent}\n")
    return Place(python, folder, {"PYTHONPATH": str(ROOT)})


@contextmanager
def stopped(process: "subprocess.Popen[str]") -> Iterator[str]:
    """Give the first line that a process prints, and stop it by Ctrl-C in the end."""
    with process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline()
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate()


def is_a_plugin() -> bool:
    return "agentruns.testing.plugin" in [point.value for point in entry_points(group="pytest11")]


def test_a_vendor_in_a_package_is_tested_by_the_kit_and_used_by_its_name(tmp_path: Path) -> None:
    place = environment(tmp_path)
    (tmp_path / "test_acme.py").write_text(TESTS)
    plugin = () if is_a_plugin() else ("-p", "agentruns.testing.plugin")
    kit = place.popen("-m", "pytest", "-q", "-p", "no:cacheprovider", *plugin, "test_acme.py")
    with kit, stopped(place.popen("-m", "agentruns", "emulate", "acme", "--json")) as line:
        served = json.loads(line)
        known = {"ACME_BASE_URL": served["base_url"], "ACME_TOKEN": served["token"]}
        used = Place(place.python, tmp_path, {**place.variables, **known})
        is_listed_beside_what_is_broken(used)
        runs_and_is_read_without_a_client(used)
        is_kept_in_a_journal_which_the_console_shows(used)
        told, wrong = kit.communicate(timeout=150)
    assert kit.returncode == 0, told + wrong
    shown = re.search(r"^acme: (\d+) shown, 0 failed, [34] not played$", told, re.MULTILINE)
    assert shown, told
    assert int(shown[1]) > 35
    assert "the dialect has no `events`" in told


def is_listed_beside_what_is_broken(place: Place) -> None:
    told, wrong = place.popen("-m", "agentruns", "vendors").communicate(timeout=60)

    assert f"from {NAME} ({NAME}); token in ACME_TOKEN; has resume, cancel, page" in told.replace("\n ", "")
    assert "narrative" in told
    assert f"the dialect 'broken' of the package {NAME} cannot be imported: ModuleNotFoundError" in wrong


def runs_and_is_read_without_a_client(place: Place) -> None:
    lines = place.agentruns("run", "acme", "--project", "p1", "--text", "Sort the post.", "--json").splitlines()

    assert json.loads(lines[-1])["status"] == "completed"
    assert place.run("-c", LOOK, given=lines[-1] + "\n") == f"{NAME} AcmeJob You said: Sort the post.\n"


def is_kept_in_a_journal_which_the_console_shows(place: Place) -> None:
    (place.folder / "rows.csv").write_text("project,text\np1,Sort the post.\np2,Water the plants.\n")
    place.agentruns("batch", "acme", "rows.csv", "-o", "done.jsonl", "--quiet")

    rows = [json.loads(line) for line in (place.folder / "done.jsonl").read_text().splitlines()]
    assert sorted(row["output"] for row in rows) == ["You said: Sort the post.", "You said: Water the plants."]
    assert {row["vendor"] for row in rows} == {"acme"}
    with stopped(place.popen("-m", "agentruns", "console", "done.jsonl.journal")) as line:
        browser = build_opener(HTTPCookieProcessor())
        with browser.open(line.split()[-1], timeout=60) as answer:
            page = answer.read().decode()
    assert page.count("acme") >= 2
