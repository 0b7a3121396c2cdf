"""The two errors that carry text alone: what values themselves may raise. The tree of all errors is `errors`."""

from __future__ import annotations

from typing import ClassVar


class AgentRunsError(Exception):
    """The base of every error that this library raises to its caller."""

    __module__ = "agentruns.errors"  # where users find it, and what pickles name

    public: ClassVar[bool] = False
    """Whether people who watch a run over the web may read the text; each class says so for itself, not for others."""

    def __init_subclass__(cls, *, public: bool = False) -> None:
        super().__init_subclass__()
        cls.public = public


class ConfigurationError(AgentRunsError, public=True):
    """Report what is wrong with a call before any request was sent."""

    __module__ = "agentruns.errors"
