"""``etherws check FILE`` for a configuration."""

from __future__ import annotations

import os
import re
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from etherws.access import passwd
from etherws.cli.commands import main
from etherws.kernel import link_facts
from etherws.kernel.link_facts import BridgeFacts, LinkFacts
from tests.lab.hosts import Host
from tests.lab.pki import Certificate


def check(path: Path) -> tuple[int, list[str]]:
    """The status, and the lines."""
    done = CliRunner().invoke(main, ["check", str(path)])
    return done.exit_code, done.output.splitlines()


def lines(path: Path) -> dict[str, str]:
    """What is said first of each topic, with the mark before it."""
    found: dict[str, str] = {}
    for line in check(path)[1]:
        mark, topic, words = line[:8].strip(), line[8:21].strip(), line[22:]
        if mark and topic:
            found.setdefault(topic, f"{mark} {words}")
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """/etc/etherws, so to speak."""
    for role in ("server", "client"):
        (tmp_path / role).mkdir()
    return tmp_path


def test_a_server_that_can_start(folder: Path, certificate: Certificate, host: Host) -> None:
    passwd.add_token(folder / "server" / "tokens", "branch1")
    (folder / "policy.toml").write_text('[default]\nconnect = false\n[client."branch1"]\nbridge = "br1"\n')
    path = folder / "server" / "lan.toml"
    path.write_text(
        f'port = 8443\ncertfile = "{certificate.cert}"\nkeyfile = "{certificate.key}"\ntoken-file = "tokens"\n'
        f'policy = "../policy.toml"\nbridge = "br0"\nmonitor = 9402\npidfile = "{folder}/pid"\nup = "/bin/true"\n'
    )
    certificate.key.chmod(0o600)
    host.bridge("br0")
    with host.namespace.inside():
        status, said = check(path)
        found = lines(path)
    assert (status, said[-1]) == (0, "Nothing is wrong.")
    assert found["file"] == "OK a configuration of etherws server: 9 options"
    assert found["TLS"] == "OK certificate and key can be used"
    assert found["token-file"] == "OK 1 can join by it"
    assert found["policy"] == "OK 1 named clients; everyone else: refused"
    assert (found["bridge"], found["up"]) == ("OK br0 is there", "OK /bin/true can be run")
    assert any("br1 is not there: etherws makes it" in line for line in said)
    assert (found["port"], found["monitor"]) == ("OK *:8443 is free", "OK 127.0.0.1:9402 is free")


def test_a_server_that_cannot(folder: Path, certificate: Certificate, host: Host) -> None:
    path = folder / "server" / "lan.toml"
    path.write_text(
        f'address = "127.0.0.1"\nport = 8080\ncertfile = "{certificate.cert}"\nkeyfile = "gone"\nhtpasswd = "gone"\n'
        f'policy = "gone"\nbridge = "lo"\ndevice = "lo"\npidfile = "{folder}/none/pid"\ndown = "gone"\n'
    )
    taken = host.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.bind(("127.0.0.1", 8080))
    taken.listen()
    with host.namespace.inside():
        status, said = check(path)
        found = lines(path)
    assert status == 1
    assert said[-1].endswith("0 warnings.")
    for topic, words in (
        ("TLS", "FAILED cannot read --keyfile"),
        ("htpasswd", f"FAILED {folder}/server/gone: cannot read"),
        ("policy", "FAILED cannot read policy"),
        ("device", "FAILED lo is an interface of another kind"),
        ("bridge", "FAILED lo is an interface, and no bridge"),
        ("down", f"FAILED --down {folder}/server/gone: No such file or directory"),
        ("pidfile", f"FAILED the folder {folder}/none is not there"),
    ):
        assert found[topic].startswith(words), found[topic]
    assert "127.0.0.1:8080 is taken" in found["port"]
    taken.close()
    host.etherws("server", "--foreground", "--address", "127.0.0.1", "--port", "8080").says("listening on")
    with host.namespace.inside():
        found = lines(path)
    assert re.match(r"(note|warning) 127\.0\.0\.1:8080 is taken( by \S+ \(pid \d+\): by this server)?", found["port"])


