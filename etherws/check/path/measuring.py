"""The client's end of a check's session: probes and bulk go out, and what comes back is noted with its time.

It judges nothing. Read next: measure.py, which says what is sent when; tunnel/check_traffic.py, which sends;
server/responder.py, the other end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import NoReturn

import gevent
from gevent.event import Event

from etherws.close_codes import CloseCode
from etherws.errors import EtherwsError, ProtocolError
from etherws.tunnel.check_frames import SIZE_MIN, UNANSWERED_MAX, Kind, Message, write
from etherws.tunnel.check_traffic import Bulk, CheckSender, Count
from etherws.tunnel.connection import Connection
from etherws.tunnel.rate_limit import Pacer
from etherws.tunnel.turns import Turn, account


@dataclass(frozen=True)
class Sample:
    """One probe that was answered. `probe` and `answer` are bytes of the frames. Times are in seconds; those of the
    server are by its own clock: `asked` is when the probe was wanted, `sent` when the kernel got it, `received` and
    `answered` are the server's, `came` is when the answer came. `ours` and `theirs` are TCP's round trips then, by
    either kernel: without what waits unsent."""

    probe: int
    answer: int
    asked: float
    sent: float
    received: float
    answered: float
    came: float
    ours: float
    theirs: float

    @property
    def round_trip(self) -> float:
        """What a frame and its answer would have taken."""
        return self.came - self.asked


class Measuring:
    """One session. Use it in a `with` block, which ends it; the connection stays the caller's.

    All that waits raises ConnectionClosed or ProtocolError as soon as the session has ended."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._sender = CheckSender(connection, Turn(account("")))
        self.count = Count()
        self.samples: list[Sample] = []
        #: The reports that came, by the number of the request.
        self.reports: dict[int, Message] = {}
        self._asked: dict[int, tuple[int, float]] = {}
        self._wanted: set[int] = set()
        self._number = 0
        self._news = Event()
        self._error: EtherwsError | None = None
        self._greenlets: list[gevent.Greenlet[..., None]] = []

    def __enter__(self) -> Measuring:
        self._greenlets = [gevent.spawn(self._until_error, work) for work in (self._receive, self._sender.run)]
        return self

    def __exit__(self, *_: object) -> None:
        gevent.killall(self._greenlets)

    @property
    def unanswered(self) -> int:
        """How many probes have no answer yet."""
        return len(self._asked)

    def probe(self, size: int = SIZE_MIN, answer: int = SIZE_MIN) -> None:
        """Send a frame of `size` bytes, to be answered by one of `answer` bytes; not if too many have no answer yet."""
        if len(self._asked) >= UNANSWERED_MAX // 2:
            return
        self._number += 1
        number = self._number
        self._asked[number] = size, monotonic()
        self._sender.say(lambda now: write(Message(Kind.PROBE, number, now, value=answer), size))

    def ask(self) -> int:
        """Ask the server what came since the last report; return the number of the report."""
        return self._request(Kind.ASK, 0)

    def receive_bulk(self, seconds: float) -> int:
        """Have the server send for so long; return the number of the report that comes behind it."""
        self.count.taken()
        return self._request(Kind.SEND, int(seconds * 1e6))

    def send_bulk(self, seconds: float, rate: int | None = None) -> Callable[[], bool]:
        """Send for so long, at `rate` bits per second at most; return what says whether it is over."""
        self._sender.begin(Bulk(seconds, [Pacer(rate)] if rate else []), self._news.set)
        return lambda: not self._sender.busy

    def wait(self, condition: Callable[[], object], seconds: float) -> bool:
        """Wait until something comes by which the condition is true, for so many seconds; return whether it is."""
        deadline = monotonic() + seconds
        while True:
            if self._error:
                raise self._error
            if condition():
                return True
            if (left := deadline - monotonic()) <= 0:
                return False
            self._news.clear()
            self._news.wait(left)

    def _request(self, kind: Kind, value: int) -> int:
        self._number += 1
        number = self._number
        self._wanted.add(number)
        self._sender.say(lambda now: write(Message(kind, number, now, value=value)))
        return number

    def _receive(self) -> NoReturn:
        connection = self._connection
        try:
            while True:
                packets = connection.recv()
                for message in self.count.take(packets, monotonic_ns()):
                    self._note(message, monotonic())
                del packets
        finally:
            connection.end_turn()

    def _note(self, message: Message, now: float) -> None:
        """Raises ProtocolError for what nobody asked for: a server cannot fill this process's memory."""
        if message.kind is Kind.ANSWER and message.number in self._asked:
            size, asked = self._asked.pop(message.number)
            times = asked, message.sent / 1e9, message.received / 1e9, message.answered / 1e9, now
            ours = self._connection.tcp_facts().round_trip
            self.samples.append(Sample(size, message.size, *times, ours, message.round_trip / 1e6))
        elif message.kind is Kind.REPORT and message.number in self._wanted:
            self._wanted.discard(message.number)
            self.reports[message.number] = message
        else:
            raise ProtocolError(CloseCode.PROTOCOL_ERROR, f"the server sent {message.kind.name} unasked")
        self._news.set()

    def _until_error(self, work: Callable[[], NoReturn]) -> None:
        try:
            work()
        except EtherwsError as exc:
            self._error = self._error or exc
            self._news.set()
