"""The command ``etherws demo``, and its options. Read next: demo.py, which builds what it shows."""

from __future__ import annotations

import click

from etherws.cli.number_options import Within
from etherws.cli.sections import Command, Sections

demo_sections: Sections = {
    "Options": [
        click.Option(
            ["--seconds"],
            type=Within(click.FloatRange(0.1, 20)),
            metavar="SECONDS",
            default=3,
            show_default=True,
            help="Measure TCP for so long, 0.1 to 20 seconds.",
        ),
        click.Option(["--page"], is_flag=True, help="Keep the tunnel, and show its live page, until Ctrl-C."),
    ]
}


@click.command("demo", cls=Command, sections=demo_sections)
def demo(seconds: float, page: bool) -> None:
    """Show a tunnel at work, in network namespaces of its own.

    It builds two virtual hypervisors, each with a VM, and joins them. Nothing else on the machine changes.
    """
    from etherws.cli import demo as demonstration

    demonstration.run(seconds, page=page)
