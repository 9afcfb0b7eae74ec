#!/usr/bin/env python3
"""A PreToolUse hook of Claude Code: heavy builds take their turn through `ipclock`. README.md beside it says how.

It reads the call of a tool as JSON on stdin and prints as JSON what is to be done. If it prints nothing, the line runs
as it is: so with a line that it cannot read. Whatever goes wrong, it prints nothing and exits with 0, so that it stops
no agent.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
from pathlib import Path
from typing import Any, NamedTuple

COMMANDS = "npm run build; docker build; docker compose build; cargo build; make"
OURS = re.compile(r"(?:^|[\s;&|(`'\"/])ipclock[ \t]+[a-z]")

# what bash reads before a simple command, and programs that run another, with their options that take a value
RESERVED = {"!", "{", "if", "then", "elif", "else", "while", "until", "do", "time"}
RUNNERS = {"env": "uC", "ionice": "cn", "nice": "n", "nohup": "", "sudo": "CDRTUghprtu", "time": "fo", "timeout": "ks"}
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*(?:\[[^]]*\])?\+?=")

# builtins that change the shell in which the line runs, though some systems have programs of these names; and others
CHANGES = re.compile(
    r"\.|alias|bg|bind|cd|coproc|declare|disown|enable|eval|exec|export|fg|function|getopts|hash|history|jobs|let|local"
    r"|logout|mapfile|popd|pushd|read|readarray|readonly|select|set|shopt|source|trap|typeset|ulimit|umask|unalias|unset"
    r"|wait"
)
PLAIN = re.compile(r":|\[\[?|break|continue|done|echo|exit|false|fi|for|kill|printf|pwd|test|true|type|\}")

BLANK = re.compile(r"(?:[ \t]|\\\n)*(?:#[^\n]*)?")
REDIRECTION = re.compile(r"\d*(<<<|<<-?|<&|<>|<(?!\()|>>|>&|>\||>(?!\()|&>>?)")
SEPARATOR = re.compile(r"\n|;;?&?|&&?|\|[|&]?|[()]")


class Word(NamedTuple):
    """A word as written, where it stands in the line, and what it is without its quotes."""

    raw: str
    start: int
    text: str


class Reader:
    """Reads a line as bash does, as far as its simple commands; ValueError or IndexError for what it cannot read."""

    def __init__(self, line: str) -> None:
        self.line = line
        self.at = 0
        self.commands: list[tuple[list[Word], int]] = []  # with how many subshells each stands in
        self.background = False
        self.defines = False
        self._here: list[tuple[str, bool]] = []
        self._read(0)

    def _read(self, depth: int) -> None:
        """Read to the end of the line, or of the subshell."""
        words: list[Word] = []
        while True:
            self.at = self._match(BLANK)
            if self.at == len(self.line):
                if depth:
                    raise ValueError("a subshell without its end")
                self.commands.append((words, depth))
                return
            if sign := REDIRECTION.match(self.line, self.at):
                self.at = sign.end()
                self.at = self._match(BLANK)
                target = self._word(depth)
                if sign[1] in ("<<", "<<-"):
                    self._here.append((target.text, sign[1] == "<<-"))
            elif sign := SEPARATOR.match(self.line, self.at):
                self.at = sign.end()
                if sign[0] == "(":
                    self._parenthesis(words, depth)
                    words = []
                    continue
                self.commands.append((words, depth))
                words = []
                self.background |= sign[0] == "&"
                if sign[0] == "\n":
                    self._skip_here()
                elif sign[0] == ")":
                    if not depth:
                        raise ValueError("the pattern of a `case`, or an error")
                    return
            else:
                words.append(self._word(depth))

    def _match(self, pattern: re.Pattern[str]) -> int:
        found = pattern.match(self.line, self.at)
        return found.end() if found else self.at

    def _parenthesis(self, words: list[Word], depth: int) -> None:
        if words and (empty := re.compile(r"[ \t]*\)").match(self.line, self.at)):
            self.at = empty.end()
            self.defines = True
        elif self.line.startswith("(", self.at) or not all(word.raw in RESERVED for word in words):
            raise ValueError("arithmetic, a pattern, or an error")
        else:
            self._read(depth + 1)

    def _skip_here(self) -> None:
        for end, tabs in self._here:
            while self.at < len(self.line):
                text, newline, _ = self.line[self.at :].partition("\n")
                self.at += len(text + newline)
                if (text.lstrip("\t") if tabs else text) == end:
                    break
        self._here.clear()

    def _word(self, depth: int) -> Word:
        start = self.at
        text = ""
        while self.at < len(self.line) and (char := self.line[self.at]) not in " \t\n;&|)":
            if char in "<>":
                if self.at != start or self.line[self.at + 1] != "(":
                    break
                self.at += 2
                self._read(depth + 1)
            elif char == "(":
                if not self.line[start : self.at].endswith("="):
                    break
                self._array(depth)
            elif char == "'":
                end = self.line.index("'", self.at + 1)
                text += self.line[self.at + 1 : end]
                self.at = end + 1
            else:
                text += self._part(depth, quoted=False)
        if self.at == start:
            raise ValueError("no word where one must be")
        return Word(self.line[start : self.at], start, text)

    def _part(self, depth: int, *, quoted: bool) -> str:
        """Return what the next character, or what begins with it, gives to its word."""
        char = self.line[self.at]
        self.at += 1
        if char == "\\":
            self.at += 1
            return self.line[self.at - 1].strip("\n")
        if char == '"' and not quoted:
            text = ""
            while self.line[self.at] != '"':
                text += self._part(depth, quoted=True)
            self.at += 1
            return text
        if char == "`":
            self._skip_to("`")
        elif char == "$" and self.line.startswith("((", self.at):
            self._skip_arithmetic()
        elif char == "$" and self.line.startswith("(", self.at):
            self.at += 1
            self._read(depth + 1)
        elif char == "$" and self.line.startswith("{", self.at):
            while self.line[self.at] != "}":
                self._part(depth, quoted=quoted)
            self.at += 1
        elif char == "$" and self.line.startswith("'", self.at) and not quoted:
            self.at += 1
            self._skip_to("'")
        return char  # of an expansion its first one: no program is called so

    def _skip_to(self, end: str) -> None:
        while self.line[self.at] != end:
            self.at += 2 if self.line[self.at] == "\\" else 1
        self.at += 1

    def _skip_arithmetic(self) -> None:
        depth = 0
        while True:
            depth += {"(": 1, ")": -1}.get(self.line[self.at], 0)
            self.at += 1
            if not depth:
                return

    def _array(self, depth: int) -> None:
        count = len(self.commands)
        self.at += 1
        self._read(depth + 1)
        del self.commands[count:]  # words, no commands


class Command:
    """A simple command: its program and arguments, and where `ipclock wrap` may be put before it."""

    def __init__(self, words: list[Word], depth: int) -> None:
        self.depth = depth
        at = 0
        while at < len(words) and words[at].raw in RESERVED:
            at += 1
        if [word.raw for word in words[at - 1 : at + 1]] == ["time", "-p"]:
            at += 1
        self.assigns = False
        while at < len(words) and ASSIGNMENT.match(words[at].raw):
            at += 1
            self.assigns = True
        self.start = words[at].start if at < len(words) else 0
        while at < len(words) and (name := base(words[at].text)) in RUNNERS:
            at = after_options(words, at + 1, RUNNERS[name]) + (name == "timeout")
        self.words = [word.text for word in words[at:]]

    def is_one_of(self, heavy: list[list[str]]) -> bool:
        """Whether it begins with the words of a heavy command."""
        words = [base(word) for word in self.words[:1]] + self.words[1:]
        return any(words[: len(command)] == command for command in heavy)

    def changes_the_shell(self) -> bool:
        """Whether it changes the shell in which the line runs, rather than a subshell."""
        return not self.depth and bool(CHANGES.fullmatch(self.words[0]) if self.words else self.assigns)

    def is_unknown(self) -> bool:
        """Whether another shell may lack it: a function, an alias, what a variable names."""
        if not self.words:
            return False
        name = self.words[0]
        return not (CHANGES.fullmatch(name) or PLAIN.fullmatch(name) or "/" in name or shutil.which(name))


def base(name: str) -> str:
    """Return the name of a program without its folder."""
    return name.rpartition("/")[2]


def after_options(words: list[Word], at: int, valued: str) -> int:
    """Return where the options end, of which those in *valued* take the next word."""
    while at < len(words) and ((text := words[at].text).startswith("-") or ASSIGNMENT.match(text)):
        at += 2 if len(text) == 2 and text[1] in valued else 1
    return at


def label_for(folder: str) -> str:
    """Return a label that `ipclock` takes."""
    text = os.environ.get("IPCLOCK_HOOK_LABEL") or Path(folder or ".").resolve().name
    text = "".join(char if char.isprintable() else "?" for char in text).lstrip("- ")
    return text.encode()[:255].decode(errors="ignore") or "build"


def decide(line: str, folder: str) -> dict[str, Any]:
    """Return what is to be done about a line, as Claude Code reads it; nothing: it runs as it is."""
    mode = os.environ.get("IPCLOCK_HOOK_MODE") or "wrap"
    if "IPCLOCK_TICKET" in os.environ or mode not in ("wrap", "tell") or OURS.search(line):
        return {}
    configured = re.split(r"[;\n]", os.environ.get("IPCLOCK_HOOK_COMMANDS", COMMANDS))
    heavy = [[base(program), *words] for program, *words in filter(None, map(shlex.split, configured))]
    read = Reader(line)
    commands = [Command(words, depth) for words, depth in read.commands]
    builds = [command for command in commands if command.is_one_of(heavy)]
    if not builds or not shutil.which("ipclock"):
        return {}
    label = shlex.quote(label_for(folder))
    inner = f"{label} -- bash -c {shlex.quote(line)}"
    unknown = any(command.is_unknown() for command in commands) and not read.defines
    changes = read.defines or any(command.changes_the_shell() for command in commands)
    if mode == "wrap" and not (unknown or changes or read.background):
        return {"updatedInput": {"command": f"ipclock wrap -q {inner}"}}
    instead = line
    for command in sorted(builds, key=lambda command: -command.start):
        instead = f"{instead[: command.start]}ipclock wrap -q {label} -- {instead[command.start :]}"
    reason = f"Builds take turns on this machine. Run this instead:\n{instead}"
    if not unknown:
        leftovers = "--leftovers wait " if read.background else ""  # or its slot is free while it goes on
        reason += (
            f"\nOr, if it may outlast the time limit of a tool call:\nipclock wrap --detach {leftovers}{inner}\n"
            "That prints a ticket and returns. Then `ipclock wait TICKET -w 100` (75: not over, call it again) "
            "and `ipclock logs TICKET -n 50`."
        )
    return {"permissionDecision": "deny", "permissionDecisionReason": reason}


def answer(call: dict[str, Any]) -> str:
    """Return the answer to a call of a tool, or nothing."""
    if call.get("tool_name") != "Bash":
        return ""
    decision = decide(call["tool_input"]["command"], call.get("cwd", ""))
    if not decision:
        return ""
    if "updatedInput" in decision:  # takes the place of the whole input
        decision["updatedInput"] = call["tool_input"] | decision["updatedInput"]
    return json.dumps({"hookSpecificOutput": {"hookEventName": "PreToolUse"} | decision}) + "\n"


def main() -> None:
    """Answer the call on stdin."""
    try:
        with open(0, "rb", closefd=False) as stdin:
            text = answer(json.loads(stdin.read()))
        os.write(1, text.encode())  # unlike print, leaves nothing to fail at exit
    except Exception:  # whatever it is, the line runs as it is
        return


if __name__ == "__main__":
    main()
