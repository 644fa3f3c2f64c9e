"""The client's opening handshake: what it asks for, and what it makes of each 101."""

from __future__ import annotations

import re

import pytest

from etherws import features
from etherws.client.attempt import split_uri
from etherws.client.upgrade import Agreement, Upgrade
from etherws.errors import ConnectError
from etherws.tunnel.wire import Buffer
from tests.lab.servers import switching
from tests.lab.streams import FakeStream

URI = split_uri("ws://server.example/")[0]
OFFER = {"v2": "", "mtu": "=9000"}


class Answering(FakeStream):
    """Answers the request by a 101, with these headers."""

    def __init__(self, protocol: str, listed: str | dict[str, str]) -> None:
        """`listed` is the header's value, or a list to prove."""
        super().__init__()
        self._protocol, self._listed = protocol, listed

    def sendall(self, data: Buffer) -> None:
        """See Stream."""
        super().sendall(data)
        data = bytes(data)
        found = re.search(rb"Sec-WebSocket-Key: (\S+)", data)
        assert found
        listed = self._listed
        text = listed if isinstance(listed, str) else features.answer(found[1].decode(), listed)
        self.feed(switching(data, Sec_WebSocket_Protocol=self._protocol.encode(), Etherws_Features=text.encode()))


def agreed(protocol: str, listed: str | dict[str, str], offer: features.Features | None = OFFER) -> Agreement:
    """What the client makes of this answer."""
    upgrade = Upgrade(URI, offer)
    return upgrade.agreed(upgrade.ask(Answering(protocol, listed), [], []))


def asked(offer: features.Features | None) -> list[str]:
    """The lines of the request that have to do with the negotiation."""
    stream = Answering("", "")
    Upgrade(URI, offer).ask(stream, [], [])
    lines = stream.sent.decode().split("\r\n")
    return [line for line in lines if re.match("(?i)sec-websocket-protocol|etherws", line)]


def test_the_request_offers_version_2_and_lists_the_features() -> None:
    assert asked(OFFER) == ["Sec-WebSocket-Protocol: etherws.v2", "Etherws-Features: v2, mtu=9000"]


def test_without_an_offer_the_request_has_neither_header() -> None:
    assert asked(None) == []


@pytest.mark.parametrize(
    ("listed", "mtu"),
    [
        ({"v2": ""}, None),
        ({"v2": "", "mtu": "=1500"}, 1500),
        ({"v2": ";later=1", "unknown": "=2;a=b", "mtu": "=1400"}, 1400),
    ],
)
def test_version_2_is_agreed_on_by_name_and_proof(listed: dict[str, str], mtu: int | None) -> None:
    found = agreed("etherws.v2", listed)
    assert (found.version.number, found.mtu, found.doubt) == (2, mtu, "")


@pytest.mark.parametrize("listed", ["", "v2, mtu=9000", "v2,,", {"mtu": "=1500"}])
def test_an_answer_without_the_name_is_version_1(listed: str | dict[str, str]) -> None:
    found = agreed("", listed)
    assert (found.version.number, found.mtu, found.doubt) == (1, None, "")


@pytest.mark.parametrize(
    ("protocol", "listed", "words"),
    [
        ("etherws.v2", "", "it chose etherws.v2 without the header Etherws-Features: a proxy on the way removed the"),
        ("etherws.v2", "v2, mtu=9000", "does not belong to this handshake: a proxy on the way makes the handshake"),
        ("etherws.v2", "v2, proof=:" + "A" * 43 + "=:", "does not belong to this handshake"),
        ("etherws.v2", "v2,,", "does not belong to this handshake"),
        ("etherws.v2", {"mtu": "=1500"}, "does not belong to this handshake"),
        ("", {"v2": ""}, "a proxy on the way removed Sec-WebSocket-Protocol from its answer"),
    ],
)
def test_half_an_agreement_is_a_doubt(protocol: str, listed: str | dict[str, str], words: str) -> None:
    found = agreed(protocol, listed)
    assert (found.version.number, found.mtu) == (1, None)
    assert words in found.doubt


def test_who_offered_nothing_takes_no_list() -> None:
    found = agreed("", {"v2": "", "mtu": "=1500"}, offer=None)
    assert (found.version.number, found.mtu, found.doubt) == (1, None, "")
    with pytest.raises(ConnectError, match="no valid answer"):
        agreed("etherws.v2", {"v2": ""}, offer=None)