def test_a_server_for_anyone(folder: Path, host: Host) -> None:
    path = folder / "server" / "lan.toml"
    path.write_text('address = "unix:/none/x"\ncertfile = "x"\ntoken-file = "tokens"\n')
    (folder / "server" / "tokens").touch(0o600)
    with host.namespace.inside():
        found = lines(path)
        assert found["TLS"].startswith("FAILED certfile and keyfile belong together")
        assert found["token-file"].startswith("warning nobody can join by it yet")
        assert found["port"].startswith("FAILED the folder of unix:/none/x is not there")
        path.write_text(f'address = "unix:{folder}/x"\n')
        assert lines(path)["port"] == f"OK unix:{folder}/x can be made"
        path.write_text('address = "192.0.2.99"\nport = 0\n')
        found = lines(path)
    assert found["TLS"].startswith("warning there is none")
    assert found["login"] == "warning anyone who reaches this server may join"
    assert found["port"].startswith("warning this machine does not have 192.0.2.99:0 now")


def test_what_vlans_and_a_policys_programs_need(folder: Path, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.bridge("br0")
    path, policy = folder / "server" / "lan.toml", folder / "server" / "policy.toml"
    path.write_text('bridge = "br0"\npolicy = "policy.toml"\n')
    policy.write_text(
        '[client."a"]\nvlans = [5]\nbridge = "br1"\n[client."b"]\nvlan = 5\n[client."c"]\nbridge = "br2"\n'
        'up = "/bin/true"\ndown = "/bin/none"\n'
    )
    client = folder / "client" / "lan.toml"
    client.write_text('uri = "wss://h/"\nvlan = 7\n')
    with host.namespace.inside():
        text = "\n".join(check(path)[1])
        assert "FAILED  bridge        br0 does not filter VLANs: clients with VLANs are refused" in text
        assert "-> ip link set br0 type bridge vlan_filtering 1" in text
        assert "FAILED  bridge        br1 is not there, and one that etherws makes filters no VLANs" in text
        assert "-> ip link add br1 type bridge vlan_filtering 1" in text
        assert "br2 is not there: etherws makes it" in text
        assert "/bin/true can be run" in text
        assert "a program of it, /bin/none: No such file or directory" in text
        # A client without one of its own has that of the option.
        policy.write_text('[client."c"]\nbridge = "br2"\n[client."d"]\nbridge = "br3"\nvlan = "bridge"\n')
        path.write_text('bridge = "br0"\npolicy = "policy.toml"\nvlan = 5\n')
        text = "\n".join(check(path)[1])
        assert "FAILED  bridge        br2 is not there, and one that etherws makes filters no VLANs" in text
        assert "br3 is not there: etherws makes it" in text
        path.write_text('bridge = "br0"\nvlan = 5\n')
        assert lines(path)["bridge"].startswith("FAILED br0 does not filter VLANs")
        facts = BridgeFacts(stp=False, forward_delay=0, ageing=300, vlan_filtering=True, provider=True)
        with monkeypatch.context() as patch:
            patch.setattr(link_facts, "links", lambda: [LinkFacts(2, "br0", "bridge", bridge=facts)])
            assert "FAILED br0 has tags of 802.1ad: clients with VLANs are refused" in lines(path)["bridge"]
        assert lines(client)["bridge"] == "warning an interface with VLANs is in no bridge"


def test_credentials_of_systemd_are_not_looked_for(folder: Path, host: Host) -> None:
    path = folder / "server" / "lan.toml"
    path.write_text(
        'certfile = "credential:crt"\nkeyfile = "credential:key"\ntoken-file = "credential:tokens"\n'
        'policy = "credential:policy"\n'
    )
    with host.namespace.inside():
        found = lines(path)
    later = "skipped a credential, which systemd passes at the start"
    assert (found["TLS"], found["token-file"]) == (later, later)
    client = folder / "client" / "lan.toml"
    client.write_text(
        'uri = "wss://h/"\ntoken-file = "credential:token"\ncacert = "credential:ca"\n'
        'pinnedpubkey = "credential:pin"\nheader = "@credential:header"\n'
    )
    with host.namespace.inside():
        assert lines(client)["login"] == later


def test_a_client(folder: Path, certificate: Certificate, host: Host) -> None:
    path = folder / "client" / "lan.toml"
    (folder / "client" / "token").write_text("t" * 43)
    (folder / "client" / "token").chmod(0o600)
    path.write_text(f'uri = "wss://h/"\ncacert = "{certificate.cert}"\ntoken-file = "token"\n')
    with host.namespace.inside():
        status, said = check(path)
        found = lines(path)
        assert (status, said[-1]) == (0, "Nothing is wrong.")
        assert found["TLS"] == f"OK the server is verified by {certificate.cert}"
        assert found["login"] == "OK by a token"
        assert found["path"].startswith("note the path to the server is not tried here")
        assert f"-> etherws check wss://h/ --cacert {certificate.cert} --token-file {path.parent}/token" in said[-2]
        path.write_text('uri = ["ws://alice@h/", "wss://h/"]\ninsecure = true\nuser = "bob"\n')
        said = check(path)[1]
        assert "-> etherws check URI --insecure --user bob" in said[-2]
        assert any("the server is not verified" in line for line in said)
        assert any("a server is named by ws://" in line for line in said)
        assert any("no password is given" in line for line in said)
        path.write_text('device = "lan%d"\n')
        assert lines(path)["uri"] == "FAILED no server is named"
        path.write_text('uri = "wss://h/"\ncacert = "gone"\nuser = "alice"\ntoken-file = "token"\n')
        found = lines(path)
    assert found["TLS"].startswith("FAILED cannot read --cacert")
    assert found["login"].startswith("FAILED a user name and a token are two ways to log in")


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("server/lan.toml", 'uri = "x"', "lan.toml:1:1: --uri is an option of etherws client"),
        ("server/lan.toml", 'port = "', "lan.toml:1:9: "),
        ("client/lan.toml", "connections = 99", "lan.toml:1:15: connections: 99 is not in the range 1 to 16"),
        ("client/lan.toml", 'uri = "http://h/"', "lan.toml:1:7: --uri 'http://h/'"),
        ("lan.toml", 'uri = "wss://h/"\nport = 1', "lan.toml:2:1: --port is an option of etherws server"),
        ("lan.toml", "port = 1\nmtu = 1", "lan.toml:2:7: --mtu 1 is out of range"),
        ("lan.toml", "retry-interval = 0\nconnect-timeout = 1", "--retry-interval 0 s must be above zero"),
        ("lan.toml", "version = 7", "lan.toml:1:11: the file is of version 7"),
    ],
)
def test_mistakes(name: str, text: str, words: str, folder: Path) -> None:
    (folder / name).write_text(text)
    status, said = check(folder / name)
    assert status == 1
    assert any(words in line for line in said), said


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("policy.toml", "[default]\nmtu = 1400", "everyone"),
        ("server/policy.toml", '[client."a"]\nmtu = 1400\n[default]\nmtu = 1400', "everyone else"),
        ("server/policy.toml", '[client."a"]\nmtu = 1400', "everyone else"),
        ("server/lan.toml", "[server]\nmtu = 1400", "lan.toml:1:1: 'server' is a table"),
        ("policy.toml", "rate-up = 5", "rate-up is outside of the tables"),
        ("empty.toml", "", "empty.toml is empty"),
        ("empty.toml", "#", "everyone"),
        ("server/empty.toml", "", "empty.toml is empty"),
        ("server/empty.toml", "#", "a configuration of etherws server: 0 options"),
        ("nested.toml", "[server]\nmtu = 1400", "nested.toml:1:1: 'server' is a table"),
        ("nested.toml", "port = {}", "nested.toml:1:1: 'port' is a table"),
        ("bad.toml", "port = ", "bad.toml:1: Invalid value"),
    ],
)
def test_policies_are_told_from_configurations(name: str, text: str, words: str, folder: Path, host: Host) -> None:
    (folder / name).write_text(text)
    with host.namespace.inside():
        assert any(words in line for line in check(folder / name)[1])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_said(folder: Path, host: Host) -> None:
    path = folder / "server" / "lan.toml"
    path.write_text('address = "127.0.0.1"')
    for owner, said in ((0, False), (65534, True)):
        os.chown(path, owner, -1)
        with host.namespace.inside():
            assert (
                any("belongs to user 65534, who decides by it what etherws does" in line for line in check(path)[1])
                == said
            )


def test_a_large_file_is_refused(folder: Path) -> None:
    path = folder / "server" / "large.toml"
    path.write_bytes(b"# x\n" * (10 << 18))
    assert os.path.getsize(path) > 10_000_000
    assert lines(path)["file"] == f"FAILED {path} is larger than 256 KiB"
