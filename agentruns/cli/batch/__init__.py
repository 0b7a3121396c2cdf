"""The command `batch`: rows of a file in, runs of a vendor, one JSON line per row out."""

from __future__ import annotations

from .entry import batch

__all__ = ["batch"]
