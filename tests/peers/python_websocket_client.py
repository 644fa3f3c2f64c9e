"""The package websocket-client: ``connect URI``."""

from __future__ import annotations

import sys

import websocket

from tests.peers.machine import take

socket = websocket.create_connection(sys.argv[2])
while True:
    opcode, data = socket.recv_data()
    for frame in take(data) if opcode == websocket.ABNF.OPCODE_BINARY else []:
        socket.send_binary(frame)
