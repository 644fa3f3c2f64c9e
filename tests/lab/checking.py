"""What the doctor finds on a path, in this process."""

from __future__ import annotations

from typing import Any

import pytest

from etherws.check.findings import Finding, Verdict
from etherws.check.network import network
from etherws.check.path.trace import Target
from etherws.client.credentials import Credentials
from etherws.client.http_answer import HttpAnswer
from etherws.client.proxy_choice import ProxyChoice
from etherws.client.uris import split_uri
from etherws.kernel.netns import Namespace
from etherws.settings import Trust

#: Seconds for each step that must succeed.
STEP = 10.0


def check(
    uri: str,
    namespace: Namespace,
    *,
    trust: Trust | None = None,
    choice: ProxyChoice | None = None,
    timeout: float = STEP,
    token: str | None = None,
    idle: float | None = None,
    measure: bool = False,
) -> Found:
    """What ``etherws check`` finds on the way to this server, on the machine of that namespace. Only with `measure` is
    the path measured, which takes a processor for some seconds."""
    parsed, user, password = split_uri(uri)
    target = Target(
        parsed,
        choice or ProxyChoice(),
        trust or Trust(),
        Credentials(user, password, token=token),
        timeout=timeout,
        idle=idle,
    )
    with namespace.inside(), pytest.MonkeyPatch.context() as patch:
        if not measure:
            patch.setattr("etherws.check.network.measure", lambda *_: ())
        return Found(list(network(target)))


def answer(*headers: str, status: str = "502 Bad Gateway") -> HttpAnswer:
    """An HTTP answer with these headers."""
    return HttpAnswer("\r\n".join([f"HTTP/1.1 {status}", *headers]).encode(errors="surrogateescape"))


class Found:
    """All findings of one check."""

    def __init__(self, findings: list[Finding]) -> None:
        self.findings = findings

    def names(self, topic: str, verdict: Verdict, *words: str) -> Finding:
        """There is a finding of this topic and verdict whose text and hint have these words; return it."""
        for finding in self.findings:
            text = f"{finding.found} -> {finding.hint}"
            if finding.topic == topic and finding.verdict is verdict and all(word in text for word in words):
                return finding
        raise AssertionError(f"no {verdict.value} {topic} with {words} in:\n{self}")

    def fails(self, topic: str, *words: str) -> Finding:
        """There is a failure of this topic with these words, and no other failure. It has a hint."""
        finding = self.names(topic, Verdict.FAILED, *words)
        assert [each for each in self.findings if each.verdict is Verdict.FAILED] == [finding], str(self)
        assert finding.hint, str(self)
        return finding

    def data(self, topic: str) -> dict[str, Any]:
        """What the last finding of this topic says for programs."""
        return dict([each for each in self.findings if each.topic == topic][-1].data)

    def __str__(self) -> str:
        return "\n".join(f"{each.verdict.value} {each.topic}: {each.found} -> {each.hint}" for each in self.findings)
