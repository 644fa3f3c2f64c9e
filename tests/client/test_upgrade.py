"""The client's opening handshake: what it asks for, and what it makes of each 101."""

from __future__ import annotations

import pytest

from etherws import __version__, features
from etherws.client.http_answer import HttpAnswer
from etherws.client.upgrade import Agreement, Upgrade
from etherws.client.uris import split_uri
from etherws.errors import ConnectError
from tests.lab.answering import Answering
from tests.lab.streams import FakeStream

URI = split_uri("ws://server.example/")[0]
OFFER = {"v2": "", "mtu": "=9000"}


def agreed(protocol: str, listed: str | dict[str, str], offer: features.Features | None = OFFER) -> Agreement:
    """What the client makes of this answer."""
    upgrade = Upgrade(URI, offer)
    return upgrade.agreed(upgrade.ask(Answering(protocol, listed), [], []))


def asked(offer: features.Features | None) -> list[str]:
    """What the request says of version 2."""
    stream = Answering("", "")
    Upgrade(URI, offer).ask(stream, [], [])
    return stream.offers()


def test_the_request_offers_version_2_and_lists_the_features() -> None:
    assert asked(OFFER) == ["Sec-WebSocket-Protocol: etherws.v2", "Etherws-Features: v2, mtu=9000"]


def test_without_an_offer_the_request_has_neither_header() -> None:
    assert asked(None) == []


def test_the_users_headers_replace_ours() -> None:
    stream = Answering("", "")
    Upgrade(URI, OFFER).ask(stream, [("X", "ours"), ("Y", "ours")], [("x", "1"), ("X", "2"), ("Host", "other.example")])
    lines = [line for line in stream.asked.split("\r\n") if line[:2].lower() in ("x:", "y:", "ho", "us")]
    assert lines == [f"User-Agent: etherws/{__version__}", "Y: ours", "x: 1", "X: 2", "Host: other.example"]


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


@pytest.mark.parametrize("offered", [True, False])
@pytest.mark.parametrize("taken", [True, False])
def test_padding_is_agreed_on_only_if_it_was_offered(offered: bool, taken: bool) -> None:
    named = {"padding": ""}
    found = agreed("etherws.v2", {"v2": "", **(named if taken else {})}, {**OFFER, **(named if offered else {})})
    assert found.version.padding == (offered and taken)


def test_who_offered_nothing_takes_no_list() -> None:
    found = agreed("", {"v2": "", "mtu": "=1500"}, offer=None)
    assert (found.version.number, found.mtu, found.doubt) == (1, None, "")
    with pytest.raises(ConnectError, match="no valid answer"):
        agreed("etherws.v2", {"v2": ""}, offer=None)


def test_a_101_in_http_1_0_is_called_that() -> None:
    upgrade = Upgrade(split_uri("ws://server.example/")[0], None)
    with pytest.raises(ConnectError, match=r"^gave no valid answer to the upgrade: it is in HTTP/1\.0; does a proxy"):
        upgrade.agreed(HttpAnswer(b"HTTP/1.0 101 Switching Protocols"))


def test_without_tls_a_lost_connection_may_mean_that_the_port_wants_it() -> None:
    for uri, words in (
        ("ws://server.example/", r"server\? does this port want TLS \(wss://\)\?$"),
        ("wss://a/", r"server\?$"),
    ):
        with pytest.raises(ConnectError, match=words):
            Upgrade(split_uri(uri)[0], None).ask(FakeStream(b""), [], [])


def test_a_check_by_version_1_names_no_subprotocol() -> None:
    assert asked({"check": ""}) == ["Etherws-Features: check"]


@pytest.mark.parametrize(
    ("protocol", "listed", "version", "check", "mtu"),
    [
        ("etherws.v2", {"v2": "", "mtu": "=1500", "check": ""}, 2, "check", 1500),
        ("", {"check": "", "mtu": "=1500"}, 1, "check", 1500),
        ("etherws.v2", {"v2": ""}, 2, None, None),
        ("", "v2, check", 1, None, None),
    ],
)
def test_a_check_is_agreed_on_by_proof(
    protocol: str, listed: str | dict[str, str], version: int, check: str | None, mtu: int | None
) -> None:
    found = agreed(protocol, listed, {**OFFER, "check": ""})
    assert (found.version.number, features.check_of(found.features), found.mtu, found.doubt) == (
        version,
        check,
        mtu,
        "",
    )
