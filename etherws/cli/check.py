"""``etherws check``: the doctor. Without a target it looks at this machine, else at a path to a server or at a file.

This prints what the parts of the doctor find, each finding as it comes. Read next: check/network.py, check/machine.py,
check/files.py; check_options.py.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click
from click.core import ParameterSource

from etherws.addresses import authority
from etherws.check.findings import Finding, Verdict, status
from etherws.cli import login
from etherws.cli.check_options import check_sections
from etherws.cli.examples import check_notes
from etherws.cli.file_options import FileName
from etherws.cli.sections import Command
from etherws.cli.way import way_of
from etherws.errors import EtherwsError

#: The version of the JSON document. It changes when a name in it goes, or means something else.
SCHEMA = 1

#: By verdict: the mark before the line, and its colour on a terminal.
_MARKS = {
    Verdict.OK: ("OK", "green"),
    Verdict.NOTE: ("note", None),
    Verdict.WARNING: ("warning", "yellow"),
    Verdict.FAILED: ("FAILED", "red"),
    Verdict.SKIPPED: ("skipped", None),
}

#: Columns of the marks, and of the topics behind them.
_MARK_WIDTH, _TOPIC_WIDTH = 8, 13

#: Columns that lines have on a terminal, at least and at most.
_WIDTH_MIN, _WIDTH_MAX = 60, 120


@click.command(
    "check",
    cls=Command,
    sections=check_sections,
    notes=check_notes,
    # The variables are those of the client.
    context_settings={"auto_envvar_prefix": "ETHERWS_CLIENT"},
)
@click.argument("target", metavar="[URI|FILE]", required=False, shell_complete=FileName().shell_complete)
@click.pass_context
def check(ctx: click.Context, /, target: str | None, **options: Any) -> None:
    """Look for what is wrong, and say what to do about it.

    With a URI: the path to that server, step by step; no root is needed. With a FILE: whether a server or client could
    start with this configuration, or what a policy says. Without one: this machine. The status is 1 if something has
    failed, else 0.
    """
    # What the client would log is among the findings.
    logging.getLogger("etherws").addHandler(logging.NullHandler())
    shown, findings = _chosen(ctx, target, options)
    found: list[Finding] = []
    for finding in _all(findings):
        found.append(finding)
        if not options["json"]:
            _show(finding)
    if options["json"]:
        document = {
            "schema": SCHEMA,
            "target": shown,
            "findings": [each.values() for each in found],
            "status": status(found),
        }
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(_summary(found))
    ctx.exit(status(found))


def _chosen(ctx: click.Context, target: str | None, options: dict[str, Any]) -> tuple[str | None, Iterator[Finding]]:
    """The target as it is shown, without secrets, and what looks at it."""
    if target is not None and "://" in target:
        return _network(target, options)
    given = [
        param.opts[-1]
        for param in ctx.command.params
        if param.name not in ("target", "json")
        and ctx.get_parameter_source(param.name or "") is ParameterSource.COMMANDLINE
    ]
    if given:
        raise click.UsageError(f"{given[0]} is for the path to a server; write etherws check URI {given[0]} ...")
    if target is None:
        from etherws.check.machine import machine

        return None, machine()
    if not os.path.lexists(target) and "/" not in target:
        raise click.UsageError(f"there is no file {target}; for a server write wss://{target}/ or ws://{target}/")
    from etherws.check.files import file
    from etherws.cli import config_check

    group = ctx.find_root().command
    assert isinstance(group, click.Group)
    if role := config_check.role_of(target, group):
        return target, config_check.findings(target, role, ctx)
    return target, file(target)


def _network(text: str, options: dict[str, Any]) -> tuple[str, Iterator[Finding]]:
    from etherws.check.network import network
    from etherws.check.path.trace import Target
    from etherws.client.uris import split_uri
    from etherws.settings import DeviceSettings

    login.hide_secrets((text,), options["header"], options)
    uri, user, password = split_uri(text)
    way = way_of(options, (uri,))
    target = Target(
        uri,
        way.proxy_choice,
        way.trust,
        login.credentials(options, user, password),
        way.headers,
        options["connect_timeout"],
        options["idle"],
        DeviceSettings(mtu=options["mtu"], wire=options["wire"], congestion=options["congestion"]),
    )
    # Without the query: it may be a token.
    shown = f"{'wss' if uri.secure else 'ws'}://{authority(uri.host, uri.port)}{uri.path}"
    return shown, network(target)


def _all(findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings; an error of ours that ends them is one more."""
    try:
        yield from findings
    except EtherwsError as exc:
        yield Finding("error", str(exc), Verdict.FAILED)


def _show(finding: Finding) -> None:
    """Print a finding, with what to do about it below."""
    mark, colour = _MARKS[finding.verdict]
    # Padded before it is coloured: the codes have no width.
    begin = f"{mark:<{_MARK_WIDTH}}{finding.topic:<{_TOPIC_WIDTH}} "
    margin = " " * (_MARK_WIDTH + _TOPIC_WIDTH + 1)
    lines = _wrapped(begin, margin, finding.found)
    lines[0] = click.style(lines[0][:_MARK_WIDTH], fg=colour) + lines[0][_MARK_WIDTH:] if colour else lines[0]
    if finding.hint:
        lines += _wrapped(margin, margin + "  ", f"-> {finding.hint}")
    # Without colours in a pipe, and where nobody wants them (no-color.org).
    click.echo("\n".join(lines), color=False if os.environ.get("NO_COLOR") else None)


def _wrapped(begin: str, margin: str, text: str) -> list[str]:
    """The text behind `begin`: in lines of the terminal's width, with `margin` before the further ones; as one line in
    a pipe."""
    # Strangers' words are in it: they must not control the terminal.
    text = "".join(char if char.isprintable() else "?" for char in text)
    if not _is_terminal():
        return [begin + text]
    width = max(_WIDTH_MIN, min(_WIDTH_MAX, shutil.get_terminal_size()[0]))
    return click.wrap_text(text, width, begin, margin).splitlines()


def _is_terminal() -> bool:
    return sys.stdout is not None and sys.stdout.isatty()


def _summary(found: list[Finding]) -> str:
    counts = {verdict: sum(each.verdict is verdict for each in found) for verdict in Verdict}
    failed, warned = counts[Verdict.FAILED], counts[Verdict.WARNING]
    if not failed and not warned:
        return "Nothing is wrong."
    warnings = f"{warned} warning{'s' if warned != 1 else ''}"
    return f"{failed} failed, {warnings}." if failed else f"Nothing has failed; {warnings}."
