"""The close codes by their numbers."""

from __future__ import annotations

from etherws.close_codes import CloseCode


def test_the_codes_are_those_of_the_rfc() -> None:
    assert {code.name: int(code) for code in CloseCode} == {
        "NORMAL": 1000,
        "GOING_AWAY": 1001,
        "PROTOCOL_ERROR": 1002,
        "INVALID_DATA": 1007,
        "POLICY_VIOLATION": 1008,
        "TOO_BIG": 1009,
        "INTERNAL_ERROR": 1011,
        "SERVICE_RESTART": 1012,
        "TRY_AGAIN_LATER": 1013,
    }
