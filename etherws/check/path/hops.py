"""Reverse proxies, load balancers and services between, known by their answers: what each is, and how it is mended.

Pure: looks at one answer's headers and at the beginning of its body. Whoever wants to know which header a hop has lost
asks own_words.py. Read next: answers.py, the caller; docs/reverse-proxies.rst, which has the configurations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from etherws.client.http_answer import HttpAnswer
from etherws.errors import printable

_DOCS = "see docs/reverse-proxies.rst"


@dataclass(frozen=True)
class Hop:
    """One kind of hop. `headers` are patterns by header, `body` one for the body: a hop is known by any of them.
    `upgrade` says how it lets a WebSocket through, `statuses` what its own answers mean, and what to do."""

    name: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    upgrade: str = ""
    statuses: Mapping[int, str] = field(default_factory=dict)


_BACKEND = "it cannot reach etherws behind it: does etherws run, and is the address right that this proxy has for it?"
_NO_ANSWER = "etherws behind it did not answer in time: does it run, and does its port want TLS?"
_GATEWAY = {502: _BACKEND, 503: _BACKEND, 504: _NO_ANSWER}

#: The one that is nearest to the client comes first: each later one may be behind it.
_HOPS = (
    Hop(
        "Cloudflare Access",
        {"location": r"cloudflareaccess\.com", "cf-access-domain": "."},
        statuses={
            302: "it wants a login: give a service token by --header @FILE, with the lines CF-Access-Client-Id: ... and"
            " CF-Access-Client-Secret: ..."
        },
    ),
    Hop(
        "Cloudflare",
        {"server": "cloudflare", "cf-ray": "."},
        upgrade=(
            "cloudflared drops Upgrade in its QUIC mode, the default: run it with --protocol http2. Without"
            " cloudflared: switch WebSockets on for this zone, under Network"
        ),
        statuses={
            403: "a rule of Cloudflare's forbids it, such as bot protection: make an exception for this path",
            502: "cloudflared, or Cloudflare, cannot reach etherws: does it run at the address that the tunnel has?",
            504: _NO_ANSWER,
            520: "etherws, or what is before it, gave an answer that Cloudflare does not take: see the server's log",
            521: "the server refuses Cloudflare's connection: does it run, and does its firewall let Cloudflare in?",
            522: "the server does not answer Cloudflare: is it up, and does its firewall let Cloudflare in?",
            523: "Cloudflare has no route to the server: is the DNS record's address right?",
            524: "the server took longer than 100 s to answer Cloudflare",
            525: "TLS between Cloudflare and the server fails: does the server speak TLS there? see SSL/TLS, mode Full",
            526: "Cloudflare does not accept the server's certificate: renew it, or use an origin certificate",
            530: "the tunnel is not connected (error 1033), or its name has no address: does cloudflared run?",
        },
    ),
    Hop(
        "Amazon CloudFront",
        {"server": "cloudfront", "x-amz-cf-id": ".", "via": r"cloudfront"},
        upgrade="forward all headers of the viewer: origin request policy AllViewer",
        statuses={**_GATEWAY, 403: "CloudFront forbids it: does the behavior of this path allow this method and host?"},
    ),
    Hop(
        "an AWS application load balancer",
        {"server": r"awselb"},
        upgrade="its target group must have the protocol version HTTP1: HTTP2 and gRPC have no upgrade",
        statuses={
            **_GATEWAY,
            464: "its target group has another protocol version than the request: make it HTTP1",
            503: "its target group has no healthy target: the health check's path must answer, 426 counts as good only"
            " if the matcher says so (200-499)",
        },
    ),
    Hop("an AWS API gateway", {"x-amzn-requestid": ".", "apigw-requestid": "."}, upgrade="it carries no such tunnel"),
    Hop(
        "Google's load balancer",
        {"via": r"\bgoogle\b", "server": "google frontend"},
        upgrade="it passes upgrades over HTTP/1.1: is the backend service's protocol HTTP, and not HTTP2?",
        statuses=_GATEWAY,
    ),
    Hop(
        "Azure Application Gateway",
        {"server": r"microsoft-azure-application-gateway"},
        upgrade="it passes upgrades; its health probe must get an answer that it takes",
        statuses=_GATEWAY,
    ),
    Hop(
        "Azure Front Door",
        {"x-azure-ref": "."},
        upgrade="its Standard and Premium tiers carry WebSockets, Classic does not",
    ),
    Hop(
        "Fastly",
        {"x-served-by": "^cache-", "fastly-restarts": "."},
        upgrade="WebSockets must be switched on there, and passed on",
    ),
    Hop(
        "Akamai",
        {"server": "akamaighost", "x-akamai-request-id": "."},
        upgrade="WebSockets must be switched on for this property",
    ),
    Hop("ngrok", {"ngrok-error-code": "."}, upgrade="it passes upgrades of an http endpoint", statuses={502: _BACKEND}),
    Hop("Heroku's router", {"via": r"\bvegur\b"}, statuses={503: _BACKEND}),
    Hop(
        "a web filter (Zscaler)",
        {"server": "zscaler", "x-zscaler-reason": "."},
        body="zscaler",
        upgrade="have its administrator let WebSockets to this server pass, without inspection",
        statuses={403: "have its administrator let this server pass"},
    ),
    Hop(
        "a web filter (Symantec, Blue Coat)",
        {"via": r"proxysg|bluecoat", "server": "bluecoat"},
        upgrade="have its administrator let WebSockets to this server pass, without inspection",
        statuses={403: "have its administrator let this server pass"},
    ),
    Hop(
        "a web filter (Fortinet)",
        {"server": "fortigate|fortiweb|fortiproxy"},
        body="fortinet|fortigate|fortiguard",
        upgrade="have its administrator let WebSockets to this server pass, without inspection",
        statuses={403: "have its administrator let this server pass"},
    ),
    Hop(
        "Squid",
        {"server": "^squid", "x-squid-error": ".", "via": r"\(squid"},
        upgrade="it intercepts plain HTTP, and passes no upgrade: use wss://, or see its option"
        " http_upgrade_request_protocols",
        statuses={403: "its rules forbid it: allow this server", 503: "it cannot reach the server", 504: _NO_ANSWER},
    ),
    Hop(
        "Varnish",
        {"via": r"varnish", "x-varnish": "."},
        upgrade="have it pipe upgrades: return (pipe) in vcl_recv, and copy Upgrade and Connection in vcl_pipe",
        statuses={503: _BACKEND},
    ),
    Hop(
        "Envoy",
        {"server": "envoy", "x-envoy-upstream-service-time": ".", "x-envoy-decorator-operation": "."},
        body=r"^upstream connect error|^no healthy upstream",
        upgrade="allow it: upgrade_configs: [{upgrade_type: websocket}] in the HttpConnectionManager",
        statuses={**_GATEWAY, 403: "Envoy answers an upgrade that is not allowed by 403: add upgrade_type: websocket"},
    ),
    Hop(
        "Caddy",
        {"server": "^caddy", "via": r"\bcaddy\b"},
        upgrade="its reverse_proxy passes upgrades by itself: does a header_up line change Upgrade or Connection?",
        statuses={**_GATEWAY, 200: "no site or route of it leads to etherws: add reverse_proxy for this host and path"},
    ),
    Hop(
        "Traefik",
        {"server": "traefik"},
        body=r"^404 page not found\n?$|^Bad Gateway\n?$|^Gateway Timeout\n?$",
        upgrade="it passes upgrades by itself: is there a middleware that changes headers?",
        statuses={**_GATEWAY, 404: "no router of it matches this host and path: add a rule for them"},
    ),
    Hop(
        "HAProxy",
        {"server": "haproxy"},
        body=r"No server is available to handle this request|returned an invalid or incomplete response"
        r"|The server didn't respond in time|Your browser sent an invalid request",
        upgrade='it passes upgrades by itself: does a line "http-request del-header" or "option httpclose" stop them?',
        statuses={
            503: "none of its servers is up: does etherws run, and does its check pass? A check must take 426 as good:"
            " http-check expect status 426",
            502: _BACKEND,
            504: _NO_ANSWER,
        },
    ),
    Hop(
        "nginx",
        {"server": "nginx|openresty|tengine|angie"},
        body=r"<center>(?:nginx|openresty)",
        upgrade=(
            "in the location: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;"
            f' proxy_set_header Connection "upgrade"; {_DOCS}'
        ),
        statuses={
            **_GATEWAY,
            400: "this port wants TLS, or the request was changed on the way",
            404: "no location of it leads to etherws: add one with proxy_pass for this path",
            499: _NO_ANSWER,
        },
    ),
    Hop(
        "Apache",
        {"server": "^apache"},
        body="<address>Apache",
        upgrade=f"ProxyPass with upgrade=websocket (2.4.47 or later), or mod_proxy_wstunnel; {_DOCS}",
        statuses={**_GATEWAY, 404: "no ProxyPass leads to etherws: add one for this path"},
    ),
    Hop(
        "Microsoft IIS",
        {"server": "microsoft-iis", "x-powered-by": r"asp\.net|^arr"},
        upgrade="install its WebSocket Protocol feature, and Application Request Routing 3 or later",
        statuses={**_GATEWAY, 404: "no rule of it leads to etherws"},
    ),
    Hop("lighttpd", {"server": "lighttpd"}, upgrade='proxy.header = ("upgrade" => "enable")', statuses=_GATEWAY),
    Hop(
        "LiteSpeed", {"server": "litespeed"}, upgrade="set up a WebSocket Proxy in the virtual host", statuses=_GATEWAY
    ),
)


def hops(answer: HttpAnswer, body: bytes) -> list[Hop]:
    """The hops that this answer has passed, or is from, as far as they are known. The first is the nearest."""
    text = body.decode(errors="replace")
    return [hop for hop in _HOPS if _fits(hop, answer, text)]


def _fits(hop: Hop, answer: HttpAnswer, text: str) -> bool:
    for name, pattern in hop.headers.items():
        if any(re.search(pattern, value, re.IGNORECASE) for value in answer.values(name)):
            return True
    return bool(hop.body and re.search(hop.body, text, re.IGNORECASE))


def marks(answer: HttpAnswer) -> str:
    """What the answer's headers say of those that it has passed, for the user; empty if they say nothing."""
    found = [f"{name}: {printable(value)}" for name in ("Server", "Via") for value in answer.values(name)[:3] if value]
    return ", ".join(found)
