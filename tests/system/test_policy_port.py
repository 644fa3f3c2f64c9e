"""What a client may do, from the policy file to the port: real clients, real bridges, real frames."""

from __future__ import annotations

import re
import signal
import struct
from pathlib import Path

import pytest

from tests.lab.frames import frame
from tests.lab.hosts import OURS, Host, Process, until
from tests.lab.packets import ICMPV6, IPV4, IPV6, LINK_LOCAL, TAG, UDP, arp, icmpv6, ipv4, ipv6
from tests.lab.packets import frame as holding
from tests.lab.packets import udp as datagram
from tests.lab.peer import Peer, masked, request
from tests.lab.policy_lan import NAMES, Lan, closed, hears, hears_at_last, says, source
from tests.lab.refusals import Tell


def test_bridge_device_and_mtu_are_the_clients_own(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, '[client."alice"]\nbridge = "br-lab"\ndevice = "alice%d"\nmtu = 1400\n')
    lan.join("alice")
    until(lambda: "alice0" in host.links(), "alice's interface")
    links = host.links()
    assert links["alice0"].get("mtu") == 1400
    assert links["alice0"].get("master") == links["br-lab"]["index"]
    assert links["ethws0"].get("master") == links["br0"]["index"]
    # The first interface is still free for a client without an interface of its own.
    lan.join("bob")
    lan.server.says("'bob' joined on ethws0")


def test_a_name_that_may_not_connect_is_refused(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, '[default]\nconnect = false\n[client."alice"]\nconnect = true\n')
    lan.join("alice")
    status, answer = lan.refused("bob")
    assert status == b"HTTP/1.1 403 Forbidden"
    assert re.search(rb"\r\n\r\nthe policy does not let this client connect \(refusal [0-9a-f]{8}\)\n$", answer)
    lan.server.says("the policy does not let 'bob' connect")
    client = host.etherws(
        "client", "--foreground", "ws://127.0.0.1/", "--device", "far0", "--no-retry-on-auth-failure",
        env={"ETHERWS_CLIENT_USER": "bob:bob"},
    )  # fmt: skip
    assert client.ends() == 77
    assert "answered 403 Forbidden; it does not let this client in" in client.output
    tell("policy: connect = false", "the policy does not let this client connect", "answered 403 Forbidden", "as 401")


def test_a_newer_connection_of_a_name_replaces_the_older(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, "[client.bob]\nconnections = 2\n")
    first = lan.join("alice")
    index = host.links()["ethws0"]["index"]
    second = lan.join("alice")
    code, reason = closed(first)
    assert (code, reason) == (1008, b"")
    # On the same port, which the bridge knows.
    lan.server.says("'alice' joined on ethws0", times=2)
    assert host.links()["ethws0"]["index"] == index
    says(second, source(1))
    tell("policy: one connection too many", "closed by 1008, replaced", "lost: closed by the peer, code 1008", "30 s")
    bobs = [lan.join("bob") for _ in range(3)]
    assert closed(bobs[0])[0] == 1008
    for bob in bobs[1:]:
        says(second, source(2))
        hears(bob, source(2))
    assert set(host.links()) == {"lo", "br0", "ethws0", "ethws1", "ethws2"}


def test_two_clients_with_one_name_are_told_not_to_fight(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, "")
    for _ in range(4):
        last = lan.join("alice")
    status, answer = lan.refused("alice")
    assert status == b"HTTP/1.1 503 Service Unavailable"
    assert b"\r\nRetry-After: 10\r\n" in answer
    lan.server.says("several clients call themselves 'alice' and take ethws0 from each other; give each a name")
    says(last, source(1))
    # One that says who it was, is that one again, and takes nothing from anybody.
    marked = [lan.join("bob", Etherws_Resume="r" * 22) for _ in range(8)]
    says(marked[-1], source(3))
    hears(last, source(3))
    tell("policy: a name changes hands again and again", "no port is free for one more client", "503", "Retry-After")


