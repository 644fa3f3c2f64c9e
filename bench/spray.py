"""Frames from the server's host to many clients, the same number to each: ``spray.py CLIENTS RATE SECONDS [SIZE]``.

RATE is in frames per second and client. Without a queue of its own or any reaction to loss, it offers each client the
same, so what each gets is the server's choice. It sends to the bridge br0; the clients are those of load.py.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.light_session import BRIDGE
from bench.load_frames import FRAME_MAX, frame, mac


def spray(clients: int, rate: float, seconds: float, size: int = FRAME_MAX) -> int:
    """Send; return how many frames the kernel took."""
    frames = [frame(mac(number), BRIDGE, size) for number in range(clients)]
    taken = rounds = 0
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sock:
        sock.bind(("br0", 0))
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < seconds:
            if rounds >= passed * rate:
                time.sleep(min(0.001, 1 / rate))
                continue
            rounds += 1
            for each in frames:
                # A full queue is what is wanted, and no failure.
                with suppress(OSError):
                    taken += sock.send(each) > 0
    return taken


if __name__ == "__main__":
    print(spray(int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]), *map(int, sys.argv[4:])))
