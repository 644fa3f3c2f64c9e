"""The server against requests and peers of every kind: what is answered, and that nobody else suffers."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import ssl
import threading
from pathlib import Path

import pytest

from etherws.tunnel.fq_codel import CAP
from tests.lab.frames import frame
from tests.lab.hosts import PATIENCE, Host, Process, until
from tests.lab.peer import Peer, masked, request
from tests.lab.pki import Certificate


def serve(host: Host) -> Process:
    """A server on port 80."""
    running = host.etherws("server", "--foreground", "--address", "127.0.0.1")
    running.says("listening")
    return running


@pytest.fixture
def server(host: Host) -> Process:
    """As serve()."""
    return serve(host)


def test_a_plain_request_is_told_what_this_is(host: Host, server: Process) -> None:
    peer = Peer(host)
    peer.say(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    head = peer.head()
    assert head.startswith(b"HTTP/1.1 426 Upgrade Required")
    assert b"Upgrade: websocket" in head
    assert b"this is etherws, an Ethernet tunnel" in peer.rest()


REFUSED = {
    "another path": (request("GET /other HTTP/1.1"), b"404", b"no tunnel at this path"),
    "POST": (request("POST / HTTP/1.1"), b"405", b"not POST"),
    "HTTP/1.0": (request("GET / HTTP/1.0"), b"400", b"HTTP/1.1"),
    "no Host": (request(Host=None), b"400", b"Host"),
    "two Hosts": (request(Host="a\r\nHost: b"), b"400", b"exactly one Host header"),
    "another Upgrade": (request(Upgrade="h2c"), b"426", b"Upgrade header"),
    "no Connection": (request(Connection=None), b"400", b"Connection header"),
    "no version": (request(Sec_WebSocket_Version=None), b"426", b"Sec-WebSocket-Version"),
    "version 8": (request(Sec_WebSocket_Version="8"), b"426", b"Sec-WebSocket-Version"),
    "no key": (request(Sec_WebSocket_Key=None), b"400", b"Sec-WebSocket-Key"),
    "a short key": (request(Sec_WebSocket_Key="c2hvcnQ="), b"400", b"Sec-WebSocket-Key"),
    "a key that is no base64": (request(Sec_WebSocket_Key="!" * 24), b"400", b"Sec-WebSocket-Key"),
    "a key that is no ASCII": (request(Sec_WebSocket_Key="\xe9" * 24), b"400", b"Sec-WebSocket-Key"),
    "a body announced": (request(Content_Length="5"), b"400", b"Content-Length"),
    "a body in chunks": (request(Transfer_Encoding="chunked"), b"400", b"Transfer-Encoding"),
    "a length that is none": (request(Content_Length="+5"), b"400", b""),
    "two lengths": (request(Content_Length="5\r\nContent-Length: 6"), b"400", b""),
    "a folded header": (request(X_Folded="a\r\n b"), b"400", b""),
    "a bare line feed": (request(X_Split="a\nb: c"), b"400", b""),
    "a NUL": (request(X_Nul="a\0b"), b"400", b""),
    "a header without colon": (request(X="a\r\nnonsense"), b"400", b""),
    "a blank before the colon": (request(X="a\r\nY : b"), b"400", b""),
    "headers of 20 KB": (request(X="y" * 20_000), b"400", b""),
    "101 headers": (request(X="a" + "\r\nX: a" * 95), b"400", b""),
    "a hundred thousand headers": (request(X="a" + "\r\nX: a" * 100_000), b"400", b""),
    "a request line of 10 KB": (request("GET /" + "a" * 10_000 + " HTTP/1.1"), b"414", b""),
    "HTTP/0.9": (b"GET /\r\n", b"400", b""),
    "HTTP/1.9": (request("GET / HTTP/1.9"), b"400", b""),
    "a binary method": (request("G\x1b[2J / HTTP/1.1"), b"400", b""),
    "no HTTP": (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"400", b""),
}


@pytest.fixture(scope="module")
def shared_server(shared_host: Host) -> Process:
    """A server for all requests that are refused."""
    return serve(shared_host)


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_request_is_refused_before_the_101(shared_host: Host, shared_server: Process, case: str) -> None:
    data, status, words = REFUSED[case]
    before = shared_server.output
    peer = Peer(shared_host)
    with contextlib.suppress(ConnectionError):
        peer.say(data)
    everything = peer.rest()
    assert everything.startswith(b"HTTP/1.1 " + status), everything[:200]
    assert words in everything
    assert b"\r\n\r\n" in everything
    # At most a line of it in the log, and no traceback; and the next one is served.
    lines = shared_server.output.removeprefix(before).splitlines()
    assert len(lines) <= 1
    assert all(" INFO 127.0.0.1 was refused: " in line for line in lines)
    Peer(shared_host).upgraded().end()
    shared_server.says("left ethws0", before.count("left ethws0") + 1)


def test_a_client_of_0_2_and_browsers_are_let_in(host: Host, server: Process) -> None:
    for changes in (
        {"Sec_WebSocket_Protocol": "chat, superchat", "Origin": "127.0.0.1:80"},
        {
            "Connection": "keep-alive, upgrade",
            "Upgrade": "WebSocket",
            "Host": "127.0.0.1",
            "Origin": "http://127.0.0.1",
        },
        {"Sec_WebSocket_Extensions": "permessage-deflate; client_max_window_bits"},
    ):
        peer = Peer(host)
        peer.say(request(**changes))
        head = peer.head()
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols")
        assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in head
        # Naming one that was not asked for, or that means nothing here, ends the connection in a browser.
        assert b"Protocol:" not in head
        assert b"Extensions" not in head
        peer.say(masked(0x88, b"\x03\xe8"))
        # The kernel may send frames of its own, as for IPv6.
        while (got := peer.frame())[0] == 0x82:
            pass
        assert got == (0x88, b"\x03\xe8")
        assert peer.rest() == b""
        server.says("left ethws0")
        until(
            lambda: server.output.count("joined on ethws0") == server.output.count("left ethws0"), "the session to end"
        )


def test_frames_that_come_with_the_request_are_kept(host: Host, server: Process) -> None:
    frames = host.frames("ethws0")
    sent = [frame(size) for size in (14, 100, 1514) for _ in range(20)]
    Peer(host).say(request() + b"".join(masked(0x82, each) for each in sent))
    assert [frames.receive() for _ in sent] == sent


RULES = {
    "unmasked": (b"\x82\x0e" + bytes(14), 1002, "unmasked frame"),
    "reserved bit": (masked(0xC2, bytes(14)), 1002, "reserved bit"),
    "reserved opcode": (masked(0x83, bytes(14)), 1002, "reserved opcode 0x3"),
    "16 GiB announced": (b"\x82\xff\x00\x00\x00\x04\x00\x00\x00\x00", 1009, "message of 17179869184 bytes"),
    "65,601 bytes announced": (b"\x82\xff" + (65_601).to_bytes(8, "big"), 1009, "the limit is 65600"),
    "endless fragments": (
        masked(0x02, bytes(40_000)) + masked(0x00, bytes(40_000)),
        1009,
        "fragment of 40000 bytes; the limit is 25600",
    ),
    "length not minimal": (b"\x82\xfe\x00\x0e", 1002, "shortest form"),
    "lone continuation": (masked(0x80, bytes(14)), 1002, "continuation of no message"),
    "message inside a message": (masked(0x02, b"a") + masked(0x82, b"b"), 1002, "inside a fragmented one"),
    "fragmented ping": (masked(0x09, b""), 1002, "fragmented control frame"),
    "close code 1005": (masked(0x88, b"\x03\xed"), 1002, "close code 1005"),
    "text that is no UTF-8": (masked(0x81, b"\xff"), 1007, "not UTF-8"),
    "no UTF-8 so far": (masked(0x01, b"\xff"), 1007, "not UTF-8"),
    "right behind a good frame": (masked(0x82, bytes(14)) + b"\x82\x00", 1002, "unmasked frame"),
}


@pytest.mark.parametrize("case", RULES)
def test_a_peer_that_breaks_a_rule_is_told_and_ends_only_itself(host: Host, server: Process, case: str) -> None:
    data, code, words = RULES[case]
    bystander = Peer(host)
    host.bridge("br0", "ethws0")
    bystander.upgraded()
    peer = Peer(host).upgraded()
    peer.say(data)
    first, payload = peer.frame()
    while first != 0x88:
        first, payload = peer.frame()
    assert (first, int.from_bytes(payload[:2], "big")) == (0x88, code)
    peer.rest()
    assert words in server.says("left ethws1")
    # The other's tunnel carries on, and has not even noticed.
    frames = host.frames("ethws0")
    bystander.say(masked(0x82, frame(100)))
    assert frames.receive() == frame(100)


LAST_WORDS = {
    "Close": masked(0x88, b"\x03\xe8"),
    "invalid Close": masked(0x88, b"\x03\xed"),
    "wrong frame": b"\xff\xff",
    "end of TCP": b"",
    "RST": b"",
}


@pytest.mark.parametrize("end", LAST_WORDS)
@pytest.mark.parametrize("policy", [False, True], ids=["", "with rules"])
def test_what_came_ahead_of_the_end_is_delivered(host: Host, end: str, policy: bool, tmp_path: Path) -> None:
    rules = tmp_path / "policy.toml"
    rules.write_text("[default]\nmacs = 4\n")
    options = ["--policy", str(rules)] if policy else []
    server = host.etherws("server", "--foreground", "--address", "127.0.0.1", *options)
    server.says("listening")
    frames = host.frames("ethws0")
    for at in range(20):
        sent = [frame(100, seed=at * 10 + number) for number in range(10)]
        peer = Peer(host)
        # In one segment: the session meets the frames and the end together.
        peer.say(request() + b"".join(masked(0x82, each) for each in sent) + LAST_WORDS[end])
        # From a client that ends TCP before the 101, nothing is taken.
        assert peer.head().startswith(b"HTTP/1.1 101 "), server.output
        if end == "RST":
            peer.reset()
        else:
            peer.end()
        assert [frames.receive() for _ in sent] == sent
        server.says("left ethws0", times=at + 1)


def test_what_is_no_frame_is_dropped_counted_and_ends_nothing(host: Host, server: Process) -> None:
    frames = host.frames("ethws0")
    peer = Peer(host).upgraded()
    for size in range(14):
        peer.say(masked(0x82, bytes(size)))
    peer.say(masked(0x81, b"text") * 3)
    # In fragments, with a ping between: legal, if unusual.
    peer.say(masked(0x02, frame(300)[:100]) + masked(0x89, b"?") + masked(0x80, frame(300)[100:]))
    assert frames.receive() == frame(300)
    while (got := peer.frame())[0] != 0x8A:
        assert got[0] == 0x82
    assert got == (0x8A, b"?")
    peer.say(masked(0x88, b""))
    output = server.says("left ethws0")
    assert "dropped 14 runt, 3 text" in output
    assert "closed by the peer, code none" in output


def test_the_reason_of_a_close_cannot_forge_the_log(host: Host, server: Process) -> None:
    peer = Peer(host).upgraded()
    peer.say(masked(0x88, b"\x03\xe8bye\n\x1b[2J forged"))
    assert "closed by the peer, code 1000: bye??[2J forged" in server.says("left ethws0")


def test_frames_for_an_interface_that_is_down_are_counted(host: Host, server: Process) -> None:
    peer = Peer(host).upgraded()
    host.set_link("ethws0", state="down")
    peer.say(masked(0x82, frame(100)) * 5 + masked(0x89, b"done"))
    while peer.frame() != (0x8A, b"done"):
        pass
    peer.say(masked(0x88, b""))
    assert "dropped 5 EIO" in server.says("left ethws0")


def test_a_hang_up_in_the_middle_of_a_message_ends_only_that_session(host: Host, server: Process) -> None:
    peer = Peer(host).upgraded()
    peer.say(masked(0x82, frame(1000))[:500])
    peer.end()
    server.says("the peer ended TCP without a Close")
    Peer(host).upgraded()
    server.says("joined on ethws0", times=2)


def test_pings_are_answered_while_a_flood_of_frames_goes_out(host: Host, server: Process) -> None:
    frames = host.frames("ethws0")
    peer = Peer(host).upgraded()
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            frames.send(frame(1514))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for at in range(20):
            peer.say(masked(0x89, b"%d" % at))
            while (got := peer.frame())[0] != 0x8A:
                pass
            assert got == (0x8A, b"%d" % at)
    finally:
        over.set()
        thread.join(PATIENCE)


def memory(server: Process) -> int:
    """Its resident bytes."""
    with open(f"/proc/{server.pid}/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def test_a_peer_that_reads_nothing_costs_no_memory_and_no_time(host: Host, server: Process) -> None:
    frames = host.frames("ethws0")
    stalled = Peer(host).upgraded()
    host.bridge("br0", "ethws0")

    other = Peer(host).upgraded()
    server.says("joined on ethws1")
    before = memory(server)
    for _ in range(20_000):
        frames.send(frame(1514))
    # The queue's cap, what its packets weigh beyond their bytes, and a buffer.
    assert memory(server) - before < CAP + (3 << 20)
    receiver = host.frames("ethws1")
    other.say(masked(0x82, frame(100)))
    assert receiver.receive() == frame(100)
    stalled.close()


def test_peers_that_read_nothing_leave_no_memory_behind(host: Host, server: Process) -> None:
    before = memory(server)
    for times in range(1, 6):
        stalled = Peer(host).upgraded()
        server.says("joined on ethws0", times)
        frames = host.frames("ethws0")
        for _ in range(4_000):
            frames.send(frame(1514))
        stalled.close()
        server.says("left ethws0", times)
    assert memory(server) - before < CAP + (4 << 20)


@pytest.fixture
def patient_clients(host: Host, server: Process) -> list[Peer]:
    """Peers that send nothing, or half a request."""
    peers = [Peer(host) for _ in range(50)]
    for peer in peers[::2]:
        peer.say(b"GET / HT")
    return peers


def test_silent_connections_hold_up_nobody(host: Host, patient_clients: list[Peer]) -> None:
    Peer(host).upgraded()


@pytest.mark.long
def test_a_thousand_connects_leak_nothing(host: Host, server: Process) -> None:
    # A few that fill caches, then count.
    def connect(times: int) -> None:
        for at in range(times):
            peer = Peer(host).upgraded()
            if at % 2:
                peer.say(masked(0x88, b"\x03\xe8"))
                peer.rest()
            peer.close()

    def quiet() -> bool:
        return server.output.count("joined on ethws0") == server.output.count("left ethws0")

    host.bridge("br0", "ethws0")
    connect(100)
    until(quiet, "the first sessions to end")
    descriptors, threads = server.descriptors(), len(os.listdir(f"/proc/{server.pid}/task"))
    workers = [threading.Thread(target=connect, args=(250,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(600)
    until(lambda: set(host.links()) == {"lo", "br0", "ethws0"}, "the interfaces to go")
    until(lambda: server.descriptors() <= descriptors, "the descriptors to go")
    assert len(os.listdir(f"/proc/{server.pid}/task")) <= threads + 10
    Peer(host).upgraded()


def test_a_refused_client_is_hung_up_on_in_tls_too(host: Host, certificate: Certificate) -> None:
    options = ["--keyfile", str(certificate.key), "--certfile", str(certificate.cert)]
    host.etherws("server", "--foreground", *options).says("listening")
    sock = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    sock.connect(("127.0.0.1", 443))
    context = ssl.create_default_context(cafile=str(certificate.cert))
    with context.wrap_socket(sock, server_hostname="localhost") as peer:
        peer.sendall(request("GET /elsewhere HTTP/1.1"))
        answer = b""
        while data := peer.recv(65536):
            answer += data
    assert answer.startswith(b"HTTP/1.1 404 ")
