"""The chains at the forward hook, of nf_tables and of the old iptables."""

from __future__ import annotations

import contextlib
import socket
import struct

import pytest

from etherws.kernel import forward_chains
from etherws.kernel.forward_chains import Chain, chains
from tests.lab.hosts import Host


def test_chains_of_nf_tables(host: Host) -> None:
    host.command("nft add table ip filter")
    host.command("nft add chain ip filter FORWARD { type filter hook forward priority 0 ; policy drop ; }")
    host.command("nft add chain ip filter INPUT { type filter hook input priority 0 ; policy drop ; }")
    host.command("nft add table bridge b")
    host.command("nft add chain bridge b f { type filter hook forward priority 0 ; }")
    host.command("nft add rule bridge b f counter")
    host.command("nft add chain bridge b other")
    with host.namespace.inside():
        assert chains() == [Chain("ip", "filter", "FORWARD", True, False), Chain("bridge", "b", "f", False, True)]


def test_chains_of_the_old_iptables(host: Host) -> None:
    with host.namespace.inside():
        for family in forward_chains._LEGACY:
            # To ask for a table makes it, as iptables does.
            with (
                contextlib.suppress(OSError),
                socket.socket(family.family, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock,
            ):
                question = forward_chains._INFO.pack(b"filter", *[0] * 13)
                forward_chains._asked(sock, family.level, forward_chains._GET_INFO, question)
        found = chains()
    if not found:
        pytest.skip("this kernel has no old iptables")
    assert found == [
        Chain("ip", "filter", "FORWARD", False, False, legacy=True),
        Chain("ip6", "filter", "FORWARD", False, False, legacy=True),
    ]


@pytest.mark.parametrize(("verdict", "drops"), [(-1, True), (-2, False)])
def test_a_policy_of_the_old_iptables(monkeypatch: pytest.MonkeyPatch, verdict: int, drops: bool) -> None:
    def asked(sock: object, level: int, option: int, question: bytes) -> bytes:
        if option == forward_chains._GET_INFO:
            return forward_chains._INFO.pack(b"filter", 14, 0, 0, 8, 0, 0, 0, 0, 100, 0, 0, 4, 300)
        entries = bytearray(300)
        struct.pack_into("=i", entries, 100 + 144, verdict)
        return question[: forward_chains._HEAD.size] + entries

    monkeypatch.setattr(forward_chains, "_asked", asked)
    family = forward_chains._Family("ip", socket.AF_UNIX, 0, 144, "")
    monkeypatch.setattr(socket, "IPPROTO_RAW", 0)
    assert forward_chains._forward_chain(family) == Chain("ip", "filter", "FORWARD", drops, True, legacy=True)


def test_a_huge_table_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = forward_chains._INFO.pack(b"filter", *[0] * 12, 1 << 30)
    monkeypatch.setattr(forward_chains, "_asked", lambda *_: huge)
    monkeypatch.setattr(socket, "IPPROTO_RAW", 0)
    with pytest.raises(OSError, match="bytes"):
        forward_chains._forward_chain(forward_chains._Family("ip", socket.AF_UNIX, 0, 144, ""))


def test_a_kernel_without_iptables_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = [family._replace(tables="/nowhere") for family in forward_chains._LEGACY]
    monkeypatch.setattr(forward_chains, "_LEGACY", nowhere)
    assert forward_chains._iptables() == []
