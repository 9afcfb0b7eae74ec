"""`contrib/agents`: what the hook makes of a command line, what its README shows, and two agents on one pool."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.world import HANG_S, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.helpers.world import World

ROOT = Path(__file__).parents[2]
HERE = ROOT / "contrib/agents"
HOOK = HERE / "pretooluse.py"
README = (HERE / "README.md").read_text()
PAGE = (HERE / "AGENTS.md").read_text()
ROWS = re.findall(r"^\| `(.+?)` \| (.+) \|$", README.partition("## What becomes")[2], re.MULTILINE)
(SNIPPET,) = re.findall(r"^```json\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)

# says what it was called with, and notes the slot in which it runs
PROGRAM = """#!/bin/sh
echo "$IPCLOCK_TICKET" >>"$SLOTS"
echo "${0##*/}${X+ X=$X}: $*"
[ "$1" != -f ] || cat
[ "$1" != fail ] || { echo failed >&2; exit 7; }
"""
# each is wrapped, and does in its slot what it does without
WRAPPED = {
    "quotes": """make 'a  b' "c'd" e\\ f "g\\"h" '' $'i\\tj'""",
    "a quote alone": r"make it\'s",
    "expansions": """X='$HOME `x`' make "$HOME" '$HOME' ${HOME:+set} $((1 + 2)) `echo back` "$(echo "a)b")" a$""",
    "newlines": "make one\n\nmake \\\n  two\n# make it's three\nmake four # it's",
    "a here-document": "make -f - <<'END'\nall: $x \"it's\n\tmake\nEND\necho after",
    "a here-document with tabs": 'make -f - <<-"END" | cat\n\tit\'s\n\tEND\necho after',
    "a here-string": """make -f - <<<"it's $((2 * 2))" """,
    "a message in a substitution": "echo \"$(cat <<'END'\nit's (fine\nEND\n)\" && make",
    "stdin": "make -f - | tac",
    "a status": "make fail; exit $?",
    "a failed list": "make fail && make never || echo no",
    "a pipe's end": "make 'a|b' 2>&1 | tr a-z A-Z",
    "both streams": "make fail |& cat",
    "redirections": "make >out 2>&1 fail; cat out; rm out",
    "a condition": "if ! make fail; then echo no; else echo yes; fi",
    "a loop": "for word in a 'b c'; do make \"$word\"; done",
    "a subshell": "(cd / && pwd && make) && pwd",
    "a group": "{ make a; make b; } | cat -n",
    "runners": "env -u Y X=1 nice -n 1 timeout -k 1 60 make",
    "the keyword time": "{ time -p make a; } 2>/dev/null",
    "bytes that are no text of a shell": "make é \u4e2d '\x01\t' \\$",
}
# each is refused, and what it says instead does the same
REFUSED = {
    "cd": "cd sub && make && pwd",
    "two builds": "cd sub; make a; make b | cat",
    "a variable": 'out=$(make "it\'s"); echo "<$out>"',
    "an array": 'list=(make b); make "${list[@]}"',
    "a function": "build() { make \"$@\"; }; build 'a b'",
    "background": "make a & wait",
    "options": "set -o pipefail; make fail | cat",
    "a nested build": "set -u; X=$(make a) make b",
    "a quoted one": 'set -e; echo "it\'s $(make a)"',
}
IGNORED = {
    "nothing": "",
    "a comment": "# make",
    "a word": "echo make",
    "text": "cat <<END\nmake\nEND",
    "another script": "npm run build:prod",
    "part of a name": "makeinfo; cmake; ./make.sh",
    "a quote without its end": "make 'x",
    "a substitution without its end": 'make "$(x',
    "a case": "case x in x) make;; esac",
    "arithmetic": "((i++)); make",
    "a wait for a build": "ipclock wait 17 -w 100; make",
    "in a substitution": "ticket=$(ipclock wrap --detach app -- make); make",
    "by path": '"$HOME"/bin/ipclock wrap app -- make && make',
}


@pytest.fixture
def app(world: World, tmp_path: Path) -> Path:
    """A project's directory, with programs in PATH that stand for heavy ones."""
    for name in ("make", "npm", "docker", "cargo"):
        program = tmp_path / "bin" / name
        program.write_text(PROGRAM)
        program.chmod(0o755)
    folder = tmp_path / "app"
    (folder / "sub").mkdir(parents=True)
    world.env["SLOTS"] = str(tmp_path / "slots")
    return folder


def ask(world: World, call: Any, env: Mapping[str, str] | None = None, hook: str | Path = HOOK) -> Any:
    """Return what the hook prints about a call, parsed; it must say nothing else."""
    text = call if isinstance(call, str) else json.dumps(call)
    done = subprocess.run(
        ["sh", "-c", str(hook)],
        env=world.env | dict(env or {}),
        input=text,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)["hookSpecificOutput"] if done.stdout else None


