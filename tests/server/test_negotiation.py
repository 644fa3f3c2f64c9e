"""What a server agrees on with each client, and what its 101 says of it."""

from __future__ import annotations

import pytest

from etherws import features
from etherws.features import Membership
from etherws.server.negotiation import check_wanted, link_wanted, negotiate
from etherws.tunnel.offloads import Offload
from tests.lab.environ import GOOD, environ

KEY = GOOD["HTTP_SEC_WEBSOCKET_KEY"]


def headers(offered: str | None, listed: str | None, newest: int = 2, mtu: int | None = 1500) -> dict[str, str]:
    """What the 101 has beside RFC 6455's own headers."""
    asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL=offered, HTTP_ETHERWS_FEATURES=listed)
    agreed = negotiate(asked, newest, None, mtu)
    named = dict(agreed.headers)
    assert (agreed.version.number == 2) == ("Etherws-Features" in named)
    assert (agreed.version.number == 2) == (named.get("Sec-WebSocket-Protocol") == "etherws.v2")
    return named


@pytest.mark.parametrize("offered", ["etherws.v2", "chat, \tetherws.v2 ,superchat", "etherws.v1, etherws.v2"])
@pytest.mark.parametrize("listed", ["v2", "v2, unknown=1;a=b", " v2;later=1\t"])
def test_version_2_is_agreed_on_where_the_request_has_both(offered: str, listed: str) -> None:
    assert features.proved(KEY, headers(offered, listed)["Etherws-Features"]) == {"v2": ""}


@pytest.mark.parametrize(
    ("offered", "listed", "words"),
    [
        ("etherws.v2", None, "without the header Etherws-Features: a proxy on the way removed it, or the client is"),
        ("etherws.v2", "v2,,", "but its header Etherws-Features is malformed"),
        ("etherws.v2", "v2, v2", "but its header Etherws-Features is malformed"),
        ("etherws.v2", "", "but its header Etherws-Features is malformed"),
        ("etherws.v2", "v3, mtu=1500", "but its header Etherws-Features does not list v2"),
    ],
)
def test_half_an_offer_gets_version_1_and_the_reason_is_told(offered: str, listed: str | None, words: str) -> None:
    assert headers(offered, listed) == {}
    asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL=offered, HTTP_ETHERWS_FEATURES=listed)
    assert words in negotiate(asked, 2, None, 1500).doubt


@pytest.mark.parametrize("offered", [None, "", "chat, superchat", "etherws.v22", "xetherws.v2", "ETHERWS.V2"])
@pytest.mark.parametrize("listed", [None, "v2", "v2,,"])
def test_who_does_not_offer_version_2_gets_no_header_of_ours(offered: str | None, listed: str | None) -> None:
    assert headers(offered, listed) == {}
    asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL=offered, HTTP_ETHERWS_FEATURES=listed)
    assert negotiate(asked, 2, None, 1500).doubt == ""


@pytest.mark.parametrize("takes", [False, True])
@pytest.mark.parametrize("asks", [False, True])
def test_udp_super_frames_are_agreed_on_if_both_ends_take_them(takes: bool, asks: bool) -> None:
    for listed, newest, told in (("v2", 2, {"v2": ""}), ("v2, mtu=1500", 2, {"v2": "", "mtu": "=1500"}), ("v2", 1, {})):
        more = ", uso" if asks else ""
        asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL="etherws.v2", HTTP_ETHERWS_FEATURES=listed + more)
        agreed = negotiate(asked, newest, None, 1500, uso=takes)
        both = takes and asks and newest == 2
        text = dict(agreed.headers).get("Etherws-Features", "")
        assert (features.proved(KEY, text) or {}) == {**told, **({"uso": ""} if both else {})}
        assert (agreed.version.offload is Offload.TCP_UDP) is both


def test_version_1_by_name_and_a_token_are_answered_as_offered() -> None:
    assert headers("etherws.v1", None) == {"Sec-WebSocket-Protocol": "etherws.v1"}
    for offered, listed, bearer, chosen in (
        ("authorization.bearer.x", None, "authorization.bearer.x", "authorization.bearer.x"),
        ("etherws.v1, authorization.bearer.x", None, "authorization.bearer.x", "etherws.v1"),
        ("etherws.v2, authorization.bearer.x", None, "authorization.bearer.x", "authorization.bearer.x"),
        ("etherws.v2, authorization.bearer.x", "v2", "authorization.bearer.x", "etherws.v2"),
    ):
        asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL=offered, HTTP_ETHERWS_FEATURES=listed)
        assert ("Sec-WebSocket-Protocol", chosen) in negotiate(asked, 2, bearer, 1500).headers


def test_with_version_1_only_nothing_is_said_of_version_2() -> None:
    assert headers("etherws.v2", "v2, mtu=1500", newest=1) == {}
    assert headers("etherws.v2, etherws.v1", "v2", newest=1) == {"Sec-WebSocket-Protocol": "etherws.v1"}
    assert negotiate(environ(HTTP_SEC_WEBSOCKET_PROTOCOL="etherws.v2"), 1, None, 1500).doubt == ""


