"""``etherws completion``: scripts that the shells take, and what they then offer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import CompletionItem, ShellComplete
from click.testing import CliRunner

from etherws.cli.commands import main
from etherws.cli.completion import PLACES, script
from etherws.cli.operate import instances
from etherws.cli.operate.control import Control
from etherws.errors import NotAllowed
from etherws.observe.control_socket import NAME
from tests.lab.hosts import PATIENCE


@pytest.mark.parametrize("shell", PLACES)
def test_a_script_is_printed(shell: str) -> None:
    done = CliRunner().invoke(main, ["completion", shell])
    assert done.exit_code == 0
    assert done.output == script(shell)
    assert f"_ETHERWS_COMPLETE={shell}_complete" in done.output
    assert done.output.splitlines()[0] == "#compdef etherws" or shell != "zsh"
    assert done.output == done.output.strip() + "\n"


def test_another_shell_is_a_mistake() -> None:
    done = CliRunner().invoke(main, ["completion", "tcsh"])
    assert done.exit_code == 2
    assert "'bash', 'zsh', 'fish'" in done.output


@pytest.mark.parametrize("shell", PLACES)
def test_a_shell_takes_it(shell: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"no {shell} on this machine")
    path = tmp_path / "script"
    path.write_text(script(shell), encoding="utf-8")
    done = subprocess.run([program, "-n", str(path)], capture_output=True, text=True, check=True)
    assert not done.stderr


def test_bash_completes_at_tab() -> None:
    bash = shutil.which("bash")
    if not bash:
        pytest.skip("no bash on this machine")
    lines = [
        script("bash"),
        "COMP_WORDS=(etherws init s); COMP_CWORD=2; _etherws_completion etherws",
        "echo $COMPREPLY",
    ]
    path = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    env = {**os.environ, "PATH": path}
    done = subprocess.run([bash, "-c", "\n".join(lines)], capture_output=True, text=True, check=True, env=env)
    assert done.stdout == "server\n"


#: In a terminal of its own, since zsh completes only at a real Tab. The script is where a package puts it.
ZSH = """
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "PS1='READY> '; fpath=($1 \\$fpath); autoload -U compinit; compinit -u -D; echo DO''NE"
zpty -r -m shell said '*DONE*READY> *'
zpty -w -n shell "$2"$'\\t'
zpty -r -m shell said "*$3*"
print -r -- "$said"
zpty -d shell
"""


@pytest.mark.parametrize(
    ("line", "whole"), [("etherws init s", "init server"), ("etherws check pol", "check policy.toml")]
)
@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_another_shell_completes_at_tab(shell: str, line: str, whole: str, tmp_path: Path) -> None:
    program = shutil.which(shell)
    if not program:
        pytest.skip(f"no {shell} on this machine")
    path = tmp_path / "share" / PLACES[shell]
    path.parent.mkdir(parents=True)
    path.write_text(script(shell), encoding="utf-8")
    (tmp_path / "policy.toml").touch()
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}", "HOME": str(tmp_path)}
    if shell == "zsh":
        argv = [program, "-f", "-c", ZSH, "zsh", str(path.parent), line, whole]
    else:
        argv = [program, "--no-config", "-c", f"source {path}; complete -C '{line}'"]
        whole = whole.split()[-1]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=PATIENCE, env=env, cwd=tmp_path, stdin=subprocess.DEVNULL
    )
    assert whole in done.stdout, done


def completions(*words: str) -> list[CompletionItem]:
    """What click gives to a shell for the last of these words."""
    return ShellComplete(main, {}, "etherws", "_ETHERWS_COMPLETE").get_completions([*words[:-1]], words[-1])


def offered(*words: str) -> list[str]:
    """What is offered for the last of these words."""
    return [item.value for item in completions(*words)]


def test_what_is_offered() -> None:
    assert {"server", "client", "status", "completion"} <= {*offered("")}
    assert "stage" not in offered("")
    assert offered("init", "s") == ["server"]
    assert offered("server", "--br") == ["--bridge"]
    assert offered("server", "--log-level", "w") == ["warning"]
    # The shell itself completes the name of a file.
    (file,) = completions("client", "--token-file", "branch")
    assert (file.type, file.value) == ("file", "branch")
    assert completions("check", "pol")[0].type == "file"
    assert offered("client", "--header", "Na") == []
    assert offered("completion", "") == ["bash", "zsh", "fish"]


def test_what_runs_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(instances, "folders", lambda: [str(tmp_path)])
    for name in ("server-lan", "client-lan", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / NAME).touch()
    assert offered("status", "") == ["client-lan", "server-lan"]
    assert offered("stop", "s") == offered("bundle", "s") == ["server-lan"]

    def fail() -> list[Control]:
        raise NotAllowed("only root may look")

    monkeypatch.setattr(instances, "all_instances", fail)
    assert offered("status", "") == []
