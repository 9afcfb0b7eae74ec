"""bash, zsh and fish complete a command line: with our commands and options, and with what the pool says just now."""

from __future__ import annotations

import re
import shlex
import subprocess
from typing import TYPE_CHECKING

import pytest

from ipclock.cli import command_line
from tests.helpers.terminal import Terminal
from tests.helpers.world import HANG_S, STUB, until
from tests.packaging.test_manual import options_of, parsers

if TYPE_CHECKING:
    from pathlib import Path

    from tests.helpers.world import World

SHELLS = ("bash", "zsh", "fish")
FILES = {
    "bash": "share/bash-completion/completions/ipclock",
    "zsh": "share/zsh/site-functions/_ipclock",
    "fish": "share/fish/vendor_completions.d/ipclock.fish",
}
# of a program around which `wrap` is put
OTHERS = {
    "bash": "complete -W '--recursive --reverse' some-build",
    "zsh": "_some_build() { compadd -- --recursive --reverse }; compdef _some_build some-build",
    "fish": "complete -c some-build -l recursive; complete -c some-build -l reverse",
}
BASH_COMPLETION = "source /usr/share/bash-completion/bash_completion"
ASK_BASH = """
compopt() { :; }  # it would complain that nobody has typed Tab
for line in "${lines[@]}"; do
    read -ra COMP_WORDS <<< "$line"
    [[ $line == *' ' ]] && COMP_WORDS+=('')
    COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMP_LINE=$line COMP_POINT=${#line} COMPREPLY=()
    _ipclock ipclock "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
    ((${#COMPREPLY[@]})) && printf '%s\\n' "${COMPREPLY[@]}"
    echo
done
"""
ASK_FISH = "for line in $argv; complete --do-complete=$line; echo; end"
# Ctrl-X Ctrl-P tells what stands on the command line
RC = {
    "bash": """
PS1='ready> '
{setup}
show() {{ printf 'line is <%s>\\n' "$READLINE_LINE"; }}
bind -x '"\\C-x\\C-p": show'
""",
    "zsh": """
PS1='ready> '
fpath=({folder} $fpath)
autoload -Uz compinit; compinit -u -D
unsetopt list_ambiguous
{setup}
show() {{ print -r -- "line is <$BUFFER>" }}
zle -N show; bindkey '^X^P' show
""",
}


