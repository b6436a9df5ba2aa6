# SPDX-License-Identifier: MIT
"""The shell's page names what the shell has: every command of the tables in hv/shell, and every option."""
import glob
import os
import re

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")


def read(*names):
    with open(os.path.join(TREE, *names), encoding="utf-8") as file:
        return file.read()


def tables():
    return "\n".join(read(name) for name in sorted(glob.glob(os.path.join(TREE, "hv/shell/cmd_*.c"))))


def test_every_command_is_described():
    commands = re.findall(r'\.noun = "(\w+)", \.verb = "(\w+)"', tables())
    page = read("docs", "shell.md")
    assert len(commands) >= 20
    missing = [f"{noun} {verb}" for noun, verb in commands if not re.search(rf"^\| `{noun} {verb}[ `]", page, re.M)]
    assert not missing


def test_every_option_is_described():
    options = re.findall(r'\.name = "(--\w+)"', tables())
    page = read("docs", "shell.md")
    assert options
    assert not [option for option in options if f"`{option}" not in page]


def test_every_word_is_described():
    """Commands of one word."""
    words = re.findall(r'\.noun = "(\w+)",\s+\.summary', tables())
    assert {"help", "ls"} <= set(words)
    assert not [word for word in words if not re.search(rf"^\| `{word}[ `]", read("docs", "shell.md"), re.M)]


def test_nothing_else_is_described():
    known = {f"{noun} {verb}" for noun, verb in re.findall(r'\.noun = "(\w+)", \.verb = "(\w+)"', tables())}
    words = set(re.findall(r'\.noun = "(\w+)",\s+\.summary', tables()))
    described = re.findall(r"^\| `(\w+) (\w+)", read("docs", "shell.md"), re.M)
    assert described
    assert not [command for command in described if " ".join(command) not in known and command[0] not in words]
