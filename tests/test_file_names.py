"""Names of files become absolute once, whatever folder etherws works in later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from etherws import file_names
from etherws.errors import SettingsError
from etherws.file_names import absolute, is_credential, make_variables_absolute


def test_a_name_becomes_absolute_and_links_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("file")
    for name, path in {
        "link": f"{tmp_path}/link",
        "./-": f"{tmp_path}/-",
        "a/../b": f"{tmp_path}/b",
        "/etc/x": "/etc/x",
        "/dev/null": "/dev/null",
        "": "",
    }.items():
        assert absolute("--file", name) == path


def test_a_file_that_is_open_as_a_descriptor_has_its_own_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with open(tmp_path / "file") as file:
        number = file.fileno()
        for name in (f"/dev/fd/{number}", f"/proc/self/fd/{number}", f"/dev/../dev/fd/{number}"):
            assert absolute("--file", name) == str(tmp_path / "file")
        os.unlink(tmp_path / "file")
        with pytest.raises(SettingsError, match="give the name of a regular file"):
            absolute("--file", f"/dev/fd/{number}")
    with pytest.raises(SettingsError, match=f"--file /dev/fd/{number}: etherws reads this file again later"):
        absolute("--file", f"/dev/fd/{number}")


@pytest.mark.parametrize("name", ["-", "/dev/stdin", "/dev/fd/0"])
def test_standard_input_from_a_pipe_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, writer = os.pipe()
    before = os.dup(0)
    os.dup2(reader, 0)
    try:
        with pytest.raises(SettingsError, match=f"--file {name}: etherws reads this file again later"):
            absolute("--file", name)
    finally:
        os.dup2(before, 0)
        for descriptor in (reader, writer, before):
            os.close(descriptor)


def test_a_folder_that_is_gone_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(SettingsError, match="--file x: the current folder exists no longer; give the whole path"):
        absolute("--file", "x")
    assert absolute("--file", "/x") == "/x"


def test_the_files_in_openssls_variables_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    environ = {"SSL_CERT_FILE": "ca.pem", "SSL_CERT_DIR": "certs:/etc/ssl:", "HOME": "here"}
    make_variables_absolute(environ)
    assert environ == {
        "SSL_CERT_FILE": f"{tmp_path}/ca.pem",
        "SSL_CERT_DIR": f"{tmp_path}/certs:/etc/ssl:",
        "HOME": "here",
    }
    environ = {"SSL_CERT_FILE": ""}
    make_variables_absolute(environ)
    assert environ == {"SSL_CERT_FILE": ""}


def test_a_file_is_read_where_its_copy_is(tmp_path: Path) -> None:
    folder = str(tmp_path)
    assert file_names.to_read("/etc/key") == "/etc/key"
    file_names.use_copies(folder)
    try:
        copy = file_names.copy_of("/etc/key", folder)
        assert file_names.to_read("/etc/key") == "/etc/key"
        # A link that leads nowhere stands for a file that is gone.
        os.symlink("gone", copy)
        assert file_names.to_read("/etc/key") == copy
        assert copy.endswith("-key")
        assert copy != file_names.copy_of("/srv/key", folder)
        assert len(os.path.basename(file_names.copy_of("/" + 250 * "x", folder))) < 255
    finally:
        file_names.use_copies(None)


def test_credentials_of_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SettingsError, match=r"LoadCredential=lan\.key:/FILE into its unit"):
        absolute("--keyfile", "credential:lan.key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/run/credentials/etherws-server@lan.service")
    assert absolute("--keyfile", "credential:lan.key") == "/run/credentials/etherws-server@lan.service/lan.key"
    for name in ("credential:", "credential:..", "credential:a/b", "credential:a b"):
        with pytest.raises(SettingsError, match="names no credential; write credential:NAME"):
            absolute("--keyfile", name)
    assert [*map(is_credential, ("credential:x", "/run/credentials/?/x", "/etc/x"))] == [True, True, False]