def test_source_addresses_are_limited_by_number_and_by_name(host: Host, tmp_path: Path, tell: Tell) -> None:
    listed = (OURS + (7).to_bytes(3, "big")).hex(":")
    lan = Lan(host, tmp_path, f'[client.alice]\nmacs = 2\n[client.bob]\nmacs = ["{listed}"]\n')
    alice, bob, carol = (lan.join(name) for name in NAMES)
    for number in (1, 2, 3, 1):
        says(alice, source(number))
    for number in (1, 2, 1):
        hears(carol, source(number))
    says(bob, source(6))
    says(bob, source(7))
    hears(carol, source(7))
    alice.say(masked(0x88, b""))
    bob.say(masked(0x88, b""))
    lan.server.says("dropped 1 source-address", times=2)
    tell("policy: a third source address of two", "dropped, counted in the log", "nothing", "goes on")
    tell("policy: a source address that is not listed", "dropped, counted in the log", "nothing", "goes on")


def test_the_default_limit_is_256_addresses(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "")
    alice, bob = lan.join("alice"), lan.join("bob")
    for number in [*range(300), 0]:
        says(alice, source(number))
    for number in [*range(256), 0]:
        hears(bob, source(number))


def udp(to_port: int, from_port: int) -> bytes:
    """A broadcast UDP datagram in a frame."""
    body = struct.pack(">HHHH", from_port, to_port, 12, 0) + b"body"
    fields = [0x45, 0, 20 + len(body), 0, 0, 64, 17, 0, bytes(4), b"\xff" * 4]
    total = sum(struct.unpack(">10H", struct.pack(">BBHHHBBH4s4s", *fields)))
    fields[7] = ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF
    ip = struct.pack(">BBHHHBBH4s4s", *fields)
    return b"\xff" * 6 + OURS + bytes(2) + b"\x01" + b"\x08\x00" + ip + body


def advertisement() -> bytes:
    """An IPv6 router advertisement in a frame."""
    body = b"\x86" + bytes(15)
    addresses = b"\xfe\x80" + bytes(13) + b"\x01\xff\x02" + bytes(13) + b"\x01"
    ip = b"\x60\0\0\0" + struct.pack(">HBB", len(body), 58, 255) + addresses
    return b"\x33\x33\0\0\0\x01" + OURS + bytes(2) + b"\x01" + b"\x86\xdd" + ip + body


GUARDED = {
    "bpdu": bytes.fromhex("0180c2000000") + OURS + bytes(2) + b"\x01" + b"\x00\x26\x42\x42\x03" + bytes(43),
    "dhcp-server": udp(68, 67),
    "router-advertisement": advertisement(),
}


@pytest.mark.parametrize("guard", GUARDED)
def test_a_guard_drops_what_it_names_and_only_that_clients(host: Host, tmp_path: Path, tell: Tell, guard: str) -> None:
    lan = Lan(host, tmp_path, f'[client.alice]\ndrop = ["{guard}"]\n')
    alice, bob, carol = (lan.join(name) for name in NAMES)
    says(alice, GUARDED[guard])
    says(alice, source(1))
    hears(carol, source(1))
    says(bob, GUARDED[guard])
    hears(carol, GUARDED[guard])
    alice.say(masked(0x88, b""))
    lan.server.says(f"dropped 1 {guard}")
    tell(f"policy: drop = {guard}", "dropped, counted in the log", "nothing", "goes on")


def test_isolated_clients_hear_others_but_not_each_other(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, "[default]\nisolated = true\n[client.carol]\nisolated = false\n")
    alice, bob, carol = (lan.join(name) for name in NAMES)
    says(alice, source(1))
    hears(carol, source(1))
    says(carol, source(2))
    hears(bob, source(2))
    hears(alice, source(2))
    tell("policy: isolated, to another isolated client", "not forwarded", "nothing", "goes on")


def test_rates_are_limited(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, '[client.alice]\nrate-down = "2 Mbit/s"\nrate-up = "1 Mbit/s"\n')
    alice, bob = lan.join("alice"), lan.join("bob")
    # A second's worth at once, each way: more than waits in any queue at such a rate.
    for number in range(400):
        says(bob, source(number % 100, 1514))
    heard, marked = 0, source(200)
    says(bob, marked)
    while (got := alice.frame()[1]) != marked:
        heard += got.startswith(OURS, 6)
        # Where the queue was full, the mark was dropped as well.
        says(bob, marked)
    assert 0 < heard < 400
    tell("policy: more than rate-down", "queued for 50 ms, then dropped", "nothing", "goes on")
    for number in range(100):
        says(alice, source(number, 1514))
    for number in range(100):
        # Slowed down, not dropped.
        hears(bob, source(number, 1514))
    tell("policy: more than rate-up", "read later", "its TCP waits", "goes on")