def call(line: str, folder: Path | str = "/srv/app") -> dict[str, Any]:
    """Return what Claude Code hands to a hook."""
    tool_input = {"command": line, "description": "Build it", "timeout": 120000}
    return {
        "session_id": "abc123",
        "cwd": str(folder),
        "hook_event_name": "PreToolUse",
        "tool_name": "Bash",
        "tool_input": tool_input,
    }


def refusal(output: Any) -> list[str]:
    """Return the lines that a refusal tells to run."""
    assert (output.keys(), output["permissionDecision"]) == (
        {"hookEventName", "permissionDecision", "permissionDecisionReason"},
        "deny",
    )
    told = re.match(
        r"Builds .*instead:\n(.*?)(?:\nOr, .*?:\n(.*)\nThat prints .*)?\Z",
        output["permissionDecisionReason"],
        re.DOTALL,
    )
    assert told
    return [line for line in told.groups() if line]


def bash(world: World, line: str, folder: Path) -> tuple[int, str, str, list[str]]:
    """Run a line as the tool does; return its status, both streams and the tickets under which the builds ran."""
    slots = Path(world.env["SLOTS"])
    slots.write_text("")
    done = subprocess.run(
        ["bash", "-c", line],
        env=world.env,
        cwd=folder,
        input="first\nsecond\n",
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr, slots.read_text().splitlines()


@pytest.mark.parametrize("line", WRAPPED.values(), ids=WRAPPED)
def test_a_wrapped_line_does_in_one_slot_what_it_does_without(line: str, world: World, app: Path) -> None:
    output = ask(world, call(line, app))
    plain = bash(world, line, app)

    wrapped = bash(world, output["updatedInput"]["command"], app)

    assert (wrapped[:3], set(wrapped[3])) == (plain[:3], {"1"})
    assert (output.keys(), world.settled()) == ({"hookEventName", "updatedInput"}, (1, {}))
    assert output["updatedInput"] == call(line)["tool_input"] | {
        "command": f"ipclock wrap -q app -- bash -c {shlex.quote(line)}"
    }


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_what_a_refusal_says_to_run_does_the_same_with_its_builds_in_slots(
    line: str, world: World, app: Path, tmp_path: Path
) -> None:
    instead, detached = refusal(ask(world, call(line, app)))
    plain = bash(world, line, app)

    done = bash(world, instead, app)

    assert done[:3] == plain[:3]
    assert (len(done[3]), "" in done[3], world.settled()) == (len(plain[3]), False, (1, {}))
    assert (ask(world, call(instead, app)), ask(world, call(detached, app))) == (None, None)


@pytest.mark.parametrize("line", REFUSED.values(), ids=REFUSED)
def test_detached_as_a_refusal_says_it_writes_the_same_into_its_log(
    line: str, world: World, app: Path, tmp_path: Path
) -> None:
    world.env["LOG_DIR"] = str(tmp_path / "logs")
    _, detached = refusal(ask(world, call(line, app)))
    plain = bash(world, line, app)

    done = bash(world, detached, app)

    assert done[:3] == (0, "1\n", "")
    until(lambda: not world.records("holding") and not world.waiting(), "the end of the build")
    (log,) = (tmp_path / "logs").iterdir()
    until(lambda: sorted(log.read_text()) == sorted(plain[1] + plain[2]), "its output")
    assert set(Path(world.env["SLOTS"]).read_text().split()) == {"1"}


@pytest.mark.parametrize("line", IGNORED.values(), ids=IGNORED)
def test_a_line_without_a_build_or_that_cannot_be_read_runs_as_it_is(line: str, world: World, app: Path) -> None:
    assert ask(world, call(line, app)) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no JSON",
        "[]",
        "null",
        "{}",
        '{"tool_name": "Bash"}',
        '{"tool_name": "Bash", "tool_input": {"command": 5}}',
        '{"tool_name": "Bash", "tool_input": []}',
        '{"tool_name": "Bash", "tool_input": {"command": "make ' + "$(" * 5000 + '"}}',
        '{"tool_name": "Edit", "tool_input": {"command": "make"}}',
    ],
    ids=range(10),
)
def test_a_call_that_it_does_not_understand_goes_on(text: str, world: World, app: Path) -> None:
    assert ask(world, text) is None


