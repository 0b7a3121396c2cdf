"""Where requests go, and who can read them on the way."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Tell whether *host*, a name or an IP address, is reached without leaving this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
