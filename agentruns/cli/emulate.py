"""`agentruns emulate`: vendors on loopback, as slow and as faulty as is asked for, each with a command to try it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from agentruns._values import check, codec
from agentruns._values.minted import minted
from agentruns.dialects import load
from agentruns.errors import ConfigurationError

from . import emulators, origins
from .printing import say, shell

if TYPE_CHECKING:
    from agentruns.emulator import Emulator, Turn


async def emulate(args: argparse.Namespace) -> int:
    """
    Serve the vendors until Ctrl-C, and return the exit code.

    Raise `ConfigurationError` for a vendor that is not known, an option that it has not, or a port that is taken.
    """
    from agentruns.emulator import Emulator

    names = args.vendor or emulators.emulated_names()
    kinds = {name: emulators.emulator_of(name) for name in names}
    if args.port and len(names) > 1:
        raise ConfigurationError("--port is for one vendor; name it, or leave the ports to chance")
    options = {name: _options(args, name) for name in names}
    alter = _alteration(args)
    async with contextlib.AsyncExitStack() as running:
        try:
            served = {
                name: await running.enter_async_context(Emulator(kind, port=args.port, **options[name]))
                for name, kind in kinds.items()
            }
        except (OSError, OverflowError) as error:
            raise ConfigurationError(f"port {args.port} cannot be listened on: {error}. Choose another") from error
        for name, emulator in served.items():
            emulator.alter(alter)
            say(*_lines(name, emulator, emulators.example_of(name, emulator), json=args.json))
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return 0


def _options(args: argparse.Namespace, name: str) -> dict[str, Any]:
    """Return the options of a vendor's emulator; raise `ConfigurationError` for one that it has not."""
    options: dict[str, Any] = {}
    for word in ("slots", "limit"):
        value = getattr(args, word)
        if value is None:
            continue
        check.integer(f"--{word}", value, 1)
        if word not in emulators.emulator_of(name).limits:
            having = [each for each in emulators.emulated_names() if word in emulators.emulator_of(each).limits]
            raise ConfigurationError(
                f"--{word} is for {' and '.join(having) or 'no vendor'}; {name} is emulated without. Name one that has "
                "it, or leave it out"
            )
        option, times = emulators.emulator_of(name).limits[word]
        options[option] = value * times
    return options


def _alteration(args: argparse.Namespace) -> Any:
    """Return what becomes of each run of the script: how long it takes, and whether it fails; None for no change."""
    seconds, share = args.run_seconds, args.fail
    if seconds is not None:
        check.number("--run-seconds", seconds, zero=True)
    if share is not None and not 0 <= share <= 1:
        raise ConfigurationError(f"--fail is {share:g}; it must be the share of runs that fail, from 0 to 1")
    if seconds is None and not share:
        return None
    chance = random.Random(0)  # noqa: S311 - a rehearsal that can be repeated

    def alter(turn: Turn) -> Turn:
        if seconds is not None:
            turn = attrs.evolve(turn, running=seconds)
        if share and chance.random() < share:
            turn = attrs.evolve(turn, text=None, structured=None, calls=(), error="EmulatedFailure")
        return turn

    return alter


def _given(origin: Any) -> Mapping[str, Any]:
    """Return the fields of an origin that are not at their defaults, as JSON."""
    if origin is None or not attrs.has(type(origin)):
        return {}
    plain = codec.to_jsonable(codec.unstructure(origin, defaults=False), "the example")
    return {name: value for name, value in plain.items() if name not in minted(type(origin))}


def _lines(name: str, emulator: Emulator[Any], origin: Any, *, json: bool) -> list[str]:
    given = _given(origin)
    if json:
        told = {"vendor": name, "base_url": emulator.base_url, "token": emulator.token, "example": given}
        return [codec.encode(told).decode()]
    dialect = load(name)
    words = ["agentruns", "run", name]
    for field, value in given.items():
        words += [origins.option(field), value if isinstance(value, str) else codec.encode(value).decode()]
    return [
        f"{name} is emulated at {emulator.base_url} until Ctrl-C; in another terminal:",
        f"  export {dialect.BASE_URL_VARIABLE}={emulator.base_url} {dialect.TOKEN_VARIABLE}={emulator.token}",
        f"  {shell(words if given else [*words, '--help'])}",
    ]
