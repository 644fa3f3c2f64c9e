"""What is shown of a link, put together from its connections."""

from __future__ import annotations

from typing import Any

from etherws.counters import Traffic
from etherws.server.observed import UNKNOWN
from etherws.tunnel.link_status import histories_together, together

NOTHING: tuple[Traffic, Traffic, dict[str, int]] = (Traffic(), Traffic(), {})


def part(**changes: Any) -> dict[str, Any]:
    """What one connection has to say."""
    return {
        "worker": None,
        "wire": 2,
        "heard": 1.0,
        "round_trip": 0.02,
        "loaded_round_trip": None,
        "since": 5.0,
        "sent": {"bytes": 10, "frames": 2, "super_frames": 1},
        "received": {"bytes": 5, "frames": 1, "super_frames": 0},
        "rates": {"sent": 8.0, "received": 4.0},
        "drops": {"queue late": 1},
        "queue": {"delay": 0.001, "packets": 3, "bytes": 300},
        **changes,
    }


def test_what_is_carried_is_added_up_with_those_that_have_ended() -> None:
    queue = {"delay": 0.5, "packets": 1, "bytes": 100}
    slow = part(heard=None, round_trip=0.5, loaded_round_trip=0.6, queue=queue, worker=7)
    found = together({0: part(), 3: slow}, (Traffic(1000, 9), Traffic(1), {"EIO": 2}))
    assert found["sent"] == {"bytes": 1020, "frames": 13, "super_frames": 2}
    assert found["received"] == {"bytes": 11, "frames": 2, "super_frames": 0}
    assert found["drops"] == {"queue late": 2, "EIO": 2}
    assert found["rates"] == {"sent": 16.0, "received": 8.0}
    assert found["queue"] == {"delay": 0.5, "packets": 4, "bytes": 400}
    assert (found["heard"], found["round_trip"], found["loaded_round_trip"]) == (1.0, 0.26, 0.6)
    assert found["wire"] == 2
    # A slow one can be seen.
    assert found["members"] == 2
    assert [(each["member"], each["worker"], each["round_trip"]) for each in found["connections"]] == [
        (0, None, 0.02),
        (3, 7, 0.5),
    ]


def test_what_nobody_has_told_is_left_out() -> None:
    found = together({0: {"worker": 3}, 1: part(heard=None, round_trip=None)}, NOTHING)
    assert found["sent"]["bytes"] == 10
    assert (found["heard"], found["round_trip"]) == (None, None)
    assert found["connections"][0]["round_trip"] is None
    assert together({0: {"worker": 3}}, NOTHING).keys() == {"worker", "members", "connections"}
    assert together({}, NOTHING) == {"members": 0, "connections": []}
    # It has what a session of one connection has.
    assert UNKNOWN.keys() & found.keys() >= {"members", "connections", "sent", "drops", "queue"}


def test_histories_are_added_up_from_their_ends() -> None:
    older = {
        **{"step": 5.0, "end": 100.0, "sent": [1.0, 2.0], "received": [3.0, 4.0]},
        **{"round_trip": [None, 0.1], "queue_delay": [0.0, 0.2], "drops": [0, 1]},
    }
    younger = {
        **{"step": 5.0, "end": 101.0, "sent": [10.0], "received": [20.0]},
        **{"round_trip": [0.3], "queue_delay": [0.1], "drops": [5]},
    }
    assert histories_together([younger, older]) == {
        **{"step": 5.0, "end": 100.0, "sent": [1.0, 12.0], "received": [3.0, 24.0]},
        **{"round_trip": [None, 0.2], "queue_delay": [0.0, 0.2], "drops": [0, 6]},
    }
    assert histories_together([younger]) == younger
