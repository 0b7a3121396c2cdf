"""What is told where an extra is not installed."""

import pytest

from agentruns import ConfigurationError, _extras


def test_an_import_that_fails_is_answered_with_the_command_that_installs_it() -> None:
    missing = ModuleNotFoundError("No module named 'filelock'")
    with pytest.raises(ConfigurationError) as caught, _extras.require("journal", "a journal needs"):
        raise missing
    assert str(caught.value) == (
        "a journal needs more than the core (No module named 'filelock'): run `pip install 'agentruns[journal]'`"
    )
    assert caught.value.__cause__ is missing


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(KeyError), _extras.require("journal", "a journal needs"):
        raise KeyError
