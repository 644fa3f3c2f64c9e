"""Ethernet over WebSocket: one LAN across anything that lets HTTP out.

Start reading at session.py, which carries frames between a TAP (tap.py) and a WebSocket (link.py).
"""

__version__ = "2.0.0.dev0"
