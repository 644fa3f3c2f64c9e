"""The store: what the next process finds, by exec and by systemd."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from etherws.kernel import service_manager, store
from etherws.kernel.store import HANDOVER, Store


def test_the_next_image_finds_what_is_kept_and_nothing_else() -> None:
    ours = Store()
    files = [os.memfd_create(name) for name in ("one", "two", "three")]
    ours.keep("port-7", files[0], files[1])
    ours.keep("listen", files[2])
    ours.keep("gone", files[2])
    ours.drop("gone")
    environ = dict(os.environ)
    ours.hand_over(environ)
    program = """if True:
        import os
        from etherws.kernel import store
        found = store.from_environ(os.environ)
        assert store.HANDOVER not in os.environ
        for name in found.names():
            fds = found.take(name)
            assert not any(map(os.get_inheritable, fds))
            print(name, *(os.readlink(f"/proc/self/fd/{fd}").split(":")[1].split()[0] for fd in fds))
    """
    said = subprocess.run(
        [sys.executable, "-c", program], env=environ, close_fds=False, check=True, capture_output=True, text=True
    )
    assert said.stdout.splitlines() == ["port-7 one two", "listen three"]
    ours.take_back()
    assert not any(map(os.get_inheritable, files))
    for fd in files:
        os.close(fd)


def test_entries_that_cannot_be_read_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    fd = os.memfd_create("one")
    environ = {HANDOVER: f"x:port-1,99999:port-2,{2**40}:port-3,:,{fd}:port-4"}
    found = store.from_environ(environ)
    assert not environ
    assert found.names() == ["port-4"]
    assert found.take("port-4") == [fd]
    assert found.take("port-4") == []
    assert len(caplog.records) == 4
    os.close(fd)


def test_what_nobody_took_is_closed_at_the_end_of_the_start() -> None:
    fd = os.memfd_create("one")
    found = Store({"port-9": [fd]})
    assert found.drop_rest() == ["port-9"]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_systemd_is_told_of_each_change_once(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[object, ...]] = []

    def keep(*args: object) -> bool:
        told.append(("keep", *args))
        return True

    monkeypatch.setattr(service_manager, "keep", keep)
    monkeypatch.setattr(service_manager, "drop", lambda *args: told.append(("drop", *args)))
    kept = Store(lasting=True)
    kept.keep("port-1", 5, 6)
    kept.keep("port-1", 5, 6)
    kept.keep("port-1", 5, 7)
    kept.drop("port-1")
    assert told == [("keep", "port-1", 5, 6), ("drop", "port-1"), ("keep", "port-1", 5, 7), ("drop", "port-1")]


def test_a_store_of_systemd_that_is_full_is_one_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_manager, "keep", lambda *_: True)
    monkeypatch.setattr(service_manager, "drop", lambda *_: True)
    kept = Store({"port-1": [5, 6], "packets": [7]}, lasting=True, size=5)
    kept.take("port-1")
    kept.keep("port-1", 8, 6)
    # What systemd has from before counts.
    kept.keep("port-2", 9, 10)
    assert not caplog.records
    for number in range(3, 6):
        kept.keep(f"port-{number}", 11, 12)
    assert caplog.text.count("systemd keeps only 5 descriptors of this unit, and 7 are needed") == 1
    assert len(caplog.records) == 1


def test_what_systemd_does_not_take_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(service_manager, "keep", lambda *_: False)
    kept = Store(lasting=True)
    for number in range(100):
        kept.keep(f"port-{number}", 5, 6)
    assert "port-0 does not outlive a restart or a crash: systemd did not take it in time" in caplog.text
    assert len(caplog.records) < 20
