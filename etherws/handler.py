"""A public name: the HTTP handler for applications that embed etherws (docs/embedding.rst). See server/http.py."""

from etherws.server.http import Handler

__all__ = ["Handler"]
