"""The value of --run-as."""

from __future__ import annotations

import grp
import pwd

import click
import pytest

from etherws.cli.user_option import User, UserName

NOBODY = pwd.getpwnam("nobody")
ROOT = grp.getgrgid(0).gr_name


@pytest.mark.parametrize(
    ("text", "user", "group"),
    [
        ("nobody", NOBODY.pw_uid, NOBODY.pw_gid),
        (f"nobody:{ROOT}", NOBODY.pw_uid, 0),
        (str(NOBODY.pw_uid), NOBODY.pw_uid, NOBODY.pw_gid),
        ("nobody:77", NOBODY.pw_uid, 77),
        ("4000000000:4000000001", 4_000_000_000, 4_000_000_001),
    ],
)
def test_names_and_numbers_are_understood(text: str, user: int, group: int) -> None:
    found = UserName().convert(text, None, None)
    assert found == User(text, user, group)
    assert UserName().convert(found, None, None) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no user"),
        (":77", "names no user"),
        ("nobody:", "names no user"),
        ("no such user", "this machine has no user 'no such user'; adduser --system makes one"),
        ("4000000000", "no user '4000000000'; give its group too, as USER:GROUP"),
        ("nobody:no such group", "this machine has no group 'no such group'; addgroup"),
        ("nobody:4294967295", "4294967295 is not the number"),
        ("4294967295:0", "4294967295 is not the number"),
        ("99999999999:0", "99999999999 is not the number"),
    ],
)
def test_a_mistake_is_told(text: str, says: str) -> None:
    with pytest.raises(click.BadParameter, match=says):
        UserName().convert(text, None, None)