def test_a_rate_is_the_clients_however_often_it_connects(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, '[client.alice]\nrate-up = "16 kbit/s"\n')
    bob, carol = lan.join("bob"), lan.join("carol")
    alice = lan.join("alice")
    alice.say(b"".join(masked(0x82, source(number, 1514)) for number in range(10)))
    for number in range(10):
        hears(bob, source(number, 1514))
    # Seven seconds' worth came at once. It goes, and comes again, as if nothing had been.
    alice.say(masked(0x88, b"\x03\xe8"))
    lan.server.says("as 'alice' left")
    again = lan.join("alice")
    says(again, source(20))
    lan.server.says("'alice' joined", times=2)
    says(carol, source(30))
    hears(bob, source(30))
    hears(bob, source(20))


def test_source_addresses_are_the_clients_however_often_it_connects(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "[client.alice]\nmacs = 2\n")
    bob = lan.join("bob")
    for attempt in range(5):
        alice = lan.join("alice")
        for number in (10 * attempt, 10 * attempt + 1, 0):
            says(alice, source(number, 100 + attempt))
        # Of all of these addresses, two are the client's.
        for number in (0, 1, 0) if attempt == 0 else (0,):
            hears(bob, source(number, 100 + attempt))
        alice.say(masked(0x88, b"\x03\xe8"))
        lan.server.says("as 'alice' left", times=attempt + 1)


def test_a_reload_of_the_firewall_takes_no_rule_away(host: Host, tmp_path: Path, tell: Tell) -> None:
    listed = (OURS + (1).to_bytes(3, "big")).hex(":")
    lan = Lan(host, tmp_path, f'[client.alice]\nmacs = ["{listed}"]\n')
    alice, bob = lan.join("alice"), lan.join("bob")
    for times in (1, 2, 3):
        says(alice, source(1))
        hears(bob, source(1))
        host.command("nft flush ruleset")
        lan.server.says("the rules of ", times=times)
        # A session, a client that comes anew, and one that was lost; SIGHUP changes nothing.
        says(alice, source(2))
        says(alice, source(1))
        hears(bob, source(1))
        until(lambda: "etherws-ethws0" in ruleset(host), "the rules to be back")
        if times == 1:
            alice.say(masked(0x88, b"\x03\xe8"))
        else:
            lan.server.signal(signal.SIGHUP)
            alice.reset()
        lan.server.says("as 'alice' left", times=times)
        alice = lan.join("alice")
    assert "were removed or changed by nft (process " in lan.server.output
    tell("policy: rules that others remove", "put back at once", "nothing", "goes on")


def ruleset(host: Host) -> str:
    """What nf_tables has."""
    process = host.run(host.program("nft"), "list", "ruleset")
    assert process.ends() == 0
    return process.output


def test_a_changed_policy_is_read_for_who_comes_next(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "")
    alice = lan.join("alice")
    lan.policy.write_text("[client.alice]\nconnect = false\n")
    assert lan.refused("alice")[0] == b"HTTP/1.1 403 Forbidden"
    assert closed(alice)[0] == 1008
    lan.policy.write_text("[client.alice]\nconnect = maybe\n")
    assert lan.refused("alice")[0] == b"HTTP/1.1 403 Forbidden"
    lan.server.says(f"{lan.policy}:2: ")
    lan.server.says("what was read before stays in use")
    lan.policy.write_text("# nothing\n")
    lan.server.signal(signal.SIGHUP)
    lan.server.says("read again", times=2)
    lan.join("alice")


def test_a_device_or_bridge_that_cannot_be_had_refuses_this_client_only(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, '[client.alice]\nbridge = "lo"\n[client.bob]\ndevice = "lo"\n')
    for name in ("alice", "bob"):
        assert lan.refused(name)[0] == b"HTTP/1.1 503 Service Unavailable"
    tell("policy: a bridge or device that cannot be had", "no port is free for one more client", "503", "Retry-After")
    lan.server.says("was refused: cannot")
    lan.join("carol")
    assert "Traceback" not in lan.server.output


