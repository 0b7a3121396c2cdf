"""
What went wrong, for people who typed a command.

The library tells a caller in Python what helps: `token=`, `client.stream(...)`. A command has options, variables and
other commands instead. So an error carries the field that is wrong and, apart from the rest of its text, the remedy in
Python; here the field becomes an option, and the remedy is replaced.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from typing import Final

import attrs

from agentruns import errors
from agentruns._api.channel import TOO_SLOW
from agentruns._values.printable import printable
from agentruns.dialects import NAMES, load
from agentruns.dialects.names import installed, is_place, shipped

from . import origins

_HINTS: Final[dict[type[errors.AgentRunsError], tuple[str, str]]] = {
    errors.RateLimitedError: (
        "Wait as long as the answer asks, then try again",
        "Send less (--budget, --limit), or wait as long as the answer asks",
    ),
    errors.AlreadyAnsweredError: (
        "Watching the run again shows what came of the first answer",
        "The same call follows what came of the first answer",
    ),
    errors.RunFailedError: (
        "To start again is a new run, which may cost as much",
        "--retry-failed starts such rows again, which may cost as much",
    ),
    errors.ActionRequiredError: (
        "Give --tools with a handler for each action",
        "Give --tools with a handler for each action, or answer in `agentruns console JOURNAL`",
    ),
    errors.AnswerIgnoredError: (
        "If the vendor is only slow, watching it again sees it go on; else name a variant that sends another shape",
        "If the vendor is only slow, the same call follows it; else name a variant that sends another shape",
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
"""What helps, by the class of error whose `hint` says it in Python: for one run, and for a batch."""

_UNSEEN: Final[dict[str, str]] = {
    "run": "If a start was under way it may have taken effect: the same command is safe if you gave the vendor a key "
    "of your own, else look at the vendor first",
    "batch": "If a start was under way it may have taken effect: the same call finds it by the journal, or by a key of "
    "the vendor; without either, look at the vendor first",
}
"""In place of `RunError.unseen_hint`, by command; other commands start runs as "run" does."""

_UNBEGUN: Final = "Nothing was started: make the same call again, or allow more --timeout"
"""In place of `RunError.unbegun_hint`."""

_PARENT: Final = "name it by --parent AGENT_ID"

REMEDIES: Final[dict[str, str]] = {
    "token": "set the environment variable {variable}",
    "insecure": "use https, or pass --insecure if you accept that",
    "parent": _PARENT,
    "RunRef.parent": _PARENT,
    "RunRef.id": "`agentruns list {vendor} --parent AGENT_ID` shows it",
    "key": "--again starts the row as it is now, and --keep takes what there is",
}
"""By the `field` of an error, what helps in a shell; in place of its `remedy`. Without an entry, nothing is said."""

_KEPT: Final = "the same call looks again; if you know that there is no such run, give the row another key"
"""In place of the remedy of a start under a key whose outcome is unknown."""

_REFUSED: Final = (
    "watching it again answers it once that is put right, if it still waits",
    "the same call answers it once that is put right, if it still waits",
)
"""In place of the remedy of an answer that was refused, or lost: for one run, and for a batch."""

OPTIONS: Final[dict[str, str]] = {
    "base_url": "the base URL",
    "RunRef.id": "ID",
    "RunRef.parent": "--parent",
    "Options.timeout": "--timeout",
}
"""By the `field` of an error, what a command calls it; what starts a run has an option for each of its fields."""


def translate(error: Exception, args: argparse.Namespace) -> str:
    """Return the text of *error* for people who typed the command that *args* describes."""
    text = str(error)
    if not isinstance(error, errors.AgentRunsError):
        return text
    for python, shell in _replacements(error, args):
        text = text.replace(python, shell)
    if error.field in OPTIONS and text.startswith(error.field):
        text = OPTIONS[error.field] + text.removeprefix(error.field)
    return _name_options(text, args) if isinstance(error, errors.ConfigurationError) else text


def _replacements(error: errors.AgentRunsError, args: argparse.Namespace) -> Iterator[tuple[str, str]]:
    """Iterate over what is said in Python, each with what is said instead; hints may be those of an error within."""
    is_batch = args.command == "batch"
    if error.remedy:
        said = _remedy(error, args)
        yield printable(f"; {error.remedy}"), f"; {said}" if said else ""
        yield printable(f". {error.remedy}"), f". {said[0].upper()}{said[1:]}" if said else ""  # of an `APIError`
    for kind, hints in _HINTS.items():
        yield getattr(kind, "hint", ""), hints[is_batch]
    yield f"; {TOO_SLOW}", ""  # no option says how long one exchange may take
    yield errors.RunError.unbegun_hint, _UNBEGUN
    yield errors.RunError.unseen_hint, _UNSEEN.get(args.command, _UNSEEN["run"])


def _remedy(error: errors.AgentRunsError, args: argparse.Namespace) -> str:
    if error.remedy.startswith("`agentruns "):
        return error.remedy  # it is a command already
    if isinstance(error, errors.OutcomeUnknownError):
        return _KEPT
    if isinstance(error, errors.APIError | errors.TransportError):
        return _REFUSED[args.command == "batch"] if error.remedy.startswith("`client.resume(") else ""
    vendor = _vendor(args)
    variable = "" if vendor is None else load(vendor).TOKEN_VARIABLE
    return REMEDIES.get(error.field, "").format(vendor=vendor or "VENDOR", variable=variable)


def _name_options(text: str, args: argparse.Namespace) -> str:
    """Replace the fields of what starts a run by the options that give them."""
    vendor = _vendor(args)
    if vendor is None:
        return text
    kind = load(vendor).Origin
    if not attrs.has(kind):
        return text
    for field in attrs.fields(kind):
        option = origins.option(field.name)
        text = re.sub(rf"\b{kind.__name__}\.{field.name}\b", option, text)
        if "_" in field.name and args.command in {"start", "run"}:
            text = re.sub(rf"(?<![\w'\"`.$-]){field.name}(?![\w'\"`=-])", option, text)
    return text


def _vendor(args: argparse.Namespace) -> str | None:
    vendor = getattr(args, "vendor", None)
    if not isinstance(vendor, str):
        return None
    return vendor if vendor in NAMES or is_place(vendor) or vendor in installed() or vendor in shipped() else None