class Shells:
    """The three shells, with our completions and a pool."""

    def __init__(self, world: World, installed: Path, home: Path) -> None:
        self.home = home
        self.files = {shell: installed / name for shell, name in FILES.items()}
        path = f"{installed}/bin:{world.env['PATH']}"
        self.env = world.env | {"PATH": path, "HOME": str(home), "ZDOTDIR": str(home), "TERM": "xterm"}
        self.env["XDG_CONFIG_HOME"] = str(home)  # where fish makes a folder

    def offered(self, shell: str, *lines: str, bash_completion: str = BASH_COMPLETION) -> list[set[str]]:
        """Return what the shell offers at the end of each line, unquoted."""
        if shell == "zsh":
            return [self._offered_by_zsh(line) for line in lines]
        if shell == "bash":
            setup = f"{bash_completion}; source {self.files[shell]}; {OTHERS[shell]}; lines=({shlex.join(lines)})"
            command = ["bash", "--norc", "-c", setup + ASK_BASH]
        else:
            command = ["fish", "--no-config", "-c", f"source {self.files[shell]}; {OTHERS[shell]}; {ASK_FISH}", *lines]
        result = subprocess.run(command, env=self.env, capture_output=True, text=True, timeout=HANG_S, check=False)
        assert result.stderr == ""
        answers = [answer.splitlines() for answer in result.stdout.split("\n\n")]
        words = [{word.partition("\t")[0].rstrip() for word in answer if word} for answer in answers]
        found = [{shlex.split(word)[0] for word in few} for few in words] if shell == "bash" else words
        return found[: len(lines)]

    def _offered_by_zsh(self, line: str) -> set[str]:
        screen = self.typed("zsh", line).split("line is <")[0].split("ready> ")[-1]
        # below the line stands the list; then the cursor goes up again
        _, *rows = re.split(r"\x1b\[\d*A", screen)[0].split("\n")
        plain = [re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x07|\r", "", row) for row in rows]
        cells = [cell for row in plain for cell in re.split(r"\s{2,}", row.strip())]
        return {cell for cell in cells if cell and not cell.startswith("-- ")}

    def typed(self, shell: str, line: str) -> str:
        """Type the line and a Tab in a terminal, and return what was written there, up to `line is <...>`."""
        setup = OTHERS[shell] + (f"\n{BASH_COMPLETION}; source {self.files[shell]}" if shell == "bash" else "")
        rc = self.home / ".zshrc"
        rc.write_text(RC[shell].format(setup=setup, folder=self.files[shell].parent))
        command = ["zsh", "-d", "-i"] if shell == "zsh" else ["bash", "--noprofile", "--rcfile", str(rc), "-i"]
        terminal = Terminal(command, self.env, columns=200)
        try:
            terminal.wait_for("ready> ")
            terminal.type(line + "\t\x18\x10")
            terminal.wait_for("line is <")
            return terminal.wait_for(">\r\n")
        finally:
            terminal.close()

    def completed(self, shell: str, line: str) -> str:
        """Return what becomes of the line after a Tab."""
        return re.findall(r"line is <(.*)>\r\n", self.typed(shell, line))[-1]


@pytest.fixture
def shells(world: World, installed: Path, tmp_path: Path) -> Shells:
    return Shells(world, installed, tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_the_commands(shells: Shells, shell: str) -> None:
    res = {"release", "reset", "resume"}

    assert shells.offered(shell, "ipclock re", "ipclock help re") == [res, res]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_the_options_of_a_command_and_what_they_take(shells: Shells, shell: str) -> None:
    lines = ("init --m", "wrap --leftovers ", "init --mode ", "init --fair ", "status --color ")

    offered = shells.offered(shell, *(f"ipclock {line}" for line in lines))

    options, *values = offered
    assert options == {"--mode", "--max-parallel-builds", "--move"}
    words = [{"release", "wait", "kill"}, {"0600", "0660"}, {"user", "session", "off"}, {"auto", "always", "never"}]
    assert values == words


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_no_option_of_the_parser_is_left_out(shells: Shells, shell: str) -> None:
    known = {command: options_of(parser) for command, parser in parsers(command_line.get_parser()) if command}

    offered = shells.offered(shell, *(f"ipclock {command} -" for command in known))

    assert dict(zip(known, offered, strict=True)) == known


def test_zsh_knows_every_option_of_the_parser(shells: Shells) -> None:
    text = shells.files["zsh"].read_text()
    lists = dict(re.findall(r"^_shtab_ipclock_(\w+)_options=\(\n(.*?)\n\)", text, re.M | re.S))

    shown = {command: set(re.findall(r'[{,"](--?[\w-]+)(?=[},[])', body)) for command, body in lists.items()}

    assert shown == {command: options_of(parser) for command, parser in parsers(command_line.get_parser()) if command}


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_the_tickets_of_those_who_hold_a_slot(shells: Shells, world: World, shell: str) -> None:
    for label in ("a", "b b"):
        world.wrap(label, "--max-parallel-builds", "2").started()
    world.wrap("waits")

    offered = shells.offered(shell, "ipclock release ", "ipclock reset ", "ipclock release --name /ipclock-test-none ")

    assert [{word.split()[0] for word in words} for words in offered] == [{"1", "2"}, {"1", "2"}, set()]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_the_tickets_of_those_who_wait_too_to_wait_for_and_with_the_labels_to_look_at(
    shells: Shells, world: World, shell: str
) -> None:
    world.wrap("a").started()
    world.wrap("b b")
    until(world.waiting, "a waiter")

    offered = shells.offered(shell, "ipclock wait ", "ipclock wait 1 ", "ipclock logs ")

    words = [{word.split()[0] for word in words} for words in offered]
    assert words == [{"1", "2"}, {"1", "2"}, {"1", "2", "a", "b"}]


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_the_labels_of_builds_that_run_and_of_finished_ones(
    shells: Shells, world: World, tmp_path: Path, shell: str
) -> None:
    history = {"HISTORY": str(tmp_path / "history.db")}
    world.env |= history
    shells.env |= history
    assert world.run("wrap", "스테이징 배포", "--", "true").returncode == 0
    world.wrap("Staging Deployment").started()
    labels = {"스테이징 배포", "Staging Deployment"}

    offered = shells.offered(shell, "ipclock wrap --slots 2 ", "ipclock acquire ", "ipclock stats --label ")

    assert offered == [labels, labels, labels]


@pytest.mark.parametrize("shell", ["bash", "zsh"])
@pytest.mark.parametrize(
    ("line", "completed"),
    [
        ("ipclock resu", "ipclock resume "),
        ("ipclock release ", "ipclock release 1 "),
        ("ipclock wrap Two", r"ipclock wrap Two\ words\ \&\ \'more\' "),
        (r"ipclock wrap Two\ w", r"ipclock wrap Two\ words\ \&\ \'more\' "),
        ('ipclock wrap "Two w', """ipclock wrap "Two words & 'more'" """),
        ("ipclock wrap X -- some-build --rev", "ipclock wrap X -- some-build --reverse "),
    ],
)
def test_what_a_shell_inserts_is_one_word(shells: Shells, world: World, shell: str, line: str, completed: str) -> None:
    world.wrap("Two words & 'more'").started()

    assert shells.completed(shell, line) == completed


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_korean_label_is_inserted_as_one_word(shells: Shells, world: World, shell: str) -> None:
    world.wrap("스테이징 배포").started()

    assert shells.completed(shell, "ipclock wrap 스") == r"ipclock wrap 스테이징\ 배포 "


@pytest.mark.parametrize("shell", SHELLS)
def test_the_wrapped_command_is_completed_by_its_own_rules(shells: Shells, shell: str) -> None:
    assert shells.offered(shell, "ipclock wrap X -- some-build --re") == [{"--recursive", "--reverse"}]


def test_bash_without_its_completions_still_knows_the_commands_to_wrap(shells: Shells) -> None:
    offered = shells.offered("bash", "ipclock wrap X -- ipcloc", bash_completion=":")

    assert offered == [{"ipclock"}]


def test_a_history_that_cannot_be_read_hides_no_label(world: World, tmp_path: Path) -> None:
    (tmp_path / "history.db").write_text("something else")
    world.popen("wrap", "a", "--", "python3", STUB).started()

    result = world.run("complete", "labels", "wrap", "--help", env={"HISTORY": str(tmp_path / "history.db")})

    assert (result.returncode, result.stdout, result.stderr) == (0, "a\n", "")


def test_no_help_lists_what_only_the_shells_ask_for(world: World) -> None:
    assert "complete" not in world.run("--help").stdout
