"""The options that commands share, and those of the commands that have many."""

from __future__ import annotations

import argparse
import re
from typing import Final

from agentruns._keeping.journal.locations import is_database
from agentruns.dialects import load
from agentruns.dialects.vendor import Vendor
from agentruns.errors import ConfigurationError

BATCH_PATIENCE_SECONDS: Final = 3600.0
"""How long a batch bears with a vendor that does not answer, unless the user says otherwise."""

_PASSWORD: Final = re.compile(r"//[^@]*:.*@|[?&]password=")
"""Is found in the URL of a database that has a password."""


def add_batch(parser: argparse.ArgumentParser) -> None:
    """Offer what `batch` takes for any vendor."""
    parser.add_argument("input", metavar="INPUT", help="a file: .jsonl, .csv, .tsv (UTF-8, with a header), or .parquet")
    parser.add_argument("-o", "--output", metavar="OUTPUT", help="where JSON lines are appended; a dry run needs none")
    parser.add_argument(
        "--set", metavar="FIELD=TEMPLATE", action="append", default=[], help="the same, for any field; may be repeated"
    )
    parser.add_argument(
        "--key",
        metavar="TEMPLATE",
        help="what names a row over several calls; by default its line and what is made of it, so that a row that "
        "changed or moved is another one. Give a column of ids if rows may move",
    )
    parser.add_argument("--delimiter", metavar="CHARACTER", help="between the cells of a CSV file (default: a comma)")
    parser.add_argument("--encoding", metavar="NAME", help="of a CSV or JSONL file, such as latin-1 (default: UTF-8)")
    parser.add_argument(
        "--columns", metavar="NAMES", help="columns of INPUT that the output has, too, with commas between; * for all"
    )
    parser.add_argument("--first", metavar="N", type=int, help="take the first N rows of INPUT only, as a sample")
    parser.add_argument("--tools", metavar="MODULE:NAME", help="handlers: module:name or file.py:name")
    parser.add_argument("--limit", type=int, default=64, help="runs in flight at once, at most (default: 64)")
    parser.add_argument(
        "--engine", choices=["local", "ray"], default="local", help="who follows the runs (default: this process)"
    )
    parser.add_argument("--workers", type=int, help="of Ray (default: 2, or one for each of its machines)")
    parser.add_argument("--batch-name", metavar="NAME", help="of Ray: what ids derive from (default: OUTPUT's path)")
    parser.add_argument("--budget", type=float, help="requests per second, at most (default: the vendor's limit)")
    parser.add_argument(
        "--timeout", type=float, help="seconds for each run (default: as long as the vendor says that one may take)"
    )
    parser.add_argument(
        "--patience",
        type=float,
        default=BATCH_PATIENCE_SECONDS,
        metavar="SECONDS",
        help="how long to wait for a vendor that does not answer (default: an hour); nothing is given up meanwhile",
    )
    journal = parser.add_mutually_exclusive_group()
    journal.add_argument(
        "--journal",
        metavar="PATH",
        type=_journal,
        help="what keeps work across a crash: a file, or a postgresql://... (default: OUTPUT.journal)",
    )
    journal.add_argument(
        "--no-journal", action="store_true", help="keep none: after a crash, runs in flight are started again"
    )
    parser.add_argument(
        "--keep-days", metavar="DAYS", type=float, help="first take out of the journal what has been done for longer"
    )
    parser.add_argument(
        "--retry-failed",
        action="store_true",
        help="start rows again whose run failed, or is gone at the vendor",
    )
    changed = parser.add_mutually_exclusive_group()
    changed.add_argument(
        "--again", action="store_true", help="start rows again that ask for something else than when they were begun"
    )
    changed.add_argument("--keep", action="store_true", help="take such rows as they are")
    parser.add_argument(
        "--max-failures", metavar="N", type=int, help="take no more rows once N have failed in this call"
    )
    parser.add_argument(
        "--max-total-tokens", metavar="N", type=int, help="take no more rows once all of OUTPUT have used N tokens"
    )
    parser.add_argument(
        "--max-total-cost",
        metavar="X",
        type=float,
        help="the same for the cost, in the vendor's unit",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="look at every row, send nothing, show the first request"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    add_connection(parser)
    parser.add_argument("--json", action="store_true", help="show progress as one JSON object per line")


def add_console(parser: argparse.ArgumentParser) -> None:
    """Offer what `console` takes."""
    parser.add_argument(
        "journal",
        metavar="JOURNAL",
        nargs="?",
        type=_journal,
        help="what `agentruns batch` or a client has kept: a file, or a postgresql://...",
    )
    parser.add_argument(
        "--emulator", metavar="VENDOR", type=vendor_name, help="instead of a journal, try it on an emulated vendor"
    )
    parser.add_argument("--vendor", type=vendor_name, help="follow and answer runs of this vendor only")
    parser.add_argument(
        "--token-env", metavar="NAME", help="the environment variable with the token of --vendor, if not the usual one"
    )
    parser.add_argument("--base-url", help="another base URL than that of --vendor")
    parser.add_argument("--insecure", action="store_true", help="allow the token over plain http to another host")
    _proxy(parser)
    parser.add_argument(
        "--answers", metavar="FILE", help="JSON: by the name of a tool, the JSON Schema of what it answers"
    )
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; a free one by default")
    parser.add_argument(
        "--expose", action="store_true", help="allow a --host that others can reach: they see what you see, unencrypted"
    )
    parser.add_argument("--open", action="store_true", help="open the page in a browser")


def add_connection(parser: argparse.ArgumentParser) -> None:
    """Offer where the vendor is, and how it is reached."""
    parser.add_argument("--base-url", help="another base URL than the vendor's (the token comes from the environment)")
    parser.add_argument("--insecure", action="store_true", help="allow the token over plain http to another host")
    _proxy(parser)


def _proxy(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--proxy",
        metavar="URL",
        type=_proxy_url,
        help="go through an HTTP proxy: its URL, without a password, or `env` for that in HTTPS_PROXY, with one",
    )


def _journal(text: str) -> str:
    if is_database(text) and _PASSWORD.search(text):  # others see command lines, and what is typed is shown again
        raise argparse.ArgumentTypeError("it has a password; put that into PGPASSWORD, or into a password file")
    return text


def _proxy_url(text: str) -> str:
    if "@" in text:  # others see command lines, and what is typed is shown again
        raise argparse.ArgumentTypeError("it has a password; put the URL into HTTPS_PROXY, and use `--proxy env`")
    return text


def add_waiting(parser: argparse.ArgumentParser) -> None:
    """Offer how long a run is waited for, and what answers it."""
    parser.add_argument(
        "--timeout", type=float, help="seconds for the whole wait (default: as long as the vendor says a run may take)"
    )
    parser.add_argument("--tools", metavar="MODULE:NAME", help="handlers: module:name or file.py:name")
    parser.add_argument("--progress", action="store_true", help="show states that differ in progress alone too")


def add_output(parser: argparse.ArgumentParser) -> None:
    """Offer how states are printed."""
    parser.add_argument("--json", action="store_true", help="print one JSON object per state")


def vendor_name(name: str) -> str:
    """Return the name of a vendor; refuse one that is not there, or whose dialect is wrong."""
    try:
        Vendor.of(load(name))
    except ConfigurationError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return name
