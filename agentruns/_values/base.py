"""The two errors that carry text alone: what values themselves may raise. The tree of all errors is `errors`."""

from __future__ import annotations


class AgentRunsError(Exception):
    """The base of every error that this library raises to its caller."""

    __module__ = "agentruns.errors"  # where users find it, and what pickles name


class ConfigurationError(AgentRunsError):
    """Report what is wrong with a call before any request was sent."""

    __module__ = "agentruns.errors"
