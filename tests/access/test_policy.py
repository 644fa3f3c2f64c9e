"""The policy file: what it says about whom, and the line of every mistake in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.access.policy import DEFAULT, SIZE_MAX, Profile, load, parse
from etherws.access.policy_values import GROUP_RATE_MAX, KEYS, MACS_MAX, RATE_MAX, RATE_MIN
from etherws.errors import PolicyError
from etherws.settings import GUARDS

DOCS = Path(__file__).parents[2] / "docs/policy.rst"

ALICE = Profile(
    bridge="br-lab",
    device="alice%d",
    mtu=1400,
    connections=2,
    macs=frozenset({"02:00:00:00:00:01", "02:00:00:00:00:02"}),
    rate_up=100_000_000,
    rate_down=2_500_000_000,
    isolated=True,
    drop=frozenset({"bpdu"}),
    addresses=frozenset(map(ip_network, ("192.0.2.7", "2001:db8:7::/64", "fe80::/64"))),
    group_rate=100,
)


def examples() -> list[str]:
    """The indented blocks of the file's reference."""
    blocks = re.findall(r"::\n\n((?:  .*\n|\n)+)", DOCS.read_text())
    return [textwrap.dedent(block).strip("\n") for block in blocks]


def check(path: Path | str) -> subprocess.CompletedProcess[str]:
    """What `etherws check` says."""
    return subprocess.run(
        [sys.executable, "-m", "etherws", "check", str(path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# What applies to whom.


def test_the_example_of_the_reference() -> None:
    policy = parse(examples()[1], "policy.toml")
    everyone = Profile(
        bridge="br-lab",
        macs=16,
        rate_down=2_500_000_000,
        isolated=True,
        drop=frozenset({"dhcp-server", "router-advertisement"}),
        group_rate=100,
    )
    assert policy.default == everyone
    assert policy.clients.keys() == {"alice", "gateway.example.org", "mallory"}
    assert policy.profile("alice") == ALICE
    assert policy.profile("gateway.example.org") == Profile(bridge="br-lab", macs=4096, rate_down=2_500_000_000)
    assert not policy.profile("mallory").connect
    assert policy.profile(None) == policy.profile("bob") == policy.profile("Alice") == everyone


def test_the_example_that_lets_in_only_those_who_are_named() -> None:
    policy = parse(examples()[2], "policy.toml")
    assert policy.profile("alice").connect
    assert not policy.profile("bob").connect
    assert not policy.profile(None).connect


def test_the_reference_has_every_key_and_guard() -> None:
    text = DOCS.read_text().partition("What each rule costs")[0]
    assert re.findall(r"^``([a-z-]+)`` +\S", text, re.MULTILINE) == list(KEYS)
    assert set(re.findall(r"^``([a-z-]+)``$", text, re.MULTILINE)) == GUARDS


@pytest.mark.parametrize("text", ["", "# nothing\n", "[default]\n", "default = {}", "[client]\n", "\r\n"])
def test_without_a_word_the_built_in_defaults_apply(text: str) -> None:
    assert parse(text, "policy.toml") == DEFAULT
    assert DEFAULT.profile("alice") == DEFAULT.profile(None) == Profile()


def test_each_key_is_inherited_by_itself() -> None:
    text = """
        client.bob = {rate-up = "unlimited", macs = 1}
        client."" = {}
    """
    with pytest.raises(PolicyError, match=r"^p:3: a client without a name"):
        parse(text, "p")
    # The order of the tables does not matter.
    policy = parse('client.bob = {rate-up = "unlimited"}\n[default]\nrate-up = "1 Mbit/s"\nmtu = 9000', "p")
    assert policy.profile("bob") == Profile(mtu=9000)
    assert policy.profile("eve") == Profile(mtu=9000, rate_up=1_000_000)


def test_names_that_differ_in_case_are_two_clients() -> None:
    policy = parse('[client."bob"]\nmtu = 1000\n[client."Bob"]\nmtu = 2000\n', "p")
    assert [policy.profile(name).mtu for name in ("bob", "Bob", "BOB")] == [1000, 2000, None]


@pytest.mark.parametrize(
    ("value", "rate"),
    [
        ("16 kbit/s", RATE_MIN),
        ("1000 Gbit/s", RATE_MAX),
        ("100Mbit/s", 100_000_000),
        ("2.5 Gbit/s", 2_500_000_000),
        ("0.1 Mbit/s", 100_000),
        ("64.0001 kbit/s", 64_000),
        ("unlimited", None),
    ],
)
def test_rates(value: str, rate: int | None) -> None:
    profile = parse(f'[default]\nrate-up = "{value}"\nrate-down = "1 Mbit/s"', "p").default
    assert (profile.rate_up, profile.rate_down) == (rate, 1_000_000)


def test_mac_addresses_are_kept_in_one_form() -> None:
    profile = parse('[default]\nmacs = ["02-00-00-AB-CD-EF", "02:00:00:ab:cd:ef", "00:00:5E:00:53:01"]', "p").default
    assert profile.macs == frozenset({"02:00:00:ab:cd:ef", "00:00:5e:00:53:01"})


# Mistakes: in a table on line 3, the value that begins on line 5.


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ("connect = 0", "connect is not true or false"),
        ('isolated = "true"', "isolated is not true or false"),
        ('bridge = "a name too long"', "bridge 'a name too long' is not a valid interface name"),
        ('bridge = "abcdefghijklmnop"', "bridge 'abcdefghijklmnop' is longer than 15 bytes"),
        ('bridge = "br%d"', "bridge 'br%d' is not a valid interface name"),
        ("bridge = 7", "bridge is not a text"),
        ('device = "a/b"', "device 'a/b' is not a valid interface name"),
        ('device = "%d%d"', "device '0%d' is not a valid interface name"),
        ("device = []", "device is not a text"),
        (f'device = "{"x" * 100_000}"', f"device '{'x' * 64}' is longer than 15 bytes"),
        ("mtu = 67", "mtu must be a number from 68 to 65521"),
        ("mtu = 65522", "mtu must be a number from 68 to 65521"),
        ('mtu = "1400"', "mtu must be a number from 68"),
        ("mtu = 1400.0", "mtu must be a number from 68"),
        (f"mtu = 0x{'f' * 100_000}", "mtu must be a number from 68"),
        ("connections = 0", "connections must be a number from 1 to 1024"),
        ("connections = true", "connections must be a number from 1 to 1024"),
        ("macs = 0", "macs must be a number from 1 to 65536"),
        (f"macs = {MACS_MAX + 1}", "macs must be a number"),
        ('macs = "02:00:00:00:00:01"', "macs must be a number"),
        ("macs = []", "macs is empty"),
        ("macs = [3]", "macs is not a list of texts"),
        ('macs = ["02:00:00:00:00"]', "'02:00:00:00:00' in macs is not a MAC address"),
        ('macs = ["02:00:00:00:00:01\\n"]', "is not a MAC address"),
        ('macs = ["0200.0000.0001"]', "is not a MAC address"),
        ('macs = ["01:00:5e:00:00:01"]', "01:00:5e:00:00:01 in macs is not the address of one machine"),
        ('macs = ["FF:FF:FF:FF:FF:FF"]', "ff:ff:ff:ff:ff:ff in macs is not the address of one machine"),
        ('macs = ["00:00:00:00:00:00"]', "is not the address of one machine"),
        ('macs = [\n\n  "02:00:00:00:00:01", # ]\n  "x",\n]', "'x' in macs is not a MAC address"),
        ("rate-up = 100", "rate-up is not a rate"),
        ('rate-up = "100"', "rate-up is not a rate"),
        ('rate-up = "100 mbit/s"', "rate-up is not a rate"),
        ('rate-up = "100 Mbps"', "rate-up is not a rate"),
        ('rate-up = "100 MB/s"', "rate-up is not a rate"),
        ('rate-up = "-1 Mbit/s"', "rate-up is not a rate"),
        ('rate-up = "\u0661 Mbit/s"', "rate-up is not a rate"),
        ('rate-up = "1 Mbit/s\\n"', "rate-up is not a rate"),
        ('rate-down = "15.9 kbit/s"', "rate-down '15.9 kbit/s' is out of range"),
        ('rate-down = "1000.1 Gbit/s"', "rate-down '1000.1 Gbit/s' is out of range"),
        ('rate-down = """\n1 kbit/s\n"""', "rate-down is not a rate"),
        ('drop = "bpdu"', "drop is not a list of texts"),
        ('drop = ["dhcp"]', "unknown entry of drop 'dhcp'; is it dhcp-server?"),
        ('drop = ["arp"]', "unknown entry of drop 'arp'; choose one of bpdu, dhcp-server, router-advertisement"),
        ("drop = [[]]", "drop is not a list of texts"),
        ("addresses = []", 'addresses is empty; name an address, or write "any"'),
        ('addresses = "192.0.2.1"', "addresses is not a list of texts"),
        ('addresses = ["192.0.2.1/24"]', "'192.0.2.1/24' in addresses has bits behind its prefix; is it 192.0.2.0/24?"),
        ('addresses = ["fe80::1%eth0"]', "'fe80::1%eth0' in addresses is not an IP address"),
        ('addresses = [\n\n  "192.0.2.1", # ]\n  "x",\n]', "'x' in addresses is not an IP address or network"),
        ("group-rate = 0", 'group-rate must be a number from 1 to 1000000, or "unlimited"; write it without quotes'),
        ('group-rate = "100"', "group-rate must be a number from 1 to 1000000"),
        ('group-rate = "100/s"', "group-rate must be a number from 1 to 1000000"),
        ("isolate = true", "unknown key 'isolate'; is it isolated?"),
        ("rate_up = 3", "unknown key 'rate_up'; is it rate-up?"),
        ('"\\u001b[2J" = 1', "unknown key '\\x1b[2J'; choose one of connect, bridge, device"),
        (f"{'mtu' * 100_000} = 1", "unknown key 'mtumtu"),
        ("example.org.mtu = 3", "unknown table 'example'; put a name with dots in quotes"),
    ],
    ids=lambda value: value[:40],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_mistakes_in_a_table(mistake: str, words: str, end: str) -> None:
    for table in ("default", 'client."bob"'):
        text = f"# A policy.\n\n[{table}]\n\n{mistake}\n\n[client.eve]\nmtu = 1000\n".replace("\n", end)
        with pytest.raises(PolicyError) as caught:
            parse(text, "p.toml")
        message = str(caught.value)
        assert message.startswith("p.toml:5: ")
        assert words in message
        assert "; " in message
        assert len(message) < 400
        assert message.isprintable()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("\nmtu = 3", 2, "mtu is outside of the tables; put it below [default]"),
        ("[clients.bob]\nmtu = 1000", 1, "unknown table 'clients'; is it client?"),
        ("[default]\n[default.sub]\nmtu = 1000", 2, "unknown table 'sub'"),
        ("\n[other]", 2, "unknown table 'other'; choose one of default, client"),
        ("default = 3", 1, "'default' is not a table"),
        ("[[default]]", 1, "'default' is not a table"),
        ("\nclient = [\n3]", 2, "client is not a table"),
        ("[client]\nmtu = 1400", 2, "'mtu' is not a table"),
        ("[client.bob]\n[[client.eve]]", 2, "'eve' is not a table"),
        ("[client.www]\n\n[client.www.example]\nmtu = 1400", 3, "unknown table 'example'; put a name with dots"),
        ("[default]\n\nclient.bob.mtu = 3\n", 3, "unknown table 'client'"),
        ("[client]\n\nbob.mtu = 1000\neve.mtu = 3\n", 4, "mtu must be a number"),
        ('[client]\nbob = {drop = ["bpdu"], mtu = 3}', 2, "mtu must be a number"),
        # Text that is not TOML.
        ("[default]\nmtu = \n", 2, "Invalid value at column 7"),
        ("[default]\nmtu = 1000\nmtu = 1000", 3, "Cannot overwrite a value at column"),
        ("[default]\n\n[default]\n", 3, "Cannot declare"),
        ("[default]\nbridge = br0\n", 2, "Invalid value at column 10"),
        ("[default]\nbridge = 'br0\n", 2, ""),
        ("[default]\r\n\r\nmtu = \r\n", 3, "Invalid value"),
        ("[default]\nmacs = 3\nmacs", 3, ""),
        ("[default]\nmacs = [\n'a',\n'b'\n\n# the end\n", 2, ""),
        ('[default]\nmtu = 1000\n\nbridge = """\nbr0\n\n[client.bob]\nmtu = 1000\n', 4, ""),
        (f"[default]\nmacs = [\n3]\nmtu = {'9' * 5000}\nmacs = 3\n", 4, "a value is too long or too deeply nested"),
        (f"[default]\n\nmacs = {'[' * 5000}{']' * 5000}\n", 3, "a value is too long or too deeply nested"),
        ("\ufeff[default]", 1, "Invalid statement"),
        ("[default]\nmtu = 1000 # \x00", 2, ""),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_mistakes_of_the_whole(text: str, line: int, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        parse(text, "p.toml")
    message = str(caught.value)
    assert message.startswith(f"p.toml:{line}: {words}")
    assert "; " in message
    assert len(message) < 400
    assert message.isprintable()


def test_the_line_is_found_in_a_long_file() -> None:
    addresses = "".join(f'  "02:00:00:00:{number >> 8:02x}:{number & 255:02x}", # {number}\n' for number in range(5000))
    clients = "".join(f'[client."{number}"]\nmtu = 1000\n' for number in range(5000))
    text = f"{clients}[default]\nmacs = [\n{addresses}]\nmtu = 1\n"
    with pytest.raises(PolicyError, match=r"^p:15004: mtu must be a number"):
        parse(text, "p")


def test_a_quote_left_open_at_the_top_of_a_long_file_is_found() -> None:
    text = '[default]\nbridge = """br-lab"\n' + "[client.bob]\nmacs = [3]\n" * 40_000
    with pytest.raises(PolicyError, match=r"^p:2: Unterminated string"):
        parse(text, "p")


# Files.


def test_a_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    # As Windows writes it.
    file.write_bytes('\ufeff[client."j\u00f6rg"]\r\nmtu = 1400\r\n'.encode())
    assert load(file).profile("j\u00f6rg").mtu == 1400
    assert load(str(file)) == load(file)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match=r"^cannot read policy .*/missing: No such file"):
        load(tmp_path / "missing")
    with pytest.raises(PolicyError, match=r"^cannot read policy .*: it is not a regular file; name a file"):
        load(tmp_path)
    # Nobody writes to it: a server that waits for that serves nobody.
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(PolicyError, match=r"^cannot read policy .*/fifo: it is not a regular file"):
        load(tmp_path / "fifo")
    file = tmp_path / "policy.toml"
    file.write_bytes(b"[default]\nmtu = 1400\n# caf\xe9\n")
    with pytest.raises(PolicyError, match=r"policy\.toml:3: not UTF-8; save"):
        load(file)


@pytest.mark.parametrize("table", ["[default]", '[client."a"]'])
def test_programs_of_a_file_that_others_can_change_are_refused(table: str, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text(f'{table}\nup = "/bin/true"\n')
    assert load(file).profile("a").up == "/bin/true"
    file.chmod(0o646)
    with pytest.raises(PolicyError, match=f"^{file} names programs, and can be changed by every .* chmod o-w {file}$"):
        load(file)
    file.chmod(0o644)
    tmp_path.chmod(0o777)
    with pytest.raises(PolicyError, match=f"chmod o-w {tmp_path}$"):
        load(file)
    file.write_text(f'{table}\nup = ""\nmtu = 1400\n')
    assert load(file).profile("a").mtu == 1400


def test_the_size_is_limited_before_anything_is_parsed(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_bytes(b"#" * SIZE_MAX)
    assert load(file) == DEFAULT
    file.write_bytes(b"[" * (SIZE_MAX + 1))
    with pytest.raises(PolicyError, match="larger than 1048576 bytes"):
        load(file)
    # As a copy is of a policy that root cannot read: no rules would be all rights.
    for device in ("/dev/zero", "/dev/null"):
        with pytest.raises(PolicyError, match=f"{device}: it is not a regular file"):
            load(device)


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf", b"\n \r\n"])
def test_an_empty_file_is_no_policy(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_bytes(content)
    with pytest.raises(PolicyError, match=f"^policy {file} is empty; was it written to its end"):
        load(file)
    file.write_bytes(b"# nothing")
    assert load(file) == DEFAULT


# The command.


def test_the_command_says_what_the_reference_says(tmp_path: Path) -> None:
    session, text, *_ = examples()
    file = tmp_path / "policy.toml"
    file.write_text(text)
    done = check(file)
    assert (done.returncode, done.stderr) == (0, "")
    assert session == f"$ etherws check policy.toml\n{done.stdout}".rstrip()


def test_the_command_without_named_clients(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[default]\nmacs = 1")
    assert (
        check(file).stdout == "OK      everyone      1 connection at once, at most 1 MAC address\nNothing is wrong.\n"
    )


def test_the_command_shows_no_control_characters(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text('[client."a\\u001b[2J\\nb"]\nconnect = false\n')
    assert check(file).stdout.startswith("OK      a?[2J?b       refused\nOK      everyone else ")


def test_the_command_refuses_a_mistake_in_one_line(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[default]\nmtu = 3\n")
    for path, words in (
        (file, f"{file}:2: mtu must be a number from 68 to 65521; "),
        (tmp_path, f"{tmp_path} is a folder"),
    ):
        done = check(path)
        assert (done.returncode, done.stderr) == (1, "")
        assert done.stdout.startswith(f"FAILED  file          {words}")
        assert done.stdout.endswith("\n1 failed, 0 warnings.\n")


# Random policies and random texts.

NAMES = st.text("abcXYZ019.-_", min_size=1, max_size=15).filter(lambda name: name not in (".", ".."))
MACS = st.binary(min_size=5, max_size=5).map(lambda raw: f"02:{raw.hex(':')}")
RATES = st.none() | st.integers(RATE_MIN // 1000, RATE_MAX // 1000).map(lambda rate: rate * 1000)
NETWORKS = st.ip_addresses().flatmap(
    lambda address: st.integers(0, address.max_prefixlen).map(lambda bits: ip_network((address, bits), strict=False))
)
PROGRAMS = st.sampled_from(["", "/etc/etherws/up", "/x y"])
PROFILES = st.builds(
    Profile,
    connect=st.booleans(),
    bridge=NAMES,
    device=NAMES,
    mtu=st.integers(68, 65_521),
    connections=st.integers(1, 1024),
    macs=st.integers(1, MACS_MAX) | st.frozensets(MACS, min_size=1, max_size=5),
    rate_up=RATES,
    rate_down=RATES,
    isolated=st.booleans(),
    drop=st.frozensets(st.sampled_from(sorted(GUARDS))),
    addresses=st.none() | st.frozensets(NETWORKS, min_size=1, max_size=5),
    group_rate=st.none() | st.integers(1, GROUP_RATE_MAX),
    vlan=st.none() | st.integers(1, 4094),
    vlans=st.frozensets(st.integers(1, 4094), max_size=5),
    up=PROGRAMS,
    down=PROGRAMS,
    change=PROGRAMS,
)
VALUES = st.sampled_from(
    ["1", "0", "-1", "1e9", "true", "inf", '""', "''", '"1 Mbit/s"', '"bpdu"', "[]", "{}", "[[1]]", "2026-01-01", '"""']
)


def written(value: Any) -> str:
    """A value of a profile, as TOML; a list over several lines."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, frozenset) and all(isinstance(item, int) for item in value):
        return str(sorted(value))
    if isinstance(value, frozenset):
        return "[" + "".join(f'\n  "{item}", # ]' for item in sorted(map(str, value))) + "\n]"
    return str(value) if isinstance(value, int) else f'"{value}"'


def table(profile: Profile) -> list[str]:
    """The statements that make this profile."""
    found = []
    for key in KEYS:
        value = getattr(profile, key.replace("-", "_"))
        if value is None:
            value = {"addresses": "any", "vlan": "bridge"}.get(key, "unlimited")
        elif key.startswith("rate"):
            value = f"{value // 1000} kbit/s"
        found.append(f"{key} = {written(value)}")
    return found


@given(PROFILES, PROFILES)
def test_what_is_written_is_read(one: Profile, other: Profile) -> None:
    text = "\n".join(["[default]", *table(one), '[client."x"]', *table(other)])
    policy = parse(text, "p")
    assert (policy.default, policy.profile("x")) == (one, other)
    assert one.summary().isprintable()


@given(PROFILES, st.integers(0, len(KEYS)), st.lists(st.sampled_from(["", "# ]", "  "]), max_size=3), st.data())
def test_the_line_is_that_on_which_the_statement_begins(
    profile: Profile, place: int, blanks: list[str], data: st.DataObject
) -> None:
    mistake = data.draw(
        st.sampled_from(["x = 1", "x = [\n[\n],\n]", 'x = """\n]\n\n"""', "x.y = {}", '"x" = [ # ]\n]'])
    )
    before = ["[default]", *table(profile)[:place], *blanks]
    text = "\n".join([*before, mistake, *table(profile)[place:]])
    with pytest.raises(
        PolicyError, match=f"^p:{len(chr(10).join(before).split(chr(10))) + 1}: unknown (key|table) 'x'"
    ):
        parse(text, "p")


@given(
    st.text(max_size=200)
    | st.lists(
        st.sampled_from(["[default]", "[client]", "[client.a]", "[[client]]", "client.b = 1", "# x", "]", '"""', "\r"])
        | st.builds("{} = {}".format, st.sampled_from([*KEYS, "x", "a.b", '""']), VALUES),
        max_size=8,
    ).map("\n".join)
)
def test_whatever_it_says_it_is_read_or_refused_with_a_line(text: str) -> None:
    try:
        parse(text, "p")
    except PolicyError as exc:
        found = re.match(r"p:(\d+): .*; ", str(exc))
        assert found, exc
        assert 1 <= int(found[1]) <= text.count("\n") + 1
        assert str(exc).isprintable()
