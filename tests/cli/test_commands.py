"""The commands as users type them: the 0.2 README's, the options, and everything that can go wrong at the start."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path

import pytest

import etherws
from tests.lab.frames import frame
from tests.lab.hosts import Host, Process, until
from tests.lab.pki import Certificate, make_certificate
from tests.lab.servers import serve


def gone(pid: int) -> bool:
    """Whether the process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def background(host: Host, folder: Path, *arguments: str) -> tuple[str, int]:
    """Start etherws in the background; return what it printed and its process number."""
    pidfile = folder / f"{arguments[0]}.pid"
    process = host.etherws(*arguments, "--pidfile", str(pidfile))
    assert process.ends() == 0, process.output
    return process.output, int(pidfile.read_text())


def terminate(pid: int, number: int = signal.SIGTERM) -> None:
    """End a background process."""
    os.kill(pid, number)
    until(lambda: gone(pid), f"process {pid} to end", 8)


def fails(process: Process, *words: str) -> None:
    """It ends with status 1 and one line that has these words."""
    assert process.ends() == 1, process.output
    for word in words:
        assert word in process.output
    assert process.output.startswith("Error: ")
    assert process.output.count("\n") == 1, process.output


@pytest.mark.parametrize("secure", [False, True], ids=["ws", "wss"])
def test_the_readme_of_0_2_typed_as_it_stands(
    hosts: tuple[Host, Host], tmp_path: Path, certificate: Certificate, secure: bool
) -> None:
    one, other = hosts
    server, client = ["server"], ["client", "--uri", f"{'wss' if secure else 'ws'}://192.0.2.1/"]
    if secure:
        server += ["--keyfile", str(certificate.key), "--certfile", str(certificate.cert)]
        client += ["--cacert", str(certificate.cert)]
    pids = []
    for host, arguments in ((one, server), (other, client)):
        with host.netlink() as route:
            # What libvirt makes for a virtual machine; eth1 is the machine's end.
            route.link("add", ifname="vnet0", kind="veth", peer={"ifname": "eth1"})
        for name in ("vnet0", "eth1"):
            host.set_link(name, state="up")
        output, pid = background(host, tmp_path, *arguments)
        pids.append(pid)
        # When the command returns, the interface exists and is up: the next commands need it.
        assert host.links()["ethws0"].get("flags") & 1
        assert "ethws0 is up, " in output
        host.command("brctl addbr br0")
        host.command("brctl addif br0 vnet0")
        host.command("brctl addif br0 ethws0")
        host.command("ifconfig br0 up")
    ends = [host.frames("eth1") for host in hosts]
    for sender, receiver in (ends, ends[::-1]):
        for size in (14, 60, 1514):
            sender.send(frame(size, to=b"\xff" * 6))
            assert receiver.receive() == frame(size, to=b"\xff" * 6)
    for host, pid in zip(hosts, pids, strict=True):
        terminate(pid)
        assert "ethws0" not in host.links()
        assert "br0" in host.links()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_both_sides_with_a_close(hosts: tuple[Host, Host], number: int) -> None:
    server, client = hosts
    for stopped in ("server", "client"):
        running = {"server": server.etherws("server", "--foreground")}
        running["server"].says("listening")
        running["client"] = client.etherws("client", "--foreground", "ws://192.0.2.1/")
        running["client"].says("connected")
        running[stopped].signal(number)
        assert running[stopped].ends(8) == 0
        other = running["client" if stopped == "server" else "server"]
        other.says("closed by the peer, code 1001")
        other.stop()
        assert "ethws0" not in server.links()
        assert "ethws0" not in client.links()


def test_an_unreachable_server_is_reported_and_retried(host: Host, tmp_path: Path) -> None:
    output, pid = background(host, tmp_path, "client", "ws://127.0.0.1:9/")
    first, second = output.splitlines()
    refused = "Connection refused; is it running there, and is the port right?"
    assert first == f"ethws0 is up, but cannot connect to ws://127.0.0.1:9: {refused}; retrying"
    assert second.startswith(f"stop it: kill {pid}; ")
    assert "ethws0" in host.links()
    terminate(pid)
    assert "ethws0" not in host.links()