@pytest.mark.parametrize(
    ("listed", "mtu", "told", "heard"),
    [
        ("v2, mtu=9000", 1500, {"v2": "", "mtu": "=1500"}, 9000),
        ("v2, mtu=9000", None, {"v2": ""}, 9000),
        ("v2", 1500, {"v2": ""}, None),
        ("v2, mtu=0", 1500, {"v2": "", "mtu": "=1500"}, None),
        ("v2, mtu", 1500, {"v2": "", "mtu": "=1500"}, None),
    ],
)
def test_each_end_tells_its_mtu(listed: str, mtu: int | None, told: dict[str, str], heard: int | None) -> None:
    assert features.proved(KEY, headers("etherws.v2", listed, mtu=mtu)["Etherws-Features"]) == told
    asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL="etherws.v2", HTTP_ETHERWS_FEATURES=listed)
    assert negotiate(asked, 2, None, mtu).mtu == heard


@pytest.mark.parametrize(
    ("listed", "kind"),
    [("v2, check", "check"), ("check=idle", "idle"), ("check=x", None), ("check,,", None), (None, None)],
)
def test_a_client_asks_for_a_kind_of_check(listed: str | None, kind: str | None) -> None:
    assert check_wanted(environ(HTTP_ETHERWS_FEATURES=listed)) == kind


@pytest.mark.parametrize(
    ("offered", "listed", "newest", "told", "protocol"),
    [
        ("etherws.v2", "v2, check", 2, {"v2": "", "check": "", "mtu": "=1500"}, "etherws.v2"),
        ("etherws.v2", "v2, mtu=9000, check", 1, {"check": "", "mtu": "=1500"}, None),
        (None, "check", 2, {"check": "", "mtu": "=1500"}, None),
        ("etherws.v1", "check, mtu=1400", 2, {"check": "", "mtu": "=1500"}, "etherws.v1"),
    ],
)
def test_a_check_is_agreed_on_by_proof_with_both_versions(
    offered: str | None, listed: str, newest: int, told: dict[str, str], protocol: str | None
) -> None:
    asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL=offered, HTTP_ETHERWS_FEATURES=listed)
    agreed = negotiate(asked, newest, None, 1500, features.CHECK)
    named = dict(agreed.headers)
    assert features.proved(KEY, named["Etherws-Features"]) == told
    assert named.get("Sec-WebSocket-Protocol") == protocol
    assert agreed.version.number == (2 if "v2" in told else 1)
    assert agreed.mtu == features.mtu_of(features.parse(listed) or {})


@pytest.mark.parametrize(
    ("listed", "granted", "told", "asked"),
    [
        ("v2, mtu=1400, padding", True, {"v2": "", "mtu": "=1500", "padding": ""}, 1),
        ("v2, padding", False, {"v2": ""}, 1),
        # Who does not offer it is not counted.
        ("v2", True, {"v2": ""}, 0),
        ("padding", True, None, 0),
    ],
)
def test_padding_is_agreed_on_if_the_client_offers_it_and_the_server_grants_it(
    listed: str, granted: bool, told: dict[str, str] | None, asked: int
) -> None:
    calls: list[bool] = []

    def grant() -> bool:
        calls.append(granted)
        return granted

    request = environ(HTTP_SEC_WEBSOCKET_PROTOCOL="etherws.v2", HTTP_ETHERWS_FEATURES=listed)
    agreed = negotiate(request, 2, None, 1500, padding=grant)
    answer = dict(agreed.headers).get("Etherws-Features")
    assert (features.proved(KEY, answer) if answer else None) == told
    assert agreed.version.padding == ("padding" in (told or {})) == ("padding" in agreed.features)
    assert len(calls) == asked
    # No check has any.
    assert not negotiate(request, 2, None, 1500, features.CHECK).version.padding


LISTED = "v2, mtu=1400, link=3;of=8;id=" + 22 * "i"


@pytest.mark.parametrize(
    ("offered", "listed", "newest", "found"),
    [
        ("etherws.v2", LISTED, 2, Membership(3, 8, 22 * "i")),
        ("etherws.v2", f"{LISTED};new", 2, Membership(3, 8, 22 * "i", True)),
        ("etherws.v2", LISTED, 1, None),
        ("etherws.v1", LISTED, 2, None),
        (None, LISTED, 2, None),
        ("etherws.v2", LISTED.removeprefix("v2, "), 2, None),
        ("etherws.v2", "v2, link", 2, None),
        ("etherws.v2", "v2,,", 2, None),
        ("etherws.v2", None, 2, None),
    ],
)
def test_a_link_is_wanted_with_version_2_only(
    offered: str | None, listed: str | None, newest: int, found: Membership | None
) -> None:
    asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL=offered, HTTP_ETHERWS_FEATURES=listed)
    assert link_wanted(asked, newest) == found


def test_the_101_says_which_connection_it_is_and_not_which_link() -> None:
    asked = environ(HTTP_SEC_WEBSOCKET_PROTOCOL="etherws.v2", HTTP_ETHERWS_FEATURES=LISTED)
    agreed = negotiate(asked, 2, None, 1500, link=Membership(3, 4, 22 * "i", True))
    told = features.proved(KEY, dict(agreed.headers)["Etherws-Features"])
    assert told == {"v2": "", "link": "=3;of=4", "mtu": "=1500"}
    assert agreed.features == ("v2", "mtu", "link")
    # Who gets one connection only is told nothing.
    agreed = negotiate(asked, 2, None, 1500)
    assert "link" not in dict(agreed.headers)["Etherws-Features"]
