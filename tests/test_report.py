"""`agentruns report`: a page that needs nothing beside itself, in which whatever the vendor said is only text."""

import json
import re
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from agentruns import ConfigurationError
from agentruns.cli import commands, report

pytest.importorskip("matplotlib")

EVIL = '<script>alert("$x$")</script>&<img src=x onerror=y>'


def line(number: int, status: str = "completed", seconds: float = 1.0, **changes: Any) -> dict[str, Any]:
    return {
        "key": f"{number}",
        "line": number,
        "status": status,
        "output": "x",
        "failure": None if status == "completed" else {"type": "JobFailed", "message": "no"},
        "usage": {"input_tokens": 100, "output_tokens": 10},
        "cost": None,
        "started": f"2026-06-02T08:15:{number % 60:02}.000Z",
        "ended": f"2026-06-02T08:16:{number % 60:02}.500Z",
        "durations": {"total": seconds, "run": None},
        "attempts": 1,
        "actions": [],
        "run": {"id": f"run-{number}", "parent": "c"},
        "vendor": "narrative",
        **changes,
    }


def output(folder: Path, *lines: dict[str, Any]) -> Path:
    path = folder / "out.jsonl"
    path.write_text("".join(json.dumps(each) + "\n" for each in lines))
    return path


class Page(HTMLParser):
    """The elements of a page, with their attributes, and its texts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.links: list[str] = []
        self.texts: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            if name in {"src", "href", "xlink:href"} or name.startswith("on"):
                self.links.append(value or name)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def made(path: Path, *words: str) -> Page:
    assert commands.main(["report", str(path), *words]) == 0
    return Page(path.with_suffix(".html").read_text(encoding="utf-8"))


def test_the_page_shows_counts_figures_the_slowest_and_the_failed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [line(n, seconds=n) for n in range(1, 40)]
    path = output(tmp_path, *lines, line(40, "failed"), line(41, "invalid", usage=None, run=None), line(42, cost=0.25))
    page = made(path, "--png", str(tmp_path / "out.png"))

    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert page.elements.count("svg") == 1
    for text in ("Runs over time", "How long they took", "How they ended", "Tokens", "Cost", "Not completed (2)"):
        assert text in page.texts
    assert "JobFailed: no" in page.texts
    assert "4,100 in, 410 out (known for 41 items)" in page.texts
    slowest = page.texts[page.texts.index("Slowest") :]
    assert slowest.index("run-39") < slowest.index("run-38")
    assert "run-1" not in slowest
    assert "out.html" in capsys.readouterr().out


def test_what_the_vendor_said_is_only_text_and_nothing_is_loaded(tmp_path: Path) -> None:
    evil = line(1, EVIL, key=EVIL, failure={"type": EVIL, "message": EVIL}, run={"id": EVIL, "parent": ""})
    page = made(output(tmp_path, evil, line(2)))

    assert not {"script", "img", "iframe", "object", "link"} & set(page.elements)
    assert EVIL in page.texts
    assert all(link.startswith("#") for link in page.links)
    html = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_the_last_line_of_an_item_counts(tmp_path: Path) -> None:
    items = report.read(output(tmp_path, line(1, "failed"), line(2), line(1, attempts=2)))
    assert [(item.key, item.status, item.attempts) for item in items] == [("1", "completed", 2), ("2", "completed", 1)]


def test_the_same_output_makes_the_same_page(tmp_path: Path) -> None:
    path = output(tmp_path, line(1), line(2, "failed"))
    made(path)
    first = (tmp_path / "out.html").read_bytes()
    made(path)
    assert (tmp_path / "out.html").read_bytes() == first


@pytest.mark.parametrize(
    "lines",
    [
        [line(1, "invalid", usage=None, run=None)],
        [line(1, seconds=0.0)],
        [line(1, seconds=0.5)],
        [line(n, seconds=10.0**n) for n in range(5)],
        [line(n % 60, key=str(n)) for n in range(700)],
    ],
    ids=["nothing was run", "no time", "one", "factors", "many"],
)
def test_any_output_can_be_drawn(lines: list[dict[str, Any]], tmp_path: Path) -> None:
    assert made(output(tmp_path, *lines)).elements.count("svg") == 1


def test_long_texts_and_long_lists_are_cut(tmp_path: Path) -> None:
    long = {"type": "Boom", "message": "x" * 5000}
    page = made(output(tmp_path, *(line(n, "failed", key=str(n), failure=long) for n in range(30))))
    assert "5 more are in the output." in page.texts
    assert max(len(text) for text in page.texts if text.startswith("Boom")) <= 601


@pytest.mark.parametrize(
    ("content", "words", "text"),
    [
        ("", [], "is empty"),
        ("[]\n", [], "is not the output"),
        (json.dumps({"key": "1", "status": "x", "attempts": 1, "durations": {}}) + "\n", [], "did not write"),
        (json.dumps(line(1)) + "\n", ["-o", "nowhere/page.html"], "cannot be written"),
        (json.dumps(line(1)) + "\n", ["-o", "out.jsonl"], "is the output itself"),
    ],
)
def test_what_cannot_be_reported_exits_with_2_and_says_why(
    content: str,
    words: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("out.jsonl").write_text(content)
    assert commands.main(["report", "out.jsonl", *words]) == 2
    assert text in capsys.readouterr().err
    assert Path("out.jsonl").read_text() == content


def test_no_file_at_all_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert commands.main(["report", "nowhere.jsonl"]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_without_its_extra_it_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ConfigurationError, match=r"agentruns\[report\]"):
        report.draw(report.read(output(tmp_path, line(1))))


def test_failures_of_one_kind_are_counted_together(tmp_path: Path) -> None:
    def failed(number: int, message: str) -> dict[str, Any]:
        return line(number, "failed", failure={"type": "JobFailed", "message": message})

    many = [failed(n, f"run 9a4e1f52-6b7c-4d0f-8f3e-0d2c5b1a7e{n:02} lost row {n}") for n in range(40)]
    page = made(output(tmp_path, *many, failed(40, "another"), line(41)))
    place = page.texts.index("items", page.texts.index("Not completed (41)"))
    assert page.texts[place : place + 9] == [
        *("items", "status", "error, such as"),
        *("40", "failed", "JobFailed: run 9a4e1f52-6b7c-4d0f-8f3e-0d2c5b1a7e00 lost row 0"),
        *("1", "failed", "JobFailed: another"),
    ]


def test_tokens_and_cost_are_those_of_every_attempt(tmp_path: Path) -> None:
    earlier = {"input_tokens": 1000, "output_tokens": None, "cost": 0.5}
    page = made(output(tmp_path, line(1, attempts=3, earlier=earlier, cost=0.25), line(2)))
    assert "1,200 in, 20 out (known for 2 items)" in page.texts
    assert "0.75 (known for 1 items)" in page.texts
    assert "1; tokens and cost are those of all 4 attempts" in page.texts
