"""The header Etherws-Features: what is a list, and what proves that a server has read the client's."""

from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from etherws import features
from tests.lab.peer import KEY

#: The example of docs/wire.rst.
LIST = {"v2": "", "mtu": "=1500"}
EXAMPLE = "v2, mtu=1500, proof=:iOBuwYti8IHqlSpLhd/LlQdPLf5IcHqKQ24hklJXlWE=:"

GOOD = {
    "v2": {"v2": ""},
    "v2,mtu=1500": LIST,
    "v2 \t,\t mtu=1500": LIST,
    "mtu=1500, v2": {"mtu": "=1500", "v2": ""},
    "v2;a;  b=c;*d=?1, mtu=1500;of=ethws0": {"v2": ";a;b=c;*d=?1", "mtu": "=1500;of=ethws0"},
    "padding=2.5;at=:aGk=:, *x-y_z.0": {"padding": "=2.5;at=:aGk=:", "*x-y_z.0": ""},
    "a=" + "b" * (features.LENGTH_MAX - 2): {"a": "=" + "b" * (features.LENGTH_MAX - 2)},
    ",".join(f"a{at}" for at in range(features.COUNT_MAX)): {f"a{at}": "" for at in range(features.COUNT_MAX)},
}

BAD = [
    *("", " ", ",", "v2,", ",v2", "v2,,mtu=1", "V2", "2v", "v2=", "v2 =1", "v2= 1", "v2;", "v2 ;a", "v2;=1", "v 2"),
    *('v2="x"', "v2=(a b)", "v2=\xff", "v2=a\x00", "v\u0660", "v2, v2", "v2=1, v2=2", "v2\n", "v2;a\n"),
    "a=" + "b" * (features.LENGTH_MAX - 1),
    ",".join(f"a{at}" for at in range(features.COUNT_MAX + 1)),
]


@pytest.mark.parametrize("text", GOOD)
def test_a_list_is_read_in_its_order(text: str) -> None:
    assert features.parse(text) == GOOD[text]
    assert list(features.parse(text) or {}) == list(GOOD[text])


@pytest.mark.parametrize("text", BAD)
def test_a_malformed_list_is_no_list(text: str) -> None:
    assert features.parse(text) is None
    assert features.proved(KEY, text) is None


def test_the_example_of_the_specification() -> None:
    digest = hashlib.sha256(f"{KEY}61521530-42C0-4CE2-B1E3-998B43C0C081v2, mtu=1500".encode()).digest()
    assert f"v2, mtu=1500, proof=:{base64.b64encode(digest).decode()}:" == EXAMPLE
    assert features.answer(KEY, LIST) == EXAMPLE
    assert features.proved(KEY, EXAMPLE) == LIST


@pytest.mark.parametrize("changed", [EXAMPLE.replace(", ", ","), EXAMPLE.replace(", ", " ,\t")])
def test_blanks_between_features_may_change_on_the_way(changed: str) -> None:
    assert features.proved(KEY, changed) == LIST


@pytest.mark.parametrize(
    "wrong",
    [
        *("v2", "v2, mtu=1500", "", "proof", EXAMPLE.replace("1500", "1400"), EXAMPLE.replace("mtu=1500, ", "")),
        *(EXAMPLE + ", more", EXAMPLE.replace("iOB", "iOC"), EXAMPLE.replace("=:", "="), EXAMPLE + ";a", EXAMPLE * 2),
        *("mtu=1500, " + EXAMPLE, EXAMPLE.replace("v2, mtu=1500", "mtu=1500, v2")),
    ],
)
def test_what_is_not_the_servers_own_word_proves_nothing(wrong: str) -> None:
    assert features.proved(KEY, wrong) is None
    assert features.proved("A" * 22 + "==", EXAMPLE) is None


@pytest.mark.parametrize(
    ("value", "mtu"),
    [
        *(("=1500", 1500), ("=1500;of=x", 1500), ("=68", 68), ("=65521", 65521), ("=67", None), ("=65522", None)),
        *(("", None), (";a=1500", None), ("=-1", None), ("=1e3", None), ("=1.5", None), ("=" + "9" * 16, None)),
    ],
)
def test_an_mtu_is_a_number_that_an_interface_can_have(value: str, mtu: int | None) -> None:
    assert features.mtu_of({"mtu": value}) == mtu
    assert features.mtu_of({}) is None


def test_the_warning_has_both_numbers_and_the_lower_one_to_give() -> None:
    for mtu, theirs in ((9000, 1500), (1500, 9000)):
        text = features.mtu_warning("ethws0", mtu, "192.0.2.1", theirs)
        assert text.startswith(f"the MTUs differ: {mtu} at ethws0 here, {theirs} at the interface of 192.0.2.1.")
        assert text.endswith("--mtu 1500")


