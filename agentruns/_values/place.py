"""Where and how one deployment of a vendor is asked, where it says that itself."""

from __future__ import annotations

from collections.abc import Callable

from attrs import frozen

from .auth import Auth
from .exchange import Request


@frozen
class Place:
    """
    What `locate` of a dialect has found out; what is None stays as it is.

    - `base_url` is what the paths of requests hang on from then on.
    - `auth` is how the token is sent.
    - `form` returns a request as this deployment takes it, where that is not as the dialect writes it.
    """

    base_url: str | None = None
    auth: Auth | None = None
    form: Callable[[Request], Request] | None = None
