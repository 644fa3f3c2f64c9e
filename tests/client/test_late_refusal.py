"""Refusals after the 101, by the Close that stands for them."""

from __future__ import annotations

import pytest

from etherws.client.late_refusal import late_refusal
from etherws.errors import ConnectError, ConnectionClosed, DeviceLost, NotAdmitted, Refused
from etherws.server.takeover import close_of


def told(refusal: Refused) -> ConnectionClosed:
    """What the client makes of the Close by which a server refuses."""
    code, reason = close_of(refusal)
    return ConnectionClosed(f"closed by the peer, code {code}: {reason}", code, reason)


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden"])
def test_wrong_credentials_are_a_refusal(status: str) -> None:
    found = late_refusal("ws://server", told(Refused(status, "wrong; bad")))
    assert isinstance(found, NotAdmitted)
    assert str(found) == f"ws://server: refused after its 101: {status}; wrong; bad"


def test_a_server_that_has_no_place_names_the_time_to_wait() -> None:
    for headers, wait in (([], 10.0), ([("Retry-After", "60")], 60.0), ([("Retry-After", "9999")], 300.0)):
        for status in ("429 Too Many Requests", "503 Service Unavailable"):
            found = late_refusal("ws://server", told(Refused(status, "no place", headers)))
            assert type(found) is ConnectError
            assert found.wait == wait


def test_any_other_end_is_none() -> None:
    for end in (
        DeviceLost("gone"),
        ConnectionClosed("lost"),
        told(Refused("404 Not Found", "no tunnel")),
        ConnectionClosed("closed", 1008, "replaced by another connection"),
        ConnectionClosed("closed", 1000, "401 Unauthorized; no"),
    ):
        assert late_refusal("ws://server", end) is None
