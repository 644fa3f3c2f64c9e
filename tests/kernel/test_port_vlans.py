"""The VLANs of a port, as messages to and from the kernel. What they do is tried where bridges filter: tests/vm."""

from __future__ import annotations

import struct

import pytest

from etherws.errors import DeviceError
from etherws.kernel import bridge_tables, links, netlink, port_vlans
from etherws.kernel.link_changes import EVERYTHING
from etherws.kernel.place import Place
from etherws.kernel.port_settings import PortSettings
from etherws.kernel.port_vlans import missing, read, requests, reset
from etherws.kernel.rules import PVID, UNTAGGED, Rules
from tests.lab.hosts import Host
from tests.lab.lan import index_of

ACCESS = PVID | UNTAGGED


def parsed(request: bytes) -> tuple[int, tuple[int, int], list[tuple[int, int]]]:
    """The kind of a message; the family and the index; and flags and number of each VLAN."""
    [message] = netlink.messages(request)
    family, index = struct.unpack_from("=B3xi", message.body)
    [(kind, spec)] = netlink.attributes(message.body[16:])
    assert kind == links.IFLA_AF_SPEC
    found = []
    for kind, value in netlink.attributes(spec):
        assert kind == port_vlans.IFLA_BRIDGE_VLAN_INFO
        found.append(struct.unpack("=HH", value))
    return message.kind, (family, index), found


def test_a_port_leaves_all_vlans_and_joins_its_own() -> None:
    leave, join = map(parsed, requests(7, {10: ACCESS, 20: 0, 21: 0, 22: 0, 4094: 0}))
    assert leave == (links.RTM_DELLINK, (7, 7), [(8, 1), (16, 4094)])
    assert join == (links.RTM_SETLINK, (7, 7), [(ACCESS, 10), (8, 20), (16, 22), (0, 4094)])
    assert [parsed(one)[2] for one in requests(7, {})] == [[(8, 1), (16, 4094)]]


def test_rules_say_which_vlans() -> None:
    assert Rules().port_vlans == {}
    assert Rules(vlan=10).port_vlans == {10: ACCESS}
    assert Rules(vlan=10, vlans=frozenset({10, 20})).port_vlans == {10: ACCESS, 20: 0}
    # Untagged frames are in no VLAN then.
    assert Rules(vlans=frozenset({20})).port_vlans == {20: 0}
    assert Rules(vlan=1).on_request
    assert not Rules().on_request


def entry(flags: int, first: int, last: int | None = None) -> bytes:
    body = netlink.attribute(1, struct.pack("=HH", flags, first))
    if last is not None:
        body += netlink.attribute(2, struct.pack("=H", last))
    return netlink.attribute(1 | links.NLA_F_NESTED, body)


def test_what_the_kernel_says_is_read() -> None:
    head = struct.pack("=BxxxI", 7, 3)
    body = head + entry(ACCESS, 10) + entry(0, 20, 22) + netlink.attribute(2, b"global")
    assert dict(read(body, 3)) == {10: ACCESS, 20: 0, 21: 0, 22: 0}
    assert not dict(read(body, 4))
    assert not dict(read(body[:5], 3))
    assert len(dict(read(head + entry(0, 1, 65_535), 3))) == 4094
    # Cut anywhere, nothing is an error.
    for size in range(len(body)):
        assert dict(read(body[:size], 3)).keys() <= {10, 20, 21, 22}
    assert not dict(read(head + netlink.attribute(1, netlink.attribute(1, b"xx")), 3))


def test_a_bridge_that_filters_no_vlans_is_named_with_the_mend(lan: Host) -> None:
    rules = Rules(vlan=10)
    with lan.namespace.inside():
        for name, words in (
            ("port", r"cannot put port into its VLANs: br0 does not filter VLANs; ip link set br0 type bridge vlan_"),
            ("far-port", r"cannot put far-port into its VLANs: it is in no bridge; start etherws with --bridge"),
        ):
            index = index_of(lan, name)
            settings = PortSettings(Place(index))
            with pytest.raises(DeviceError, match=words):
                settings.apply(rules)
            settings.clear()
            reset(index)
        settings = PortSettings(Place(index))
        with pytest.raises(DeviceError, match="br0 does not filter VLANs"):
            settings.join(index_of(lan, "br0"), rules)
        reset(999)
    # It is out of the bridge again, and up.
    found = lan.links()["far-port"]
    assert not found.get("master")
    assert found["flags"] & 1


def test_a_bridge_of_802_1ad_is_refused(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """For it a tag of 802.1Q is none: a client could put its frames into any VLAN behind the bridge's own."""
    values = netlink.attribute(7, b"\1") + netlink.attribute(8, bytes.fromhex("88a8"))
    monkeypatch.setattr(links, "_kind", lambda _: ("bridge", memoryview(values)))
    with (
        lan.namespace.inside(),
        pytest.raises(DeviceError, match=r"br0 has tags of 802\.1ad; ip link set br0 type bridge vlan_protocol 802.1Q"),
    ):
        PortSettings(Place(index_of(lan, "port"))).apply(Rules(vlan=10))


def test_others_that_change_vlans_are_noticed(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel: list[tuple[int, int]] = []
    monkeypatch.setattr(port_vlans, "now", lambda _: iter(kernel))
    settings, rules = PortSettings(Place(index_of(lan, "port"))), Rules(vlan=10)
    with lan.namespace.inside():
        assert settings.missing(rules, "port", EVERYTHING) == "port is not in its VLANs any more"
        kernel.append((10, ACCESS))
        assert settings.missing(rules, "port", EVERYTHING) == ""
        assert settings.missing(Rules(), "port", EVERYTHING) == ""

    def silent(_: int) -> None:
        raise OSError

    monkeypatch.setattr(port_vlans, "now", silent)
    assert not missing(1, {10: ACCESS})


def test_the_kernels_answer_is_asked_for(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    body = struct.pack("=BxxxI", 7, 3) + entry(ACCESS, 10)
    messages = [netlink.Message(kind, 0, 0, memoryview(body), 0) for kind in (port_vlans.RTM_NEWVLAN, 3)]
    monkeypatch.setattr(bridge_tables, "dump", lambda *_: iter(messages))
    assert dict(port_vlans.now(3)) == {10: ACCESS}


def test_a_bridge_that_filters_is_told(lan: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []
    answers: list[OSError | None] = [None, None]

    def send_all(requests: list[bytes]) -> list[OSError | None]:
        sent[:] = requests
        return answers

    monkeypatch.setattr(links, "bridge_vlans", lambda _: (True, 5, False))
    monkeypatch.setattr(links, "send_all", send_all)
    with lan.namespace.inside():
        settings = PortSettings(Place(index_of(lan, "port")))
        settings.apply(Rules(vlan=10))
        assert parsed(sent[1])[2] == [(ACCESS, 10)]
        assert settings.has_vlans
        settings.apply(Rules())
        assert parsed(sent[1])[2] == [(ACCESS, 5)]
        assert not settings.has_vlans
        answers[1] = OSError(22, "no")
        with pytest.raises(DeviceError, match="cannot put port into its VLANs: Invalid argument"):
            settings.apply(Rules(vlans=frozenset({20})))
        with pytest.raises(DeviceError, match="into the usual VLAN"):
            reset(index_of(lan, "port"))
