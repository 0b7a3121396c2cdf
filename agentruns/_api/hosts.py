"""Which hosts are this machine."""

from __future__ import annotations


def is_loopback(host: str) -> bool:
    """Tell whether a host name or IP address is that of this machine."""
    if host == "localhost":  # names below it are for DNS to tell, which may tell of another machine
        return True
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