def test_port_0_picks_one_and_prints_it(host: Host) -> None:
    output = host.etherws("server", "--foreground", "--port", "0", "--address", "127.0.0.1").says("listening")
    port = int(output.rpartition(":")[2].rstrip("/\n"))
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(("127.0.0.1", port))


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_default_is_every_address_of_both_families(host: Host, family: int, address: str) -> None:
    host.etherws("server", "--foreground").says("listening on ws://*:80/")
    with host.socket(family, socket.SOCK_STREAM) as sock:
        sock.connect((address, 80))


def test_an_ipv6_literal_with_a_path_and_a_query_connects(host: Host) -> None:
    host.etherws("server", "--foreground", "--address", "::1", "--path", "/lab").says("listening on ws://[::1]:80/lab")
    host.etherws("client", "--foreground", "ws://[::1]/lab?a=b").says("connected to ws://[::1]:80")


def test_options_come_from_the_environment(host: Host) -> None:
    env = {"ETHERWS_SERVER_PORT": "8123", "ETHERWS_SERVER_DEVICE": "lan7", "ETHERWS_SERVER_FOREGROUND": "1"}
    host.etherws("server", env=env).says("lan7 is up, listening on ws://*:8123/")
    env = {"ETHERWS_CLIENT_URI": "ws://127.0.0.1:8123/", "ETHERWS_CLIENT_FOREGROUND": "1"}
    host.etherws("client", env=env).says("connected to ws://127.0.0.1:8123")


