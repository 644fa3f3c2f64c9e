"""How two processes of one server talk: calls, their answers, and what is told without an answer.

A message is one datagram (datagrams.py, messages.py). A peer that does not read, or sends what cannot be understood, is
broken: nothing more is sent, and what comes is thrown away until the peer ends. It is not cut off, because as long as
it lives it may use what it has. Read next: port_server.py and remote_ports.py, the two ends.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import gevent
from gevent.event import AsyncResult

from etherws.errors import DESCRIPTORS_HINT, ChannelError, EtherwsError
from etherws.log_limit import LogLimit
from etherws.workers.datagrams import ENDED, Datagrams, close_all
from etherws.workers.messages import LONG, Message, decode, encode, error_of, error_values, number, text

log = logging.getLogger(__name__)

#: Calls of one peer that wait for their answers. Fewer clients wait at a worker's door (server/waiting_list.py).
CALLS_MAX = 8192

#: Messages that may wait for the peer when another one is sent that it can do without. A peer that lets many more wait
#: is broken (datagrams.py, QUEUE_MAX).
OFFERS_MAX = 256

#: Seconds between two looks at a peer that has ended its sending but is still there.
LOOK = 0.2


class Answer(NamedTuple):
    """What a call is answered: values, descriptors, and what is done as soon as the answer is on its way. `undo` is
    called if it cannot be sent for want of descriptors, and the peer gets an error in its place."""

    values: Message
    fds: Sequence[int] = ()
    then: Callable[[], None] = lambda: None
    undo: Callable[[], None] = lambda: None


@dataclass(eq=False)
class Request:
    """A call of the peer's that is not answered yet. `on_cancel` is called when the answer is of use to nobody."""

    cancelled: bool = False
    on_cancel: Callable[[], None] = lambda: None

    def cancel(self) -> None:
        """The peer does not wait any more."""
        self.cancelled = True
        self.on_cancel()


@dataclass(eq=False)
class _Pending:
    """A call of ours. `late` gets an answer that came after the wait for it had ended."""

    answer: AsyncResult[Answer] = field(default_factory=AsyncResult)
    late: Callable[[Answer], None] | None = None


#: Answers a call: what is asked, with which values, and the request. Runs in a greenlet of its own. Raises
#: EtherwsError, which the peer gets; ChannelError if the values are not what they should be.
Serve = Callable[[str, Message, Request], Answer]


