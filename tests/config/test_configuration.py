"""A configuration file: what is taken, and the place and the words of each mistake."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etherws.config import configuration
from etherws.config.configuration import SIZE_MAX, Configuration, load
from etherws.errors import ConfigError, CredentialsError, DeviceError, SettingsError


def refused(raw: bytes) -> str:
    """Why a file with this content is refused."""
    with pytest.raises(ConfigError) as caught:
        Configuration("lan.toml", raw)
    assert caught.value.exit_status == 2
    return str(caught.value)


def test_keys_and_values_are_read() -> None:
    found = Configuration("/etc/lan.toml", b'\xef\xbb\xbf# a\nversion = 1\nport = 443\ndrop = ["bpdu"]\ncheck = true\n')
    assert found.values == {"port": 443, "drop": ["bpdu"], "check": True}
    assert Configuration("/etc/lan.toml", b"").values == {}
    assert (found.join("key"), found.join("/key")) == ("/etc/key", "/key")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'port = 1\nuri = "wss://ho', "lan.toml:2:16: Illegal character '\\n'; put texts in quotes"),
        (b"port = 1\n\ndrop = [\n1,\n", "lan.toml:3:1: Invalid value"),
        (b"a = 1\na = 2", "lan.toml:2:6: Cannot overwrite a value"),
        (b"a = 1\nb = '\xff'", "lan.toml:2:6: not UTF-8"),
        (b"\xef\xbb\xbfa = 1\n\xff", "lan.toml:2:1: not UTF-8"),
        (b"\xef\xbb\xbf\xff", "lan.toml:1:1: not UTF-8"),
        (b"a = '\xc3\xa4\xff'", "lan.toml:1:7: not UTF-8"),
        (b"a = 1\nport = 0x" + b"f" * 5000, "lan.toml:2:8: port is a number of more than 64 bits"),
        (b"version = 0x" + b"f" * 5000, "lan.toml:1:11: version is a number of more than 64 bits"),
        (b"version = {a = [0x" + b"f" * 5000 + b"]}", "lan.toml:1:11: version is a number of more than 64 bits"),
        (b"inet = [1, -9223372036854775809]", "lan.toml:1:8: inet is a number of more than 64 bits"),
        (b'keyfile = "a\\u0000b"', "lan.toml:1:11: keyfile has a zero byte in it; leave out \\u0000"),
        (b'header = ["X: y", "@\\u0000"]', "lan.toml:1:10: header has a zero byte in it"),
        (b"a = 1\n" * (SIZE_MAX // 6 + 1), "lan.toml is larger than 256 KiB"),
        (b"version = 2", "lan.toml:1:11: the file is of version 2; this etherws knows version 1: use the etherws"),
        (b"version = 0", "lan.toml:1:11: the file is of version 0; write version = 1"),
        (b"version = true", "the file is of version True; write version = 1"),
        (b'version = "2\\u001b"', "the file is of version '2\\x1b'; write version = 1"),
        (b"port = 1\n[server]\nmtu = 1", "lan.toml:2:1: 'server' is a table; a configuration has none"),
        (b"[default]\nmtu = 1", "lan.toml:1:1: this is a policy, and no configuration"),
        (b'[client."a"]\nmtu = 1', "this is a policy"),
        (b"a = {}", "lan.toml:1:1: 'a' is a table"),
        (b"a = [{}]", "lan.toml:1:1: 'a' is a table"),
        (b'["\\u001b[31m"]', "lan.toml:1:1: '\\x1b[31m' is a table; a configuration has none: leave out its line"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_mistake_has_its_place(raw: bytes, words: str) -> None:
    assert words in refused(raw)


@pytest.mark.parametrize("name", ["gone", "folder", "fifo", "device"])
def test_what_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "folder":
        path.mkdir()
    if name == "fifo":
        os.mkfifo(path)
    if name == "device":
        path.symlink_to("/dev/zero")
    words = {
        "gone": "No such file or directory; etherws init makes one",
        "folder": f"is a folder; name a file in it, such as {path}/lan.toml",
    }
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    assert str(path) in str(caught.value)
    assert words.get(name, "it is not a regular file; check who may read it") in str(caught.value)


def test_a_file_that_this_user_may_not_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(configuration, "read_file", refuse)
    with pytest.raises(ConfigError, match=r"/lan\.toml: Permission denied; check who may read it$"):
        load(str(tmp_path / "lan.toml"))


def test_a_file_that_others_can_change_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lan.toml"
    path.write_text("port = 1")
    path.chmod(0o646)
    with pytest.raises(ConfigError, match=f"every user of this machine; chmod o-w {path}"):
        load(str(path))
    path.chmod(0o644)
    assert load(str(path)).values == {"port": 1}
    tmp_path.chmod(0o777)
    with pytest.raises(ConfigError, match=f"every user of this machine; chmod o-w {tmp_path}$"):
        load(str(path))


@pytest.mark.parametrize("content", [b"", b"\n \r\n"])
def test_an_empty_file_is_no_configuration(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "lan.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{path} is empty; was it written to its end"):
        load(str(path))
    path.write_bytes(b"# nothing")
    assert load(str(path)).values == {}


def test_a_copy_may_be_read_where_the_file_is_not_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "copy"
    copy.write_text("port = 1")
    monkeypatch.setattr(configuration, "read_file", lambda _, size: copy.read_bytes()[:size])
    assert load(str(tmp_path / "gone")).values == {"port": 1}


def test_errors_get_the_place_of_what_they_are_about() -> None:
    found = Configuration("lan.toml", b'mtu = 3\n  token-file = "x"\nport = 1')
    names = {"mtu", "token_file"}
    placed = found.placed(SettingsError("--mtu 3 is out of range"), names)
    assert (str(placed), placed.exit_status) == ("lan.toml:1:7: --mtu 3 is out of range", 2)
    # The file may be there later: a unit goes on.
    placed = found.placed(CredentialsError("cannot read --token-file x: none"), names)
    assert (str(placed), placed.exit_status) == ("lan.toml:2:16: cannot read --token-file x: none", 1)
    for other in (
        SettingsError("--device x is too long"),
        SettingsError("--port 1 is set by the command line"),
        SettingsError("x: --mtu 3"),
        DeviceError("--mtu 3"),
    ):
        assert found.placed(other, names) is other


def test_changes_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "lan.toml"
    path.write_text("port = 1")
    found = load(str(path))
    assert not found.changed()
    path.write_text("port = 2")
    assert found.changed()
    path.write_text("port = ")
    with pytest.raises(ConfigError, match=r"lan\.toml:1:8: Invalid value"):
        found.changed()
