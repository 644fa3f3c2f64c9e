"""The name by which applications that mount etherws know its HTTP handler; it is in server/http.py."""

from etherws.server.http import Handler

__all__ = ["Handler"]
