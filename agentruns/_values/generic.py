"""The type parameters of a client, and the one name of what is deliberately untyped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    OriginT = TypeVar("OriginT", default=Any)
    OriginT_co = TypeVar("OriginT_co", default=Any, covariant=True)
    OriginT_contra = TypeVar("OriginT_contra", default=Any, contravariant=True)
    DetailT = TypeVar("DetailT", default=Any)
    DetailT_co = TypeVar("DetailT_co", default=Any, covariant=True)
    ItemT_co = TypeVar("ItemT_co", default=Any, covariant=True)
else:  # `typing` knows defaults from Python 3.13 on; nothing reads them at run time
    from typing import TypeVar

    OriginT = TypeVar("OriginT")
    OriginT_co = TypeVar("OriginT_co", covariant=True)
    OriginT_contra = TypeVar("OriginT_contra", contravariant=True)
    DetailT = TypeVar("DetailT")
    DetailT_co = TypeVar("DetailT_co", covariant=True)
    ItemT_co = TypeVar("ItemT_co", covariant=True)

Json: TypeAlias = Any
"""
A JSON value, as a vendor or a user gave it: None, a bool, a number, a text, a list or a dict of these.

It is `Any` because each vendor documents another shape: code that uses one looks at its parts, and would have to cast
each of them.
"""
