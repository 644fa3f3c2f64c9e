"""Which header was lost, by the words of etherws itself."""

from __future__ import annotations

from typing import Any

import pytest

from etherws.check.path.own_words import DRAINING, ENDED, is_etherws, lost, lost_authorization, no_check
from etherws.errors import Refused
from etherws.server import handshake
from etherws.server.authenticate import Authenticator
from etherws.server.gate import Gate
from etherws.settings import ServerSettings

GOOD = {
    "REQUEST_METHOD": "GET",
    "SERVER_PROTOCOL": "HTTP/1.1",
    "HTTP_HOST": "lan.example",
    "HTTP_UPGRADE": "websocket",
    "HTTP_CONNECTION": "Upgrade",
    "HTTP_SEC_WEBSOCKET_VERSION": "13",
    "HTTP_SEC_WEBSOCKET_KEY": "dGhlIHNhbXBsZSBub25jZQ==",
}


def said(**changes: str) -> bytes:
    """What the server answers to a request with these changes; an empty value leaves a header out."""
    environ = {name: value for name, value in {**GOOD, **changes}.items() if value}
    with pytest.raises(Refused) as caught:
        handshake.accept(environ)
    return f"{caught.value} (refusal 01234567)\n".encode()


@pytest.mark.parametrize(
    ("changes", "header"),
    [
        ({"HTTP_UPGRADE": "", "HTTP_SEC_WEBSOCKET_KEY": ""}, "Upgrade and Sec-WebSocket-Key"),
        ({"HTTP_UPGRADE": ""}, "Upgrade"),
        ({"HTTP_CONNECTION": "close"}, "Connection"),
        ({"HTTP_UPGRADE": "", "SERVER_PROTOCOL": "HTTP/1.0"}, "Upgrade, as the request came in HTTP/1.0"),
        ({"HTTP_HOST": ""}, "Host"),
        ({"HTTP_SEC_WEBSOCKET_VERSION": ""}, "Sec-WebSocket-Version"),
        ({"HTTP_SEC_WEBSOCKET_KEY": ""}, "Sec-WebSocket-Key"),
        ({"REQUEST_METHOD": "POST"}, "the method GET"),
    ],
)
def test_each_header_that_a_hop_can_lose(changes: dict[str, str], header: str) -> None:
    body = said(**changes)
    assert lost(body) == header
    assert is_etherws(body)


def test_lost_credentials(tmp_path: Any) -> None:
    (tmp_path / "tokens").write_text("")
    with pytest.raises(Refused) as caught:
        Authenticator(ServerSettings(token_file=str(tmp_path / "tokens"))).authenticate({})
    body = str(caught.value).encode()
    assert lost_authorization(401, body, True)
    assert not lost_authorization(401, body, False)
    assert not lost_authorization(403, body, True)
    assert is_etherws(body)
    with pytest.raises(Refused) as caught:
        Authenticator(ServerSettings(token_file=str(tmp_path / "tokens"))).authenticate(
            {"HTTP_AUTHORIZATION": "Bearer x"}
        )
    assert is_etherws(str(caught.value).encode())
    assert not lost_authorization(401, str(caught.value).encode(), True)


def test_a_check_that_is_not_answered() -> None:
    assert no_check(b"this server has checks turned off (--no-check)")
    assert is_etherws(b"this server has checks turned off (--no-check)")
    assert not no_check(b"no port is free")


def test_others_lose_nothing() -> None:
    assert lost(b"<html>502 Bad Gateway") == ""
    assert not is_etherws(b"<html>502 Bad Gateway")


def test_a_drain_and_a_kick_are_words_of_etherws() -> None:
    gate = Gate()
    gate.shut_out(["alice"], [], 60)
    with pytest.raises(Refused) as ended:
        gate.check("alice", "192.0.2.1")
    gate.draining = True
    with pytest.raises(Refused) as draining:
        gate.check("bob", "192.0.2.1")
    assert str(ended.value).encode().startswith(ENDED)
    assert str(draining.value).encode().startswith(DRAINING)
    assert all(is_etherws(str(each.value).encode()) for each in (ended, draining))
