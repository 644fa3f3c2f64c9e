"""Read what an error says in its body, for a bounded time: from a server, or from a proxy.

The body helps who reads the log, and no more: the connection has failed already. Read next: http_answer.py, which
finds the body's end; answer_text.py, which finds the words in it.
"""

from __future__ import annotations

import contextlib

import gevent

from etherws.client.http_answer import Body, HttpAnswer, read_body
from etherws.tunnel.stream import Stream

#: Seconds to wait for the body. It comes with the head, or right behind it.
BODY_SECONDS = 1.0


def error_body(stream: Stream, answer: HttpAnswer) -> bytes:
    """The beginning of the answer's body: what comes within BODY_SECONDS, BODY_MAX bytes at most."""
    body = Body(answer)
    # Also a limit of the caller's ends it: then the error is raised at once, with what has come.
    with contextlib.suppress(gevent.Timeout, OSError), gevent.Timeout(BODY_SECONDS):
        read_body(stream.recv, body)
    return bytes(body.data)
