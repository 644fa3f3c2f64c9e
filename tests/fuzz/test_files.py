"""Files of the administrator: policies, passwords and tokens. A mistake is an error that names its line."""

from __future__ import annotations

import base64
import contextlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.access import credential_files, policy, policy_values, toml_lines
from etherws.access.credential_files import Passwords, Tokens
from etherws.config import invitation
from etherws.config.configuration import Configuration
from etherws.errors import ConfigError, CredentialsError, InvitationError, PolicyError, TomlError
from etherws.settings import GUARDS

keys = st.sampled_from([*policy_values.KEYS, "mac", "rate_up", "x", '"macs"', "drop.x", "a.b"])
names = st.sampled_from(["alice", '"CN=a.b"', "bob", '""', "a.b", "'q'", "\u00fc"])
headings = st.one_of(
    st.just("[default]"),
    names.map("[client.{}]".format),
    st.sampled_from(["[client]", "[[client]]", "[x]", "[default.y]", "["]),
)
scalars = st.one_of(
    st.sampled_from(["true", "false", "1", "0", "-1", "1500", "70000", "1e400", "nan", "1_000", "0x10", "9" * 5000]),
    st.sampled_from(
        ['"100 Mbit/s"', '"unlimited"', '"0.001 Gbit/s"', '"1 bit/s"', '"99999999999 kbit/s"', '"br0"', '""']
    ),
    st.sampled_from(['"02:00:00:00:00:01"', '"03:00:00:00:00:01"', '"00-00-00-00-00-00"', '"bpdu"', '"dhcp-server"']),
    st.sampled_from(['"""a\nb"""', "'''\n'''", '"\\u0000"', "1979-05-27T07:32:00Z", "{a = 1}", '"eth%d"', '"\\ud800"']),
    st.sampled_from(['"any"', '"192.0.2.7"', '"2001:db8::/32"', '"192.0.2.7/24"', '"fe80::1%eth0"', '"::/0"']),
    st.text(max_size=6).map(repr),
)
values = st.one_of(
    scalars, scalars, st.lists(scalars, max_size=3).map(", ".join).map("[{}]".format), st.just("[\n1,\n# x\n]")
)
statements = st.one_of(
    st.builds("{} = {}".format, keys, values), headings, st.sampled_from(["", "# comment", "   ", "\ufeff"])
)


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Lines of a policy, mostly right, broken in one place or nowhere."""
    text = draw(st.sampled_from(["\n", "\n", "\r\n"])).join(draw(st.lists(statements, max_size=8)))
    at = draw(st.integers(0, len(text)))
    return draw(st.sampled_from([text, text, text[:at], text[:at] + draw(st.text(max_size=2)) + text[at + 1 :]]))


@given(documents() | st.text(max_size=60))
def test_a_policy_is_read_or_refused_with_a_line(text: str) -> None:
    lines = text.count("\n") + 1
    try:
        found = policy.parse(text, "FILE")
    except PolicyError as exc:
        match = re.match(r"FILE:(\d+): .", str(exc))
        assert match, str(exc)
        assert 1 <= int(match[1]) <= lines
        assert str(exc).isprintable(), str(exc)
        return
    document = toml_lines.loads(text)
    assert set(found.clients) == set(document.get("client", {}))
    for profile in (found.default, *found.clients.values()):
        assert profile.summary().isprintable()
        assert 1 <= profile.connections <= policy_values.CONNECTIONS_MAX
        assert profile.drop <= GUARDS
        for rate in (profile.rate_up, profile.rate_down):
            assert rate is None or policy_values.RATE_MIN <= rate <= policy_values.RATE_MAX
        assert profile.group_rate is None or 1 <= profile.group_rate <= policy_values.GROUP_RATE_MAX
        assert profile.addresses is None or 1 <= len(profile.addresses) <= policy_values.ADDRESSES_MAX
        if isinstance(profile.macs, frozenset):
            assert all(re.fullmatch("[0-9a-f][02468ace](:[0-9a-f]{2}){5}", mac) for mac in profile.macs)


@given(documents().map(str.encode) | st.binary(max_size=60))
def test_a_configuration_is_read_or_refused_with_a_place(data: bytes) -> None:
    try:
        found = Configuration("FILE", data)
    except ConfigError as exc:
        match = re.match(r"FILE:(\d+):(\d+): .", str(exc))
        assert match, str(exc)
        assert 1 <= int(match[1]) <= data.count(b"\n") + 1
        assert 1 <= int(match[2]) <= len(data) + 2
        assert str(exc).isprintable(), str(exc)
        return
    for key in found.values:
        assert re.match(r"FILE:\d+:\d+: x", str(found.mistake(key, "x", value=True)))


@given(st.text(max_size=80), st.binary(max_size=80))
def test_whatever_is_pasted_as_an_invitation_is_refused(text: str, body: bytes) -> None:
    encoded = base64.urlsafe_b64encode(body).decode()
    for line in (text, f"{invitation.PREFIX}{text}", f"{invitation.PREFIX}:1:{encoded}:{text}"):
        with pytest.raises(InvitationError) as caught:
            invitation.parse(line, 0)
        assert str(caught.value).isprintable()


def paths(table: dict[str, Any], prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The keys of the tables, with those that lead to them."""
    found = []
    for key, value in table.items():
        found.append((*prefix, key))
        if isinstance(value, dict):
            found += paths(value, (*prefix, key))
    return found


