"""
What went wrong, in the words of a shell.

The library tells a caller in Python what helps: `token=`, `client.stream(...)`. Whoever has typed a command has
options, variables and other commands instead. The library's texts stay as they are; what is Python in them is said anew
here.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Final

import attrs

from agentruns import errors
from agentruns.dialects import NAMES, load

_HINTS: Final[dict[type[errors.AgentRunsError], tuple[str, str]]] = {
    errors.RateLimitedError: (
        "Wait as long as the answer asks, then try again",
        "Send less (--budget, --limit), or wait as long as the answer asks",
    ),
    errors.ActionRequiredError: (
        "Give --tools with a handler for each action",
        "Give --tools with a handler for each action, or answer in `agentruns console JOURNAL`",
    ),
    errors.TooManyResumesError: (
        "Watching it again goes on answering",
        "The same call goes on answering",
    ),
    errors.StalledError: (
        "It may still be going on at the vendor: watch it again",
        "It may still be going on at the vendor: the same call follows it",
    ),
    errors.ToolOutcomeUnknownError: (
        "Find out what the handler did before you let it answer",
        "Find out what the handler did, then answer in `agentruns console JOURNAL`",
    ),
    errors.DeadlineExceededError: (
        "The run goes on at the vendor: watch it again with `agentruns watch`, or allow more --timeout",
        "The run goes on at the vendor: the same call follows it; --timeout allows more",
    ),
}
"""What helps, by the error whose `hint` tells it in Python: for one run, and for a batch."""

_UNSEEN: Final = "start the same origin again where the vendor has a key for it, else look at the vendor first"
_UNSEEN_HERE: Final = (
    "the same command is safe if you gave the vendor a key of your own, else look at the vendor first",
    "the same call finds it by the journal, or by a key of the vendor; without either, look at the vendor first",
)

TABLE: Final[tuple[tuple[str, str], ...]] = (
    (r"pass `token=`, or set the environment variable", "set the environment variable"),
    (r"Use base_url='([^']*)'", r"Use --base-url \1"),
    (r"pass `insecure=True`", "pass --insecure"),
    (r"`base_url`", "--base-url"),
    (r"\bbase_url\b", "the base URL"),
    (
        r"the agent, the parent of its runs, is ''; it must be a text that is not empty",
        "runs are listed by their agent; name it by --parent AGENT_ID",
    ),
    (r"; pass RunRef\(id, agent_id\), or the Run itself", "; name it by --parent AGENT_ID"),
    (r"with its agent: RunRef\([^()]*, agent_id\)", "with its agent; name it by --parent AGENT_ID"),
    (
        r" and stands beside it in `list_runs\(agent_id\)`: RunRef\(id, agent_id\)",
        "; `agentruns list VENDOR --parent AGENT_ID` shows it",
    ),
    (r"Pass `Dispatch\(\.\.\., trigger_id=\.\.\.\)` with", "Give --trigger-id with"),
    (r"`client\.stream\(RunRef\(id, '([^']*)'\)\)`", r"`agentruns watch VENDOR ID --parent \1`"),
    (r" `client\.stream\(RunRef\(id, parent\), key=.*?\)` goes on with a run that you know to be its own;", ""),
    (r"start it under another key", "give the row another key"),
    (
        r"Use another key for this, or pass the same origin to go on with that",
        "Give the row another key, or let it ask for the same as before",
    ),
    (r"Mend it with `text\.encode\([^`]*`", "Write it in UTF-8"),
    (r", such\s+as str\(uuid\.uuid4\(\)\)", ""),
    (r"stands where Prompt takes a list; put it into one", "stands where a list is needed; write it as a JSON list"),
    (r"go on with the same key", "make the same call again"),
    (r"; allow more with `connect\(\.\.\., max_body=\)`", ""),
    (r"; open another with `async with connect\(\.\.\.\)`", ""),
    (r"\bRunRef\.id\b", "ID"),
    (r"\bRunRef\.parent\b", "--parent"),
    (r"\bOptions\.timeout\b", "--timeout"),
)
"""What the library says in Python, as regular expressions, and what is said instead; VENDOR is that of the command."""


def of(error: Exception, wanted: argparse.Namespace) -> str:
    """Return what an error tells whoever has typed the command that *wanted* describes."""
    text = str(error)
    if not isinstance(error, errors.AgentRunsError):
        return text
    for said, instead in (*_by_class(wanted), *_by_text(wanted)):
        text = re.sub(said, instead, text)
    return _options(text, error, wanted)


def _by_class(wanted: argparse.Namespace) -> Iterator[tuple[str, str]]:
    many = wanted.command == "batch"
    for kind, hints in _HINTS.items():
        yield re.escape(getattr(kind, "hint", "")), hints[many]
    yield re.escape(_UNSEEN), _UNSEEN_HERE[many]


def _by_text(wanted: argparse.Namespace) -> Iterator[tuple[str, str]]:
    vendor = _vendor(wanted)
    for said, instead in TABLE:
        yield said, instead.replace("VENDOR", vendor or "VENDOR")


def _options(text: str, error: errors.AgentRunsError, wanted: argparse.Namespace) -> str:
    """Name what starts a run by the options that give it."""
    vendor = _vendor(wanted)
    if vendor is None or not isinstance(error, errors.ConfigurationError):
        return text
    kind = load(vendor).Origin
    for field in attrs.fields(kind):
        option = f"--{field.name.replace('_', '-')}"
        text = re.sub(rf"\b{kind.__name__}\.{field.name}\b", option, text)
        if "_" in field.name and wanted.command in {"start", "run"}:
            text = re.sub(rf"(?<![\w'\"`.$-]){field.name}(?![\w'\"`=-])", option, text)
    return text


def _vendor(wanted: argparse.Namespace) -> str | None:
    vendor = getattr(wanted, "vendor", None)
    return vendor if isinstance(vendor, str) and vendor in NAMES else None