@pytest.mark.parametrize(
    ("listed", "kind"),
    [
        ({"check": ""}, features.CHECK),
        ({"check": ";later=1"}, features.CHECK),
        ({"check": "=idle"}, features.IDLE),
        ({"check": "=idle;later=1"}, features.IDLE),
        ({"check": "=none"}, None),
        ({"check": "=later"}, None),
        ({"v2": ""}, None),
        ({}, None),
    ],
)
def test_a_list_names_a_kind_of_check_or_none(listed: dict[str, str], kind: str | None) -> None:
    assert features.check_of(listed) == kind
    if kind:
        assert features.check_of({"check": features.check_value(kind)}) == kind


ID = "3q2-7wAAQkJCQkJCQkJCQg"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (f"=3;of=8;id={ID}", (3, 8, ID, False)),
        (f"=0;of=8;id={ID};new", (0, 8, ID, True)),
        (f"=0;new;id={ID};of=1", (0, 1, ID, True)),
        (f"=15;of=16;id={ID};later=1;other", (15, 16, ID, False)),
    ],
)
def test_a_request_says_which_connection_of_which_link_it_is(value: str, found: tuple[int, int, str, bool]) -> None:
    listed = features.parse(f"v2, link{value}") or {}
    assert features.link_of(listed) == found
    # The client's own list is no answer, but has what one needs.
    assert features.link_of(listed, answer=True) == (*found[:2], "", False)
    assert features.link_of({"link": value}) is None


@pytest.mark.parametrize(
    "value",
    [
        *("", "=", "=3", f";of=8;id={ID}", f"=3;id={ID}", f"=3;of;id={ID}", f"=3;of=;id={ID}", f"=8;of=8;id={ID}"),
        *(f"=03;of=8;id={ID}", f"=3;of=08;id={ID}", f"=16;of=17;id={ID}", f"=3;of=017;id={ID}", f"=0;of=0;id={ID}"),
        *(f"=-1;of=8;id={ID}", f"=a;of=8;id={ID}", f"=3;of=b;id={ID}", f"=3;of=8;of=8;id={ID}", f"=3;of=100;id={ID}"),
        *(f"=٣;of=8;id={ID}", f"=3.0;of=8;id={ID}"),
    ],
)
def test_a_malformed_link_is_no_link(value: str) -> None:
    for answer in (False, True):
        assert features.link_of({"v2": "", "link": value}, answer=answer) is None


@pytest.mark.parametrize("rest", ["", ";id", f";id={ID[1:]}", f";id={ID}=", f";id={ID[1:]}+", f";id={ID};new=1"])
def test_a_request_names_its_link(rest: str) -> None:
    listed = {"v2": "", "link": f"=3;of=8{rest}"}
    assert features.link_of(listed) is None
    # A server's answer need not.
    assert features.link_of(listed, answer=True) == (3, 8, "", False)


def test_a_list_without_a_link_has_none() -> None:
    assert features.link_of(LIST) is None


@given(st.integers(0, 15), st.integers(1, 16), st.binary(min_size=16, max_size=16), st.booleans())
def test_what_is_written_of_a_link_is_read(member: int, of: int, name: bytes, new: bool) -> None:
    text = base64.urlsafe_b64encode(name).decode().rstrip("=")
    asked = features.Membership(member, of, text, new)
    listed = features.parse(features.write({"v2": "", "link": features.link_value(asked)})) or {}
    assert features.link_of(listed) == (asked if member < of else None)
    told = features.Membership(member, of)
    listed = features.parse(features.write({"v2": "", "link": features.link_value(told)})) or {}
    assert features.link_of(listed, answer=True) == (told if member < of else None)


@given(st.text() | st.text("=;03of8idnew"))
def test_any_value_is_a_link_or_none(value: str) -> None:
    found = features.link_of({"v2": "", "link": value})
    assert found is None or features.link_of({"v2": "", "link": features.link_value(found)}) == found


starts, names = st.sampled_from("az*"), st.text("az09_.*-", max_size=9)
texts = st.text("!#$%&'()*+-./09:<=>?@AZ[]^_`az{|}~\\", min_size=1, max_size=9)
values = st.builds(
    lambda value, parameters: (f"={value}" if value else "") + "".join(f";{name}" for name in parameters),
    st.just("") | texts,
    st.lists(st.sampled_from(["a", "*b=1", "c=:x=:"]), max_size=2),
)


@given(st.dictionaries(st.builds(str.__add__, starts, names), values, min_size=1, max_size=4))
def test_what_is_written_is_read_and_proved(found: dict[str, str]) -> None:
    assert features.parse(features.write(found)) == found
    assert features.proved(KEY, features.answer(KEY, found)) == found


@given(st.text() | st.text("v2mtu=15;,: *\t"))
def test_any_text_is_a_list_or_none(text: str) -> None:
    found = features.parse(text)
    assert found is None or features.parse(features.write(found)) == found
    assert features.proved(KEY, text) is None


def test_a_server_without_a_port_for_one_more_says_so_in_its_check() -> None:
    for kind in (features.CHECK, features.IDLE):
        for full in (False, True):
            listed = features.parse(f"check{features.check_value(kind, full=full)}, v2") or {}
            assert features.check_of(listed) == kind
            assert features.is_full(listed) is full
    assert not features.is_full({"v2": ""})
