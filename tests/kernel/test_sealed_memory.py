"""Sealed memory: its size stays, and no other file is taken for it."""

from __future__ import annotations

import os

import pytest

from etherws.kernel.sealed_memory import is_sealed, make


def test_its_size_can_never_change() -> None:
    fd = make("etherws-test", 4096)
    assert is_sealed(fd, 4096)
    assert not os.get_inheritable(fd)
    assert os.pread(fd, 9000, 0) == bytes(4096)
    for size in (0, 4095, 4097):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, size)
    os.pwrite(fd, b"x", 4095)
    os.close(fd)


def test_no_other_file_is_taken_for_it() -> None:
    sealed, unsealed, pipe = make("etherws-test", 4096), os.memfd_create("x", os.MFD_ALLOW_SEALING), os.pipe()
    os.ftruncate(unsealed, 4096)
    assert not is_sealed(sealed, 4097)
    for fd in (unsealed, *pipe):
        assert not is_sealed(fd, 4096)
    for fd in (sealed, unsealed, *pipe):
        os.close(fd)
    assert not is_sealed(sealed, 4096)


def test_no_descriptor_is_left_when_the_kernel_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.listdir("/proc/self/fd")
    monkeypatch.setattr("os.ftruncate", lambda *_: (_ for _ in ()).throw(OSError("no memory")))
    with pytest.raises(OSError, match="no memory"):
        make("etherws-test", 4096)
    assert os.listdir("/proc/self/fd") == before
