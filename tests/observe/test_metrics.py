"""Metrics as a scraper reads them, in both formats, of a server and of a client that are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text

from etherws.counters import Values
from etherws.events import JOIN, event
from etherws.observe import client_metrics, metrics
from etherws.observe.client_metrics import CLIENTS_MAX
from etherws.observe.subject import Subject
from tests.lab.doors import doors
from tests.lab.subjects import FakeClient, FakeServer

#: What Prometheus 2.42 asks for.
ACCEPT = "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;q=0.5"

#: An identity that would end a label, a line and a terminal's patience.
HOSTILE = 'x"} 1\n# HELP etherws_ready \\" \u202e\x1b[31m<b>é\udce9' + "y" * 10_000
SHOWN = 'x"} 1?# HELP etherws_ready \\" ??[31m<b>é?' + "y" * 10_000


def text_of(subject: Subject, accept: str = "", **more: Any) -> str:
    """The body of /metrics."""
    return b"".join(metrics.metrics(subject, accept, **more)[1]).decode()


def samples(text: str, reader: Any = read_text) -> dict[str, float]:
    """Each sample by its name and labels as they are written; there are no two of one."""
    found: dict[str, float] = {}
    for family in reader(text):
        for sample in family.samples:
            labels = ",".join(f"{key}={value}" for key, value in sorted(sample.labels.items()))
            key = f"{sample.name}{{{labels}}}" if labels else sample.name
            assert key not in found
            found[key] = sample.value
    return found


@pytest.mark.parametrize(("accept", "reader"), [("*/*", read_text), (ACCEPT, read_openmetrics)])
def test_a_server_tells_what_it_has_counted(accept: str, reader: Any) -> None:
    server = FakeServer(sessions=3, parked=2)
    content_type = metrics.metrics(server, accept)[0]
    assert content_type.startswith(
        "application/openmetrics-text; " if accept == ACCEPT else "text/plain; version=0.0.4"
    )
    found = samples(text_of(server, accept, events={"join": 3, "loop": 1, "made up": 9}), reader)
    overview = server.overview()
    assert found["etherws_info{name=ethws0,role=server,version=2.0}"] == 1
    assert found["etherws_ready"] == 1
    assert (found["etherws_state{state=serving}"], found["etherws_state{state=draining}"]) == (1, 0)
    assert (found["etherws_sessions"], found["etherws_parked_ports"]) == (3, 2)
    assert (found["etherws_joins_total"], found["etherws_leaves_total"]) == (8, 5)
    assert 0 <= found["etherws_carried_bytes_total{direction=sent}"] <= overview["totals"]["sent"]["bytes"]
    assert found["etherws_super_frames_total{direction=sent}"] == 9
    # What the server calls by a name that is not known is counted all the same.
    assert found["etherws_drops_total{reason=queue late}"] == 3
    assert found["etherws_drops_total{reason=other}"] == 12
    assert found["etherws_events_total{kind=loop}"] == 1
    assert found["etherws_events_total{kind=refused}"] == 0
    assert found["etherws_events_total{kind=other}"] == 9
    assert found["etherws_round_trip_seconds_bucket{le=0.0005}"] == 1
    assert found["etherws_round_trip_seconds_bucket{le=0.25}"] == 2
    assert found["etherws_round_trip_seconds_bucket{le=+Inf}"] == found["etherws_round_trip_seconds_count"] == 3
    assert found["etherws_round_trip_seconds_sum"] == pytest.approx(0.3124)
    assert found["etherws_loaded_round_trip_seconds_count"] == 1
    assert found["process_open_fds"] > 0
    # Nobody asked for those of clients, so that no session was looked at.
    assert not [name for name in found if "client" in name]


def test_a_server_that_drains_or_has_workers_says_so() -> None:
    class Busy(FakeServer):
        def overview(self) -> Values:
            workers = [{"pid": 1, "sessions": 2, "answers": True}, {"pid": 2, "sessions": 3, "answers": False}]
            return {**super().overview(), "workers": workers, "certificate_expires": 1.9e9}

    server = Busy()
    server.drain(5.0, "a test")
    found = samples(text_of(server))
    assert (found["etherws_ready"], found["etherws_state{state=draining}"]) == (0, 1)
    assert (found["etherws_workers"], found["etherws_workers_answering"]) == (2, 1)
    assert found["etherws_certificate_expiry_timestamp_seconds"] == 1.9e9


def test_a_client_tells_how_its_link_is() -> None:
    client = FakeClient()
    found = samples(text_of(client, clients=True))
    assert found["etherws_info{name=ethws0,role=client,version=2.0}"] == 1
    assert (found["etherws_sessions"], found["etherws_state{state=connected}"]) == (1, 1)
    assert found["etherws_reconnects_total"] == 2
    assert not [name for name in found if "last_error" in name or "_client_" in name]
    client.lose("refused")
    found = samples(text_of(client))
    assert (found["etherws_sessions"], found["etherws_ready"]) == (0, 0)
    assert (found["etherws_connect_attempts"], found["etherws_next_attempt_seconds"]) == (3, 4.5)
    assert (found["etherws_last_error{kind=refused}"], found["etherws_last_error{kind=lost}"]) == (1, 0)
    assert found["etherws_last_error_timestamp_seconds"] > 1e9
    client.lose("an error of tomorrow")
    assert samples(text_of(client))["etherws_last_error{kind=other}"] == 1


class Named(FakeServer):
    """Its first client has a hostile name, its second none, and the worker of its third does not answer."""

    def session(self, number: int) -> Values:
        """See FakeServer."""
        values = super().session(number)
        return {**values, **({"identity": HOSTILE}, {"identity": None}, {"wire": None}, {})[min(number, 3)]}


@pytest.mark.parametrize(("accept", "reader"), [("", read_text), (ACCEPT, read_openmetrics)])
def test_each_client_has_its_own_if_asked_for(accept: str, reader: Any) -> None:
    found = samples(text_of(Named(sessions=5), accept, clients=True), reader)
    label = f"device=ethws0,identity={SHOWN[:200]}"
    assert found[f"etherws_client_round_trip_seconds{{{label}}}"] == 0.012
    assert found[f"etherws_client_super_frames_total{{device=ethws0,direction=sent,identity={SHOWN[:200]}}}"] == 3
    assert found["etherws_client_queue_delay_seconds{device=ethws1,identity=}"] == 0.001
    drops = [name for name in found if name.startswith("etherws_client_drops_total{device=ethws3,")]
    assert [found[name] for name in drops] == [3]
    assert not [name for name in found if "ethws2" in name]
    # There is none yet.
    assert f"etherws_client_loaded_round_trip_seconds{{{label}}}" not in found
    assert found["etherws_clients_left_out"] == 0
    assert found["etherws_ready"] == 1


def test_clients_beyond_the_limit_are_left_out_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert CLIENTS_MAX == 2000
    monkeypatch.setattr(client_metrics, "CLIENTS_MAX", 120)
    found = samples(text_of(FakeServer(sessions=130), clients=True))
    names = [name for name in found if name.startswith("etherws_client_queue_bytes{")]
    assert len(names) == 120
    assert found["etherws_clients_left_out"] == 10


def test_what_fails_fails_before_the_answer_begins() -> None:
    class Failing(FakeServer):
        def overview(self) -> Values:
            raise OSError("no memory")

    with pytest.raises(OSError, match="no memory"):
        metrics.metrics(Failing(), "")


def test_a_thousand_clients_are_read_and_written_in_pieces() -> None:
    class Counting(FakeServer):
        read = 0

        def session(self, number: int) -> Values:
            self.read += 1
            return super().session(number)

    server = Counting(sessions=1000)
    before = 0
    for piece in metrics.metrics(server, "", clients=True)[1]:
        assert server.read - before <= 1
        assert piece.count(b"\n") <= client_metrics.AT_ONCE + 2
        before = server.read
    assert before == 1000


@pytest.mark.parametrize(
    "accept", ["version=1\r\nX: y", 'application/openmetrics-text;version="9\x00";escaping=x', "é" * 9000]
)
def test_nothing_of_the_question_is_in_the_answers_type(accept: str) -> None:
    content_type = metrics.metrics(FakeServer(), accept)[0]
    assert content_type.isprintable()
    assert "9" not in content_type
    assert len(content_type) < 120


def test_they_are_asked_for_at_a_door_with_what_the_settings_say(folder: Path) -> None:
    with doors(folder) as opened:
        opened.log.info("a joined", extra=event(JOIN, identity="a"))
        found = opened.ask("GET /metrics", Accept=ACCEPT)
        assert found.headers["content-type"].startswith("application/openmetrics-text")
        assert b'etherws_events_total{kind="join"} 1.0\n' in found.body
        assert b"etherws_client" not in found.body
        assert found.body.endswith(b"\n# EOF\n")
    with doors(folder, monitor_clients=True) as opened:
        assert samples(opened.ask("GET /metrics").body.decode())["etherws_clients_left_out"] == 0