@pytest.mark.parametrize(
    "env",
    [
        {"IPCLOCK_TICKET": "17"},
        {"IPCLOCK_HOOK_MODE": "off"},
        {"IPCLOCK_HOOK_COMMANDS": "it's"},
        {"IPCLOCK_HOOK_COMMANDS": ""},
        {"IPCLOCK_HOOK_COMMANDS": "make all"},
    ],
    ids=str,
)
def test_in_a_build_and_where_it_is_told_so_it_does_nothing(env: dict[str, str], world: World, app: Path) -> None:
    assert (ask(world, call("make"), env), ask(world, call("make")) is None) == (None, False)


def test_without_ipclock_it_does_nothing(world: World, app: Path, tmp_path: Path) -> None:
    (tmp_path / "bin/ipclock").unlink()
    if shutil.which("ipclock", path=world.env["PATH"]):
        pytest.skip("an ipclock is installed here")

    assert ask(world, call("make")) is None


def test_an_answer_that_cannot_be_printed_fails_nothing(world: World, app: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [HOOK], env=world.env, input=json.dumps(call("make")), stdout=full, stderr=subprocess.PIPE, text=True
        )

    assert (done.returncode, done.stderr) == (0, "")


def test_commands_mode_and_label_are_those_of_the_environment(world: World, app: Path) -> None:
    commands = {"IPCLOCK_HOOK_COMMANDS": "npm run build:prod;\n ./build.sh 'a b'"}

    prod = ask(world, call("npm run build:prod -- -v"), commands)
    script = ask(world, call("cd x; /opt/build.sh 'a b' c"), commands)
    told = ask(world, call("make | tail -1"), {"IPCLOCK_HOOK_MODE": "tell", "IPCLOCK_HOOK_LABEL": "--it's \x1b"})

    assert prod["updatedInput"]["command"] == "ipclock wrap -q app -- bash -c 'npm run build:prod -- -v'"
    assert refusal(script)[0] == "cd x; ipclock wrap -q app -- /opt/build.sh 'a b' c"
    assert [shlex.split(line)[3] for line in refusal(told)] == ["it's ?"] * 2


@pytest.mark.parametrize("name", ["-a", "a b", "it's", "\x1b[31m", " ", "é" * 100, "/"])
def test_a_directory_of_any_name_gives_a_label_that_ipclock_takes(name: str, world: World, app: Path) -> None:
    output = ask(world, call("make", f"/srv/{name}"))

    assert bash(world, output["updatedInput"]["command"], app)[:3] == (0, "make: \n", "")


def test_a_background_build_that_is_detached_keeps_its_slot_till_its_end(
    world: World, app: Path, tmp_path: Path
) -> None:
    world.env["LOG_DIR"] = str(tmp_path / "logs")
    os.mkfifo(tmp_path / "fifo")
    line = f"read -r _ <{tmp_path}/fifo && make &"

    _, detached = refusal(ask(world, call(line, app)))
    bash(world, detached, app)
    until(lambda: (tmp_path / "logs").exists() and world.records("holding"), "the build")
    with (tmp_path / "fifo").open("w") as order:  # opened: the process in the background waits there
        held = world.run("wrap", "-n", "a", "--", "true").returncode
        order.write("\n")

    until(lambda: not world.records("holding"), "its end")
    assert held == 75


# What the README says


@pytest.mark.parametrize(("line", "becomes"), ROWS)
def test_a_row_of_the_readme_is_what_happens(line: str, becomes: str, world: World, app: Path) -> None:
    line, becomes = line.replace("\\|", "|"), becomes.replace("\\|", "|")

    output = ask(world, call(line))

    shown = "as it is"
    if output:
        shown = (
            f"`{output['updatedInput']['command']}`" if "updatedInput" in output else f"refused: `{refusal(output)[0]}`"
        )
    assert shown == becomes


def test_all_kinds_of_rows_and_all_settings_are_in_the_readme(world: World) -> None:
    kinds = {re.match(r"`ipclock|refused|as it is", becomes)[0] for _, becomes in ROWS}  # type: ignore[index]
    settings = set(re.findall(r"IPCLOCK_HOOK_\w+", HOOK.read_text()))
    defaults = re.search(r'COMMANDS = "(.*)"', HOOK.read_text())

    assert defaults
    assert (len(ROWS) > 15, len(kinds), f"| `{defaults[1]}` |" in README) == (True, 3, True)
    assert settings == set(re.findall(r"^\| `(IPCLOCK_HOOK_\w+)", README, re.MULTILINE))


