"""How a command reaches its vendor: what its options say, as `connect` takes it."""

from __future__ import annotations

import argparse
from typing import TypedDict


class Connection(TypedDict):
    """The options of `connect` that every command has."""

    base_url: str | None
    insecure: bool
    proxy: str | None
    trust_env: bool


def connection(args: argparse.Namespace) -> Connection:
    """Return what the options of a command say."""
    by_env = args.proxy == "env"
    return Connection(
        base_url=args.base_url, insecure=args.insecure, proxy=None if by_env else args.proxy, trust_env=by_env
    )
