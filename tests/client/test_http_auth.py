"""HTTP authentication: the examples of the RFCs, and challenges as servers write them."""

from __future__ import annotations

import re
from typing import Any

import pytest

from etherws.client.http_auth import Challenge, answer, parse

# RFC 7616, section 3.9.1.
REALM = 'realm="http-auth@example.org", qop="auth, auth-int"'
NONCES = 'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
SHA256 = f"Digest {REALM}, algorithm=SHA-256, {NONCES}"
MD5 = f"Digest {REALM}, algorithm=MD5, {NONCES}"
REQUEST: dict[str, Any] = {
    "method": "GET",
    "uri": "/dir/index.html",
    "cnonce": "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
}


def said(*values: str, user: str = "Mufasa", password: str = "Circle of Life") -> str | None:
    """The answer to headers with these values."""
    return answer(parse(values), user, password, **REQUEST)


@pytest.mark.parametrize(
    ("values", "algorithm", "response"),
    [
        ([MD5], "MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ([SHA256], "SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ([MD5, SHA256], "SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
        ([f'Basic realm="x", {MD5}'], "MD5", "8ca523f5e9506fed4657c9700eebdbec"),
    ],
)
def test_digest_as_in_the_rfc(values: list[str], algorithm: str, response: str) -> None:
    text = said(*values)
    assert text
    assert text.startswith("Digest ")
    fields = dict(re.findall(r'(\w+)=("[^"]*"|[^,\s]+)', text))
    assert fields == {
        "username": '"Mufasa"',
        "realm": '"http-auth@example.org"',
        "uri": '"/dir/index.html"',
        "algorithm": algorithm,
        "nonce": '"7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"',
        "nc": "00000001",
        "cnonce": '"f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"',
        "qop": "auth",
        "response": f'"{response}"',
        "opaque": '"FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"',
    }


def test_basic_as_in_the_rfc() -> None:
    # RFC 7617, sections 2 and 2.1.
    assert said('Basic realm="WallyWorld"', user="Aladdin", password="open sesame") == (
        "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    )
    assert said('Basic realm="foo", charset="UTF-8"', user="test", password="123£") == "Basic dGVzdDoxMjPCow=="


@pytest.mark.parametrize(
    "values",
    [
        [],
        ["Negotiate"],
        ["NTLM", "Negotiate"],
        ["Bearer realm=x"],
        ['Digest realm="x", nonce="y"'],
        ['Digest realm="x", qop="auth"'],
        ['Digest realm="x", nonce="y", qop="auth-int"'],
        ['Digest realm="x", nonce="y", qop="auth", algorithm=SHA-512-256'],
    ],
)
def test_challenges_that_this_module_cannot_answer(values: list[str]) -> None:
    assert said(*values) is None


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["Basic"], [("Basic", {})]),
        (["Negotiate, NTLM TlRMTVNTUAACAAAA=="], [("Negotiate", {}), ("NTLM", {"tlrmtvntuaacaaaa": "="})]),
        (["Negotiate oYG2=, Basic realm=a"], [("Negotiate", {"oyg2": ""}), ("Basic", {"realm": "a"})]),
        (["Kerberos abc"], [("Kerberos", {})]),
        (['Basic realm="a, b=c"'], [("Basic", {"realm": "a, b=c"})]),
        (['Basic realm = "a \\"b\\" \\\\"'], [("Basic", {"realm": 'a "b" \\'})]),
        (
            ['DIGEST Realm="x",, nonce="y" ,STALE=true , Basic realm="z"'],
            [("DIGEST", {"realm": "x", "nonce": "y", "stale": "true"}), ("Basic", {"realm": "z"})],
        ),
        (["Basic", "Digest"], [("Basic", {}), ("Digest", {})]),
        (["realm=x"], []),
        (["", " , ", '"', "é é"], []),
    ],
)
def test_challenges_are_parsed(values: list[str], expected: list[Challenge]) -> None:
    assert parse(values) == expected


@pytest.mark.parametrize("text", ['"', '"\\', 'a="\\', "a ", "a", ",", "a=", " ", 'a "\\" '])
def test_a_long_header_is_parsed_in_one_pass(text: str) -> None:
    # Quadratic, this would take minutes.
    parse([text * (500_000 // len(text))])


def test_quotes_in_a_name_stay_in_their_field() -> None:
    text = said(MD5, user='a", realm="b\\')
    assert text
    assert 'username="a\\", realm=\\"b\\\\", realm="http-auth@example.org"' in text


def test_a_digest_answers_only_with_what_was_asked() -> None:
    text = said('Digest realm="r", nonce="n", qop="auth"')
    assert text
    assert "algorithm" not in text
    assert "opaque" not in text
