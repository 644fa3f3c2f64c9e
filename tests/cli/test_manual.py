"""The reference of the commands: complete, and text that neither docutils nor man takes for anything else."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import click
import pytest

from etherws.cli import manual
from etherws.cli.commands import main

ROOT = Path(__file__).resolve().parents[2]


def test_each_command_that_help_lists_has_a_page() -> None:
    shown = {f"etherws-{name}" for name, command in main.commands.items() if not command.hidden}
    pages = manual.command_pages()
    assert pages.keys() == {"etherws", *shown, "etherws-init-server", "etherws-init-client"}
    assert {f"{name}.1" for name in pages} == manual.manual_pages().keys()


def test_a_page_has_each_option_and_note() -> None:
    for ctx in manual.contexts():
        page = manual.body(ctx)
        for option in ctx.command.get_params(ctx):
            if isinstance(option, click.Option) and not option.hidden:
                assert re.search(rf"^``.*{re.escape(option.opts[-1])}\b.*``$", page, re.MULTILINE), option.opts
        for heading, note in getattr(ctx.command, "notes", {}).items():
            assert f"\n{heading}\n" in page
            assert all(f"\n  {line}\n" in page for line in note.splitlines())
        assert page.startswith("Synopsis\n--------\n\n``" + ctx.command_path)


def test_text_has_no_marks() -> None:
    assert manual.text("--user_ a|b *c* `d` \\") == r"--user\_ a\|b \*c\* \`d\` " + "\\\\"
    assert manual.text("http:// or") == r"http\:// or"


def test_the_keys_of_files_are_the_options() -> None:
    text = manual.file_keys()
    server, _, client = text.partition("Keys of client\n")
    assert "``port = PORT``\n" in server
    assert "``port = " not in client
    assert "``uri = URI``\n" in client
    assert "``padding = true or false``\n" in server
    assert "config = " not in text


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    """All manual pages, as man reads them."""
    pytest.importorskip("docutils", reason="make man installs docutils")
    place = importlib.util.spec_from_file_location("docs_manual", ROOT / "docs" / "manual.py")
    assert place
    assert place.loader
    module: Any = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return {name: module.roff(source) for name, source in module.pages().items()}


@pytest.mark.packages
def test_manual_pages(pages: dict[str, str]) -> None:
    assert {"etherws.1", "etherws-server.1", "etherws-init-client.1", "etherws.toml.5", "etherws-policy.5"} <= {*pages}
    for name, page in pages.items():
        assert f'.TH "{name[:-2]}" "{name[-1]}"' in page
        assert f".SH NAME\n{name[:-2]} \\- " in page
        assert ".SH SEE ALSO\n" in page
    assert "token\\-file FILE" in pages["etherws-server.1"]
    assert pages["etherws-client.1"].count(".SH SIGNALS\n") == pages["etherws-client.1"].count(".SH ENVIRONMENT\n") == 1
    assert "ping\\-interval = " in pages["etherws.toml.5"]
    assert not re.search(r"<[\w./-]+\.rst|<https?:", "".join(pages.values())), "a link that leads nowhere"
    assert "box" not in pages["etherws-policy.5"]
    assert "\nl l l lx.\n" in pages["etherws-policy.5"], "the last column has what room there is"


@pytest.mark.packages
def test_man_reads_them_without_a_warning(pages: dict[str, str], tmp_path: Path) -> None:
    man = shutil.which("man")
    if not man or not shutil.which("groff"):
        pytest.skip("no man and groff on this machine")
    for name in ("etherws.1", "etherws-server.1", "etherws.toml.5"):
        (tmp_path / name).write_text(pages[name], encoding="utf-8")
        command = [man, "--warnings=mac", "-E", "UTF-8", "-l", "-Tutf8", str(tmp_path / name)]
        done = subprocess.run(
            command, capture_output=True, text=True, check=True, env={"MANWIDTH": "100", "PATH": "/usr/bin:/bin"}
        )
        assert not done.stderr
        assert "etherws" in done.stdout
