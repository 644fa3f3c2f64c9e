"""State files: what is read after each kind of end, and what is refused."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws.kernel.state_file import SLOT_BYTES, STATE_MAX, StateFile, is_state_file


@pytest.fixture
def file() -> Iterator[StateFile]:
    made = StateFile()
    yield made
    made.close()


def test_a_new_file_has_no_state(file: StateFile) -> None:
    assert file.read() is None


def test_the_last_state_is_read_by_the_next_process(file: StateFile) -> None:
    for number in range(5):
        file.write({"number": number})
        again = StateFile(os.dup(file.fd))
        assert again.read() == file.read() == {"number": number}
        again.close()


def test_the_next_process_goes_on_writing(file: StateFile) -> None:
    file.write({"number": 1})
    again = StateFile(os.dup(file.fd))
    again.write({"number": 2})
    again.write({"number": 3})
    assert again.read() == {"number": 3}
    again.close()


@given(cut=st.integers(0, 100))
def test_a_state_that_is_half_written_is_the_one_before(cut: int) -> None:
    file = StateFile()
    file.write({"number": 1})
    # The second write goes to the second slot; as much of it as was written before the end.
    before = os.pread(file.fd, SLOT_BYTES, SLOT_BYTES)
    file.write({"number": 2, "more": "x" * 60})
    whole = len(os.pread(file.fd, SLOT_BYTES, SLOT_BYTES).rstrip(b"\0"))
    os.pwrite(file.fd, before[min(cut, whole - 1) :], SLOT_BYTES + min(cut, whole - 1))
    again = StateFile(os.dup(file.fd))
    assert again.read() == {"number": 1}
    again.write({"number": 3})
    assert again.read() == {"number": 3}
    again.close()
    file.close()


@given(junk=st.binary(min_size=1, max_size=200), at=st.integers(0, 2 * SLOT_BYTES - 200))
def test_junk_in_the_file_never_fails(junk: bytes, at: int) -> None:
    file = StateFile()
    file.write({"number": 1})
    os.pwrite(file.fd, junk, at)
    again = StateFile(os.dup(file.fd))
    assert again.read() in ({"number": 1}, None)
    again.write({"number": 2})
    assert again.read() == {"number": 2}
    again.close()
    file.close()


def test_json_that_is_no_object_is_no_state(file: StateFile, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write([1, 2])  # type: ignore[arg-type]
    assert file.read() is None
    monkeypatch.setattr(json, "dumps", lambda *args, **more: "no JSON")
    file.write({})
    assert file.read() is None


def test_a_state_that_is_too_long_is_refused_and_the_old_one_stays(file: StateFile) -> None:
    file.write({"number": 1})
    with pytest.raises(ValueError, match="at most"):
        file.write({"long": "x" * STATE_MAX})
    assert file.read() == {"number": 1}
    file.write({"long": "x" * (STATE_MAX - 11)})
    assert file.read() == {"long": "x" * (STATE_MAX - 11)}


def test_only_its_own_kind_of_file_is_taken(file: StateFile, tmp_path: object) -> None:
    assert is_state_file(file.fd)
    unsealed = os.memfd_create("x", os.MFD_ALLOW_SEALING)
    os.ftruncate(unsealed, 2 * SLOT_BYTES)
    pipe = os.pipe()
    for fd in (unsealed, *pipe):
        assert not is_state_file(fd)
        with pytest.raises(ValueError, match="not a state file"):
            StateFile(fd)
        os.close(fd)


def test_its_size_can_never_change(file: StateFile) -> None:
    for size in (0, 10 << 20):
        with pytest.raises(PermissionError):
            os.ftruncate(file.fd, size)