@given(documents())
def test_the_line_of_a_key_is_one_of_the_lines_that_name_it(text: str) -> None:
    try:
        document = toml_lines.loads(text)
    except TomlError as exc:
        assert 1 <= exc.line <= text.count("\n") + 1
        return
    lines = text.replace("\r\n", "\n").split("\n")
    for path in paths(document):
        line = toml_lines.line_of(text, path)
        statement = lines[line - 1]
        assert path[-1] in statement or "\\" in statement or "'" in statement or '"' in statement, (path, statement)


BCRYPT = "$2y$04$" + "a" * 21 + "." + "b" * 31
hashes = st.one_of(
    st.sampled_from([BCRYPT, "$2b$10$" + BCRYPT[7:], "$2y$31$" + BCRYPT[7:], "{SHA}" + "A" * 27 + "=", "{SSHA}abc"]),
    st.sampled_from(
        ["sha256:" + "0a" * 32, "sha256:" + "F" * 64, "sha256:" + "0" * 63, "$6$x$y", "a" * 13, "", "plain"]
    ),
    st.text(max_size=20),
)
people = st.sampled_from(["alice", "bob", "carol", "#x", "", "\u00fc" * 65, "a" * 129, "a\tb"]) | st.text(max_size=6)
entries = st.one_of(
    st.builds("{}:{}".format, people, hashes),
    st.sampled_from(["", "# comment", "no colon", " ", "\r"]),
    st.text(max_size=10),
)
files = st.lists(entries, max_size=6).map("\n".join).map(lambda text: text.encode(errors="surrogatepass"))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("credentials") / "FILE"
    path.touch(0o600)
    return path


@given(data=files | st.binary(max_size=60))
def test_files_of_credentials_are_read_or_refused_with_a_line(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    lines = data.count(b"\n") + 1
    kinds = set()
    for kind in (Passwords, Tokens):
        try:
            kind.load(file)
            kinds.add(kind)
        except CredentialsError as exc:
            match = re.match(rf"{re.escape(str(file))}:(\d+): .", str(exc))
            assert match, str(exc)
            assert 1 <= int(match[1]) <= lines
            # No secret: whatever stands behind a colon.
            text = data.decode(errors="replace").split("\n")[int(match[1]) - 1]
            secret = text.partition(":")[2].strip()
            assert len(secret) < 12 or secret not in str(exc)
    with contextlib.suppress(CredentialsError):
        found = list(credential_files.parse_entries(file, credential_files.read_lines(file)[0], None))
        # An entry is of one kind.
        assert len(kinds) < 2 or not found


@given(st.text(max_size=20), st.text(max_size=80))
def test_any_login_is_checked_without_an_error(name: str, password: str) -> None:
    known = Passwords({"alice": BCRYPT.encode()}, {"bob": bytes(20)})
    assert not known.check(name, password)
    assert Tokens({bytes(32): "alice"}).name_of(password) is None