def test_a_process_of_systemd_stays_in_front_and_reports(host: Host, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.bind(str(tmp_path / "notify"))
        notify.settimeout(20)
        running = host.etherws("server", "--port", "0", env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert b"READY=1" in notify.recv(1000).split(b"\n")
        assert running.running


def test_process_1_of_a_container_stays_in_front(host: Host) -> None:
    code = (
        "import ctypes, os, sys; assert ctypes.CDLL(None).unshare(0x20000000) == 0;"
        "child = os.fork();"
        "child or os.execv(sys.executable, [sys.executable, '-m', 'etherws', 'server', '--port', '0']);"
        "os.waitpid(child, 0)"
    )
    running = host.run(sys.executable, "-c", code)
    running.says("INFO ethws0 is up, listening on ws://*:")
    assert running.running
    child = int(Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text())
    os.kill(child, signal.SIGTERM)
    assert running.ends(8) == 0


def test_a_signal_ends_a_client_that_waits_for_an_answer(host: Host) -> None:
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        client = host.etherws("client", "--foreground", f"ws://127.0.0.1:{listener.getsockname()[1]}/")
        listener.settimeout(20)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(10) == b"GET / HTTP"
            client.signal(signal.SIGTERM)
            assert client.ends(8) == 0
    assert "ethws0" not in host.links()


def test_an_existing_persistent_device_is_used_and_stays(host: Host) -> None:
    with host.netlink() as route:
        route.link("add", ifname="ethws0", kind="tuntap", mode="tap")
    before = host.links()["ethws0"]
    running = host.etherws("server", "--foreground", "--port", "0")
    running.says("ethws0 is up")
    running.stop()
    after = host.links()["ethws0"]
    assert before["index"] == after["index"]
    assert before.get("address") == after.get("address")


def test_a_taken_ethws0_leads_to_the_next_number(host: Host) -> None:
    host.etherws("server", "--foreground", "--port", "0").says("ethws0 is up")
    second = host.etherws("server", "--foreground", "--port", "0")
    second.says("ethws0 is taken; this is ethws1")
    second.says("ethws1 is up")


def test_the_version_is_told(host: Host) -> None:
    process = host.etherws("--version")
    assert process.ends() == 0
    assert process.output == f"etherws, version {etherws.__version__}\n"


# What goes wrong at the start: one line, status 1, nothing left behind.


def test_a_taken_device_is_refused_by_name(host: Host) -> None:
    host.etherws("server", "--foreground", "--port", "0").says("ethws0 is up")
    fails(host.etherws("client", "--device", "ethws0", "ws://127.0.0.1/"), "create ethws0", "busy", "--device")


def test_an_interface_of_another_kind_is_refused(host: Host) -> None:
    fails(host.etherws("server", "--device", "lo", "--port", "0"), "create lo", "another kind")


def test_a_taken_port_is_refused_and_leaves_no_device(host: Host) -> None:
    running = host.etherws("server", "--foreground")
    running.says("listening")
    program = Path(f"/proc/{running.pid}/comm").read_text().rstrip()
    fails(
        host.etherws("server", "--device", "other0"),
        f"cannot listen on *:80: port 80 is taken by {program} (pid {running.pid}); choose another --port",
    )
    assert "other0" not in host.links()


def test_an_address_may_come_later(host: Host) -> None:
    server = host.etherws("server", "--foreground", "--address", "203.0.113.9")
    server.says("ethws0 is up, listening on ws://203.0.113.9:80/")
    assert (
        "WARNING no interface of this machine has the address 203.0.113.9 yet; port 80 can be reached" in server.output
    )
    host.add_address("lo", "203.0.113.9/32")
    with host.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.connect(("203.0.113.9", 80))


def test_a_name_that_is_no_address_is_refused(host: Host) -> None:
    fails(host.etherws("server", "--address", "fe80::1%none"), "fe80::1%none", "--address of this machine")


@pytest.mark.parametrize("given", ["--keyfile", "--certfile"])
def test_a_key_without_certificate_or_the_reverse_is_refused(host: Host, certificate: Certificate, given: str) -> None:
    fails(host.etherws("server", given, str(certificate.key)), f"{given} needs --")


def test_unusable_tls_files_are_named(host: Host, certificate: Certificate, tmp_path: Path) -> None:
    other = make_certificate(tmp_path)
    junk = tmp_path / "junk.pem"
    junk.write_text("no PEM\n")

    def serve(key: Path, cert: Path) -> Process:
        return host.etherws("server", "--keyfile", str(key), "--certfile", str(cert))

    fails(serve(other.key, certificate.cert), "is not the key of")
    fails(serve(tmp_path / "missing", certificate.cert), "cannot read --keyfile", "No such file")
    fails(serve(certificate.key, tmp_path / "missing"), "cannot read --certfile", "No such file")
    fails(serve(certificate.key, junk), "not a key and a certificate in PEM form")
    assert host.etherws("client", "wss://127.0.0.1/", "--cacert", str(junk)).ends() == 1
    assert host.etherws("client", "wss://127.0.0.1/", "--cacert", str(tmp_path / "missing")).ends() == 1


def test_an_encrypted_key_is_refused_and_no_password_is_asked_for(host: Host, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    pair = make_certificate(tmp_path)
    pair.key.write_bytes(
        ec.generate_private_key(ec.SECP256R1()).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    fails(host.etherws("server", "--keyfile", str(pair.key), "--certfile", str(pair.cert)), "is encrypted")


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://host/", "http:// is for web pages; the same server's tunnel is ws://"),
        ("ws://", "hostname isn't provided"),
        ("ws:///path", "hostname isn't provided"),
        ("host", "it has no scheme; write ws://HOST/ or wss://HOST/"),
        ("ws://host:99999/", "Port out of range"),
        ("ws://[::1/", "Invalid IPv6"),
        ("ws://user:sec/ret@host/", "in the user and password, write /"),
    ],
)
def test_a_bad_uri_is_refused(host: Host, uri: str, words: str) -> None:
    process = host.etherws("client", "--uri", uri)
    fails(process, "--uri", words)
    assert "secret" not in process.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["server", "--device", "a-name-too-long-for-linux"], "longer than 15"),
        (["server", "--device", "a/b"], "not a valid interface name"),
        (["server", "--bridge", "a b"], "not a valid interface name"),
        (["server", "--mtu", "67"], "out of range"),
        (["server", "--mtu", "65522"], "out of range"),
        (["server", "--path", "lab"], "begin with /"),
        (["server", "--bridge", "lo", "--port", "0"], "cannot put ethws0 into lo"),
        (["server", "--pidfile", "/proc/none", "--port", "0"], "cannot write --pidfile"),
        (["client", "ws://host/", "--retry-interval", "40s"], "no longer than"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_options_are_refused_and_leave_nothing(host: Host, arguments: list[str], words: str) -> None:
    fails(host.etherws(*arguments), words)
    assert set(host.links()) == {"lo"}


def test_a_pidfile_in_use_is_refused(host: Host, tmp_path: Path) -> None:
    _, pid = background(host, tmp_path, "server", "--port", "0")
    fails(
        host.etherws("server", "--port", "0", "--pidfile", str(tmp_path / "server.pid")),
        f"belongs to process {pid}",
    )
    terminate(pid)


def test_a_stale_pidfile_does_not_matter(host: Host, tmp_path: Path) -> None:
    (tmp_path / "server.pid").write_text("1\n")
    _, pid = background(host, tmp_path, "server", "--port", "0")
    assert pid != 1
    terminate(pid)


def test_insecure_warns_at_every_start(host: Host, tmp_path: Path) -> None:
    for _ in range(2):
        output, pid = background(host, tmp_path, "client", "-k", "wss://127.0.0.1:9/")
        assert "warning: --insecure" in output
        terminate(pid)


def test_values_of_headers_are_not_in_the_list_of_processes(host: Host, tmp_path: Path) -> None:
    secret = tmp_path / "headers"
    secret.write_text("X-Api-Key: in-a-file\n")
    secret.chmod(0o644)
    requests: list[bytes] = []

    def talk(connection: socket.socket, request: bytes) -> None:
        requests.append(request)

    with serve(host, talk) as port:
        arguments = [
            f"ws://127.0.0.1:{port}/",
            "-H",
            "Authorization: Bearer s3cr3t",
            "-HCookie:s3cr3t",
            "-H",
            f"@{secret}",
        ]
        output, pid = background(host, tmp_path, "client", *arguments)
        shown = Path(f"/proc/{pid}/cmdline").read_text()
        terminate(pid)
    for header in (b"Authorization: Bearer s3cr3t", b"Cookie: s3cr3t", b"X-Api-Key: in-a-file"):
        assert header in requests[0]
    assert "s3cr3t" not in shown
    assert "Authorization: xxx" in shown
    assert f"warning: {secret} is open to everyone on this machine" in output


@pytest.mark.vm_too
def test_without_rights_the_message_names_them(host: Host, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    # The process stays root, which can read Python's files; the kernel checks only the capability.
    code = "import ctypes, runpy, sys; ctypes.CDLL(None).prctl(24, 12, 0, 0, 0);" + (
        "import os; os.setgroups([]); [ctypes.CDLL(None).prctl(24, cap, 0, 0, 0) for cap in range(41)];"
        "os.execv(sys.executable, [sys.executable, '-m', 'etherws', 'server', '--port', '0'])"
    )
    process = host.run(sys.executable, "-c", code)
    fails(process, "cannot create ethws0: Operation not permitted", "CAP_NET_ADMIN")
    assert "ethws0" not in host.links()


@pytest.mark.vm_too
def test_a_missing_tun_driver_is_named(host: Host) -> None:
    process = host.etherws_without_tun("server", "--port", "0")
    fails(process, "cannot open /dev/net/tun: No such file", "modprobe tun")
