"""The README and the guides that lie beside the code: where they are, and the code that stands in them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
GUIDES = (README, *sorted((ROOT / "agentruns").rglob("README.md")))


def name_of(guide: Path) -> str:
    """Return how a guide is called in the names of tests: its path from the root of the repository."""
    return guide.relative_to(ROOT).as_posix()


def blocks_of(guide: Path, language: str = "python") -> Mapping[str, str]:
    """Return the code of one language in a guide, by heading and number: `In one screen (1)`."""
    sections = re.findall(
        r"^##? (.*?)\n(.*?)(?=^##? |\Z)", _without_code_comments(guide.read_text()), re.MULTILINE | re.DOTALL
    )
    return {
        f"{heading.strip()} ({number})": block.replace(_HASH, "#")
        for heading, section in sections
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL), 1)
    }


def links_of(guide: Path) -> Iterator[str]:
    """Yield what the links of a guide point at."""
    yield from re.findall(r"\]\(([^)]+)\)", guide.read_text())


def anchors_of(guide: Path) -> set[str]:
    """Return the anchors of a guide's headings, as hosts of repositories make them."""
    headings = re.findall(r"^#+ (.*)$", _without_code_comments(guide.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


_HASH = "\0"


def _without_code_comments(text: str) -> str:
    """Return a text in which no line of code looks like a heading."""
    return re.sub(r"^```.*?^```$", lambda block: block[0].replace("#", _HASH), text, flags=re.MULTILINE | re.DOTALL)
