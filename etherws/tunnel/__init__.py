"""A frame's way: TAP, wire, WebSocket, socket, and back. Start reading at session.py."""
