"""Ethernet over WebSocket: one LAN across anything that lets HTTP out.

Start reading at tunnel/session.py, which carries frames between a TAP (tunnel/tap.py) and a WebSocket
(tunnel/connection.py).
"""

__version__ = "2.0.0.dev0"