class Channel:
    """One end. After start() it reads in a greenlet of its own, until the peer ends."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is one of datagrams.pair(), and belongs to the channel from now on."""
        self._datagrams = Datagrams(sock)
        self._pending: dict[int, _Pending] = {}
        self._requests: dict[int, Request] = {}
        self._count = 0
        self._log = LogLimit(log)
        self._reader: gevent.Greenlet[..., None] | None = None
        #: Why nothing more is sent; empty as long as all is well.
        self.failure = ""

    def start(
        self,
        serve: Serve,
        told: Callable[[str, Message], None],
        broken: Callable[[str], None],
        ended: Callable[[], None],
    ) -> None:
        """Read from now on.

        `serve` answers the peer's calls. `told` is called with what it tells without waiting for an answer, in order,
        and must not wait. `broken` is called once with the reason, if the peer is not to be trusted any more; `ended`
        when it has ended.
        """
        self._serve, self._told, self._on_broken, self._on_ended = serve, told, broken, ended
        self._reader = gevent.spawn(self._read_all)

    def call(
        self, verb: str, values: Message, timeout: float, late: Callable[[Answer], None] = lambda answer: None
    ) -> Answer:
        """Ask the peer, and block this greenlet until it answers. The descriptors of the answer are the caller's.

        If something ends the wait, the peer is told that nobody waits; an answer that comes all the same is given to
        `late`, and its descriptors are closed then. Raises ChannelError after `timeout` seconds or if the peer is gone,
        and what the peer raises.
        """
        if len(self._pending) >= CALLS_MAX:
            raise ChannelError(f"{CALLS_MAX} calls wait for their answers already")
        self._count += 1
        mine, pending = self._count, _Pending()
        self._send({"call": mine, "verb": verb, **values})
        self._pending[mine] = pending
        try:
            with gevent.Timeout(timeout, ChannelError(f"no answer to {verb!r} within {timeout:g} s")):
                answer = pending.answer.get()
                assert answer is not None
                return answer
        except BaseException:
            pending.late = late
            if not pending.answer.ready():
                with contextlib.suppress(ChannelError):
                    self._send({"cancel": mine})
            elif pending.answer.successful() and pending.answer.value is not None:
                _give_late(pending, pending.answer.value)
            raise

    def tell(self, verb: str, values: Message) -> None:
        """Tell the peer, without waiting. Does nothing if the peer is gone or broken."""
        with contextlib.suppress(ChannelError):
            self._send({"tell": verb, **values})

    def offer(self, verb: str, values: Message) -> bool:
        """As tell(), but only if fewer than OFFERS_MAX messages wait for the peer: return whether it was sent."""
        if self.failure or self._datagrams.waiting >= OFFERS_MAX:
            return False
        self.tell(verb, values)
        return not self.failure

    def peer_hears(self) -> bool:
        """Whether the peer is there, and is sent what is to be sent."""
        return not (self.failure or self._datagrams.peer_is_gone())

    def close(self) -> None:
        """End this end, and call nobody. The peer sees the end."""
        if self._reader is not None:
            self._on_ended = lambda: None
            self._reader.kill()
        else:
            self._finish()

    def _send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Raises ChannelError if it cannot be sent."""
        if self.failure:
            raise ChannelError(self.failure)
        data, long = encode(message)
        beside = [] if long is None else [long]
        try:
            if not self._datagrams.send(data, [*fds, *beside]):
                self._break("it does not read what it is sent")
        except OSError as exc:
            if exc.errno in (errno.EMFILE, errno.ENFILE):
                # It would have to wait: see Datagrams.send().
                raise ChannelError(f"a message cannot be sent: {exc.strerror}; {DESCRIPTORS_HINT}") from exc
            # Who reads sees the end of the peer.
            if exc.errno not in ENDED:
                self._break(f"nothing can be sent to it: {exc.strerror}")
            raise ChannelError(f"the other process cannot be reached: {exc.strerror}") from exc
        finally:
            close_all(beside)
        if self.failure:
            raise ChannelError(self.failure)

    def _read_all(self) -> None:
        try:
            while True:
                fds: list[int] = []
                try:
                    data, fds = self._datagrams.receive()
                    if not data:
                        if self._datagrams.peer_is_gone():
                            return
                        gevent.sleep(LOOK)
                        raise ChannelError("it sent an empty message")
                    if self._datagrams.lost and data == LONG:
                        message = "a message of another process is lost: this one may open no more files; %s"
                        self._log.log(logging.WARNING, "lost", message, DESCRIPTORS_HINT)
                    elif not self.failure:
                        self._handle(decode(data, fds), fds)
                except OSError:
                    return
                except ChannelError as exc:
                    self._break(str(exc))
                finally:
                    close_all(fds)
        finally:
            self._finish()

    def _handle(self, message: Message, fds: list[int]) -> None:
        """Do what the message says. The descriptors that it leaves in `fds` are closed. Raises ChannelError."""
        if "answer" in message:
            self._hear(message, fds)
        elif "call" in message:
            mine, verb = number(message, "call"), text(message, "verb")
            if mine in self._requests or len(self._requests) >= CALLS_MAX:
                raise ChannelError("it calls too often at once, or twice by one number")
            self._requests[mine] = request = Request()
            gevent.spawn(self._answer, mine, verb, message, request)
        elif "cancel" in message:
            # It may have been answered already.
            if found := self._requests.get(number(message, "cancel")):
                found.cancel()
        else:
            self._told(text(message, "tell"), message)

    def _hear(self, message: Message, fds: list[int]) -> None:
        """The peer answers one of our calls."""
        error = error_of(message) if "error" in message else None
        pending = self._pending.pop(number(message, "answer"), None)
        if pending is None:
            raise ChannelError("it answers what nobody asked")
        if error is not None:
            pending.answer.set_exception(error)
            return
        answer = Answer(message, list(fds))
        fds.clear()
        if pending.late is None:
            pending.answer.set(answer)
        else:
            _give_late(pending, answer)

    def _answer(self, mine: int, verb: str, message: Message, request: Request) -> None:
        """Answer one of the peer's calls."""
        answer = Answer({})
        try:
            answer = self._serve(verb, message, request)
            said = answer.values
        except ChannelError as exc:
            self._break(str(exc))
            return
        except EtherwsError as exc:
            said = error_values(exc)
        except Exception as exc:
            log.exception("cannot answer %r", verb)
            said = error_values(ChannelError(f"unexpected {type(exc).__name__}: {exc}"))
        finally:
            self._requests.pop(mine, None)
        try:
            self._send({**said, "answer": mine}, answer.fds)
        except ChannelError as exc:
            # If the peer is there, it waits.
            with contextlib.suppress(ChannelError):
                self._send({**error_values(exc), "answer": mine})
                answer.undo()
        answer.then()

    def _break(self, why: str) -> None:
        if not self.failure:
            self.failure = why
            self._datagrams.drop_queue()
            self._end_calls()
            self._on_broken(why)

    def _end_calls(self) -> None:
        """Nobody will answer, and nobody waits for answers."""
        for pending in self._pending.values():
            pending.answer.set_exception(ChannelError(self.failure))
        self._pending.clear()
        for request in list(self._requests.values()):
            request.cancel()

    def _finish(self) -> None:
        """The peer has ended, or this end does."""
        self.failure = self.failure or "the other process has ended"
        self._datagrams.close()
        self._end_calls()
        if self._reader is not None:
            self._on_ended()


def _give_late(pending: _Pending, answer: Answer) -> None:
    """Give the caller, who waits no longer, an answer that came all the same."""
    assert pending.late is not None
    try:
        pending.late(answer)
    finally:
        close_all(answer.fds)
