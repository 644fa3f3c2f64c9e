"""Orders that cannot be followed are refused whole."""

from __future__ import annotations

import io
import json
from typing import Any

import gevent
import pytest

from etherws.errors import Refused
from etherws.observe import orders
from etherws.observe.orders import ORDERS, read
from tests.lab.subjects import FakeServer


def body(data: bytes, **more: str) -> dict[str, Any]:
    """A request with this body."""
    return {"wsgi.input": io.BytesIO(data), "CONTENT_LENGTH": str(len(data)), **more}


@pytest.mark.parametrize(
    ("data", "found"),
    [(b"", {}), (b"{}", {}), (b' {"client": "\\u0061"}\n', {"client": "a"}), (b'{"a":[1]}', {"a": [1]})],
)
def test_a_body_is_an_object(data: bytes, found: dict[str, Any]) -> None:
    assert read(body(data)) == found
    assert read({"wsgi.input": io.BytesIO(b"")}) == {}


@pytest.mark.parametrize(
    "data",
    [b"[]", b"1", b"null", b'"x"', b"{", b"client=x", b"\xff", b"[" * 4096, b'{"a":' * 800, b"NaN", b"{}{}", b"\0"],
)
def test_a_body_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(Refused) as refused:
        read(body(data))
    assert refused.value.status == "400 Bad Request"


def test_a_body_is_short_and_has_a_length() -> None:
    with pytest.raises(Refused, match="at most 4096 bytes"):
        read(body(b" " * 4097))
    with pytest.raises(Refused, match="at most 4096 bytes"):
        read({"wsgi.input": io.BytesIO(), "CONTENT_LENGTH": "9" * 30})
    with pytest.raises(Refused, match="with Content-Length"):
        read(body(b"{}", HTTP_TRANSFER_ENCODING="chunked"))


def test_a_body_comes_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow:
        def read(self, _: int) -> bytes:
            gevent.sleep(60)
            return b""

    class Short:
        def read(self, _: int) -> bytes:
            raise OSError("unexpected end of file")

    monkeypatch.setattr(orders, "BODY_TIMEOUT", 0.001)
    with pytest.raises(Refused, match=r"did not come within 0\.001 s"):
        read({"wsgi.input": Slow(), "CONTENT_LENGTH": "2"})
    with pytest.raises(Refused, match="ended too soon"):
        read({"wsgi.input": Short(), "CONTENT_LENGTH": "2"})


@pytest.mark.parametrize(
    ("path", "said", "words"),
    [
        ("/kick", {}, "client is missing"),
        ("/kick", {"client": ""}, "client is missing"),
        ("/kick", {"client": 7}, "client is missing"),
        ("/kick", {"client": None}, "client is missing"),
        ("/kick", {"client": ["a"]}, "client is missing"),
        ("/kick", {"client": "x" * 301}, "up to 300 characters"),
        ("/kick", {"client": "a", "seconds": "10m"}, "seconds is not a number"),
        ("/kick", {"client": "a", "seconds": True}, "seconds is not a number"),
        ("/kick", {"client": "a", "seconds": None}, "seconds is not a number"),
        ("/kick", {"client": "a", "seconds": float("nan")}, "write 0 to 86400"),
        ("/kick", {"client": "a", "seconds": float("inf")}, "write 0 to 86400"),
        ("/kick", {"client": "a", "seconds": -1}, "write 0 to 86400"),
        ("/kick", {"client": "a", "seconds": 1e9}, "write 0 to 86400"),
        ("/kick", {"client": "a", "second": 1}, "'second' is not known; write client and seconds"),
        ("/drain", {"seconds": -0.1}, "write 0 to 86400"),
        ("/drain", {"over": 1}, "'over' is not known; write seconds"),
        ("/stop", {"seconds": 1}, "'seconds' is not known; write nothing"),
        ("/reload", {"x\n": 1}, "'x?' is not known; write nothing"),
    ],
)
def test_an_order_that_makes_no_sense_is_refused(path: str, said: dict[str, Any], words: str) -> None:
    subject = FakeServer()
    with pytest.raises(Refused) as refused:
        ORDERS[path](subject, said, "a test")
    assert words in str(refused.value)
    assert refused.value.status == "400 Bad Request"
    assert subject.told == []


def test_large_numbers_are_numbers() -> None:
    with pytest.raises(Refused, match="out of range"):
        ORDERS["/drain"](FakeServer(), read(body(json.dumps({"seconds": 10**400}).encode())), "a test")
