"""The two errors that carry text alone: what values themselves may raise. The tree of all errors is `errors`."""

from __future__ import annotations

from typing import ClassVar

from .printable import printable


class AgentRunsError(Exception):
    """
    The base of every error that this library raises to its caller.

    `field` is the argument or attribute that is wrong, such as `base_url` or `UserMessage.text`; empty where it is no
    single one. `remedy`, where there is one, ends the text with what helps a caller in Python. A surface that is
    not Python, such as the command line, has remedies of its own by the field.

    Its `str` is one line that is safe to print and to log: control characters of what it quotes are escaped.
    """

    __module__ = "agentruns.errors"  # where users find it, and what pickles name

    public: ClassVar[bool] = False
    """Whether people who watch a run over the web may read the text; each class says so for itself, not for others."""

    def __init__(self, *args: object, field: str = "", remedy: str = "") -> None:
        super().__init__(*args)
        self.field = field
        self.remedy = remedy

    def __str__(self) -> str:
        return printable(self._text())

    def _text(self) -> str:
        """Return what happened; it may quote a vendor, so `str` makes it safe to print."""
        text = super().__str__()
        return f"{text}; {self.remedy}" if self.remedy else text

    def __init_subclass__(cls, *, public: bool = False) -> None:
        super().__init_subclass__()
        cls.public = public


class ConfigurationError(AgentRunsError, public=True):
    """Report what is wrong with a call before any request was sent."""

    __module__ = "agentruns.errors"
