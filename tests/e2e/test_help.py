"""The help as a person reads it, on a terminal of 80 columns, in English and Korean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ipclock.cli.command_line import COMMANDS
from ipclock.display.cells import columns
from tests.helpers.terminal import LOCALES, on_terminal

if TYPE_CHECKING:
    from tests.helpers.world import World


@pytest.mark.parametrize("language", LOCALES)
@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_no_line_of_a_help_is_wider_than_the_terminal(world: World, command: str, language: str) -> None:
    lines = on_terminal(world, *command.split(), "--help", language=language)

    is_korean = any("가" <= letter <= "힣" for letter in "".join(lines))
    assert (len(lines) > 5, is_korean, [line for line in lines if columns(line) > 80]) == (True, language == "ko", [])