def test_installed_as_the_readme_says_the_hook_answers(world: World, app: Path, tmp_path: Path) -> None:
    project = tmp_path / "my app"
    (install,) = re.findall(r"^install .*", README, re.MULTILINE)
    subprocess.run(install.replace("/srv/app", shlex.quote(str(project))), shell=True, cwd=ROOT, check=True)
    (entry,) = json.loads(SNIPPET)["hooks"]["PreToolUse"]
    (hook,) = entry["hooks"]

    output = ask(world, call("make"), {"CLAUDE_PROJECT_DIR": str(project)}, hook["command"])

    assert (entry["matcher"], hook["type"]) == ("Bash", "command")
    assert output["updatedInput"]["command"] == "ipclock wrap -q app -- bash -c make"


# The reader of lines


def module() -> Any:
    spec = importlib.util.spec_from_file_location("pretooluse", HOOK)
    assert spec
    assert spec.loader
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


PRETOOLUSE = module()
PIECES = ["make", "a", " ", "\n", "'", '"', "\\", "$", "(", ")", "$(", "${", "}", "`", "<<", "<", ">", "2>&1", "&", "|"]
PIECES += [";", "=", "X=", "#", "END", "cd", "((", "<(", "$'", "if", "do", "{", "time", "-p", "sudo", "-u", "\t"]


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join))
def test_whatever_the_line_its_words_are_where_the_reader_says(line: str) -> None:
    try:
        read = PRETOOLUSE.Reader(line)
    except (ValueError, IndexError):
        return

    words = [word for words, _ in read.commands for word in words]
    assert [word.raw for word in words] == [line[word.start : word.start + len(word.raw)] for word in words]


@given(st.text(st.sampled_from("ab '\"\\$`!#~*?[]{}|&;<>()\n\t\x01é"), min_size=1))
def test_a_quoted_word_is_read_as_the_shell_reads_it(word: str) -> None:
    (words, depth), *others = PRETOOLUSE.Reader(f"make {shlex.quote(word)} end").commands

    assert ([word.text for word in words], depth, others) == (["make", word, "end"], 0, [])


# The page for agents


def test_the_page_names_commands_that_there_are(world: World) -> None:
    named = set(re.findall(r"ipclock ([a-z]+)", PAGE))
    options = {
        command: set(re.findall(r"(?<![\w-])--?\w+", world.run(command, "--help").stdout)) for command in sorted(named)
    }

    used = re.findall(r"ipclock ([a-z]+)(?: (?!--?[a-z])\S+)? (--?[a-z]+)", PAGE)
    assert named == {"cancel", "logs", "reset", "wait", "wrap"}
    assert len(used) >= 4
    assert [(command, option) for command, option in used if option not in options[command]] == []


# what an agent does that keeps to the page: each `wait` stands for a call of its tool, and shows that it came back
AGENT = """
    ticket=$({start}) || exit
    echo "$ticket" >"$LABEL.ticket"
    slices=0
    until {wait}; status=$?; [ "$status" -ne 75 ]; do
        slices=$((slices + 1))
        : >>"$LABEL.slices"
    done
    echo "status $status, slices $((slices > 0))"
    {logs}
"""
# ends when every agent has waited for a slice in vain
BUILD = """
    echo "$LABEL begins" | tee -a order
    until [ -e one.slices ] && [ -e two.slices ]; do sleep 0.05; done
    echo "$LABEL ends" | tee -a order
    exit "$STATUS"
"""


def test_two_agents_wait_in_slices_and_get_their_own_status_and_log_in_order(
    world: World, app: Path, tmp_path: Path
) -> None:
    start, wait, logs = re.findall(r"^(ipclock .*?) +#", PAGE, re.MULTILINE)
    start = start.replace("LABEL -- CMD", f'"$LABEL" -- bash -c {shlex.quote(BUILD)}')
    wait = wait.replace("17", '"$ticket"').replace("-w 100", "-w 0.3")
    script = AGENT.format(start=start, wait=wait, logs=logs.replace("17", '"$ticket"'))
    env = {"LOG_DIR": str(tmp_path / "logs"), "HISTORY": str(tmp_path / "history")}

    agents = {}
    for label, status in (("one", "0"), ("two", "7")):
        agents[label] = world.spawn("bash", "-c", script, env=env | {"LABEL": label, "STATUS": status}, cwd=app)
        until((app / f"{label}.ticket").exists, "the ticket")
    told = {label: agent.process.communicate(timeout=HANG_S) for label, agent in agents.items()}

    assert {label: out.decode().splitlines() for label, (out, _) in told.items()} == {
        "one": ["status 0, slices 1", "one begins", "one ends"],
        "two": ["status 7, slices 1", "two begins", "two ends"],
    }
    assert (app / "order").read_text().split() == ["one", "begins", "one", "ends", "two", "begins", "two", "ends"]
    assert ([(app / f"{label}.ticket").read_text() for label in agents], world.settled()) == (["1\n", "2\n"], (1, {}))