def test_only_its_own_ip_addresses_are_a_clients(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, '[client.alice]\naddresses = ["192.0.2.7", "fe80::7"]\n')
    alice, carol = lan.join("alice"), lan.join("carol")
    own = holding(IPV4 + ipv4(UDP, datagram(1, 2), source=b"\xc0\0\2\7"))
    for spoofed in (
        holding(IPV4 + ipv4(UDP, datagram(1, 2))),
        holding(arp("192.0.2.1", "192.0.2.9", operation=2)),
        holding(IPV6 + ipv6(ICMPV6, icmpv6(136, bytes(4) + LINK_LOCAL), source=LINK_LOCAL[:15] + b"\7")),
        holding(TAG + TAG + IPV4 + ipv4(UDP, datagram(1, 2))),
    ):
        says(alice, spoofed)
    for sent in (own, holding(arp("192.0.2.7", "192.0.2.9"))):
        says(alice, sent)
        hears(carol, sent)
    alice.say(masked(0x88, b""))
    lan.server.says("dropped 1 arp-sender, 1 disguised, 1 ip-source, 1 neighbour-discovery")
    tell("policy: another's IP address, in ARP too", "dropped, counted in the log", "nothing", "goes on")


def test_broadcasts_are_limited_for_all_connections_of_a_name(host: Host, tmp_path: Path, tell: Tell) -> None:
    lan = Lan(host, tmp_path, "[client.alice]\ngroup-rate = 2\nconnections = 2\n")
    carol = lan.join("carol")
    alices = [lan.join("alice") for _ in range(2)]
    for alice in alices:
        # Far more than the burst and what comes by the rate meanwhile.
        for number in range(1000):
            says(alice, source(1000 + number % 100))
        says(alice, frame(100))
        hears_at_last(carol, frame(100))
        alice.say(masked(0x88, b""))
    lan.server.says(" group-rate", times=2)
    tell("policy: too many broadcasts", "dropped, counted in the log", "nothing", "goes on")


# A lost client's port.


def lose(peer: Peer, server: Process) -> None:
    """Break its TCP off without a word."""
    left = server.output.count(" left ")
    peer.reset()
    server.says(" left ", times=left + 1)


def test_a_lost_client_gets_its_port_back_with_all_that_the_bridge_knows(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "")
    lan.join("carol")
    alice = lan.join("alice")
    says(alice, source(1))
    index = host.links()["ethws1"]["index"]
    lose(alice, lan.server)
    assert host.links()["ethws1"]["index"] == index
    # Others get others'.
    lan.join("bob")
    lan.server.says("'bob' joined on ethws2")
    lan.join("alice")
    lan.server.says("'alice' joined on ethws1", times=2)
    assert host.links()["ethws1"]["index"] == index


def test_a_client_that_says_goodbye_or_stays_away_loses_its_port(host: Host, tmp_path: Path) -> None:
    lan = Lan(host, tmp_path, "", "--resume-timeout", "300ms")
    lan.join("carol")
    alice = lan.join("alice")
    alice.say(masked(0x88, b"\x03\xe9"))
    until(lambda: "ethws1" not in host.links(), "the interface of one who said good-bye to go")
    bob = lan.join("bob")
    lose(bob, lan.server)
    until(lambda: "ethws1" not in host.links(), "the interface of one who stays away to go")


def test_a_nameless_client_is_known_by_what_it_calls_itself(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--address", "127.0.0.1")
    server.says("listening")
    peer = Peer(host)
    peer.say(request(Etherws_Resume="a" * 22))
    assert b" 101 " in peer.head()
    # It comes again before the server has noticed that it was lost: into the same port, though there is no other.
    again = Peer(host)
    again.say(request(Etherws_Resume="a" * 22))
    assert b" 101 " in again.head()
    assert closed(peer)[0] == 1008
    # Another one does not get that; but once it is lost, rather the other than nobody.
    other = Peer(host)
    other.say(request(Etherws_Resume="b" * 22))
    assert b" 503 " in other.head()
    lose(again, server)
    other = Peer(host)
    other.say(request(Etherws_Resume="b" * 22))
    assert b" 101 " in other.head()
    server.says("joined on ethws0", times=3)
