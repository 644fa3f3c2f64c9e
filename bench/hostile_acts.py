"""What one connection of an attacker does, before the 101 and behind it: for hostile_kinds.py.

An Act gets the attack and the number of its connection, and is called again and again. It may raise OSError or EOFError
when the server has had enough. The functions here return acts, or functions that prepare bytes and then return an act.
See hostile_flood.py for the Attack, hostile_frames.py for bytes of tenants, hostile_tls.py for acts in TLS.
"""

from __future__ import annotations

import base64
import os
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import gevent

from bench import hostile_frames as frames
from bench.hostile_flood import Attack, reset, rest
from bench.raw_client import LINES, request

#: What one connection does again and again: it gets the attack and its own number.
Act = Callable[[Attack, int], None]

#: Connections that one greenlet keeps open while it makes further ones.
KEPT = 16


@contextmanager
def opened(attack: Attack, number: int) -> Iterator[Any]:
    with attack.connect(number) as sock:
        yield sock


def silent(attack: Attack, number: int) -> None:
    kept: deque[Any] = deque()
    try:
        while True:
            kept.append(attack.connect(number, tls=False))
            attack.ready()
            if len(kept) > KEPT:
                reset(kept.popleft())
    finally:
        for sock in kept:
            sock.close()


def connect_and_reset(attack: Attack, number: int) -> None:
    reset(attack.connect(number, tls=False))
    attack.ready()


def slow(attack: Attack, number: int) -> None:
    with opened(attack, number) as sock:
        attack.ready()
        for byte in request(LINES):
            attack.send(sock, bytes([byte]))
            gevent.sleep(1)


def loop(data: bytes) -> Callable[[], Act]:
    """Send it at once and for ever, without a request."""

    def act(attack: Attack, number: int) -> None:
        with opened(attack, number) as sock:
            attack.flood(sock, data)

    return lambda: act


def asking(*lines: bytes, first: bytes = b"GET / HTTP/1.1", without: bytes = b"none") -> Callable[[], Act]:
    """Send a request, read the whole answer, and connect anew. It is a good request with these lines in addition, and
    without those that begin with `without`."""
    text = request([line for line in LINES if not line.startswith(without)] + list(lines), first)

    def act(attack: Attack, number: int) -> None:
        with opened(attack, number) as sock:
            attack.ask(sock, text)
            attack.ready()
            rest(sock)

    return lambda: act


def asking_with(header: str, changing: bool = False, rate: float = 0) -> Callable[[], Act]:
    """An upgrade request with this Authorization, or one that changes each time."""

    def act(attack: Attack, number: int) -> None:
        if rate:
            attack.ready()
            attack.turn(rate)
        user = os.urandom(6).hex() if changing else "tenant"
        value = base64.b64encode(f"{user}:wrong".encode()).decode() if header == "Basic" else user * 4
        text = request([*LINES, f"Authorization: {header} {value}".encode()])
        # Each from the next address.
        with opened(attack, attack.opened) as sock:
            attack.ask(sock, text)
            attack.ready()

    return lambda: act


def joining(*, rate: float = 0, politely: bool = True) -> Callable[[], Act]:
    """Join, and leave at once: by a Close, or by a RST."""

    def act(attack: Attack, number: int) -> None:
        if rate:
            attack.ready()
            attack.turn(rate)
        with attack.join(number, 1) as sock:
            attack.ready()
            if not politely:
                reset(sock)
                return
            attack.send(sock, frames.GOODBYE)
            # The greenlet of join() reads the rest.

    return lambda: act


def joining_at_once(attack: Attack, number: int) -> None:
    """All join, wait until the others have too, and leave: those that are in wait for two seconds at most."""
    with attack.join(number, 1):
        attack.ready()
        gevent.sleep(2)


def session(data: Callable[[], bytes], version: int = 1) -> Callable[[], Act]:
    """Join, and send it again and again."""

    def make() -> Act:
        prepared = data()

        def act(attack: Attack, number: int) -> None:
            with attack.join(number, version) as sock:
                attack.flood(sock, prepared)

        return act

    return make


def once(data: Callable[[], bytes], version: int = 1) -> Callable[[], Act]:
    """Join, send it once, and connect anew when the server has ended the connection."""

    def make() -> Act:
        prepared = data()

        def act(attack: Attack, number: int) -> None:
            with attack.join(number, version) as sock:
                attack.ready()
                attack.send(sock, prepared)
                sock.shutdown(1)

        return act

    return make


def hoarding() -> Act:
    data = frames.unfinished()

    def act(attack: Attack, number: int) -> None:
        with attack.join(number, 2) as sock:
            attack.send(sock, data)
            attack.ready()
            gevent.sleep(3600)

    return act


def byte_by_byte() -> Act:
    data = frames.repeated((frames.BINARY, frames.ethernet(14)), size=1000)

    def act(attack: Attack, number: int) -> None:
        with attack.join(number) as sock:
            attack.ready()
            while True:
                for byte in data:
                    sock.send(bytes([byte]))
                attack.sent += len(data)
                gevent.sleep(0)

    return act


def not_reading() -> Act:
    data = frames.repeated((frames.PING, bytes(125)), (frames.BINARY, frames.ethernet(60, frames.ALL)))

    def act(attack: Attack, number: int) -> None:
        with attack.join(number, window=4096) as sock:
            attack.flood(sock, data)

    return act


def frame(first: int, payload: bytes = b"") -> Callable[[], Act]:
    return session(partial(frames.repeated, (first, payload)))


def frames_of(size: int, to: bytes = frames.BRIDGE) -> Callable[[], Act]:
    return frame(frames.BINARY, frames.ethernet(size, to))


def fragments(payload: bytes) -> Callable[[], Act]:
    middle = [(frames.MIDDLE, payload)] * 4000
    return session(partial(frames.repeated, (frames.FIRST, b"a"), *middle, (frames.LAST, b"b")))
