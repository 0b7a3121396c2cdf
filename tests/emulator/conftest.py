"""The plugin's fixtures, by import: the plugin's entry point is there only once the package is installed."""

from agentruns.emulator.pytest_plugin import agentruns_emulator, narrative_emulator

__all__ = ["agentruns_emulator", "narrative_emulator"]
