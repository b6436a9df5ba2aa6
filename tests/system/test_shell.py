# SPDX-License-Identifier: MIT
"""The admin shell: every command's help and JSON, errors that name object, cause and cure."""
import re

import pytest
from node import ShellError, guest

VMS = {"counter": {"kernel": guest("counter"), "memory": "8M", "start": "auto"},
       "idle": {"kernel": guest("smp"), "memory": "16M", "vcpus": 2}}
SHOWS = ["node show", "cpu list", "memory show", "vm list", "vm show counter", "log show", "config show",
         "thread list", "help", "help vm list"]


@pytest.fixture
def node(booted, cpu):
    return booted.get(cpu, "shell", vms=VMS)


@pytest.mark.parametrize("command", SHOWS)
def test_output_is_text_and_json(node, command):
    text = node.shell(command)
    assert text.strip() and "error:" not in text
    assert isinstance(node.shell_json(command), dict)


def test_node_show_tells_the_vendor(node, cpu):
    shown = node.shell_json("node show")
    assert shown["virtualization"] == {"amd": "svm", "intel": "vmx"}[cpu]
    assert shown["vms"] == 2 and shown["configuration_problems"] == 0


def test_help_knows_every_command(node):
    """Each command that `help` lists has a help of its own."""
    commands = set(re.findall(r"^ *((?:node|cpu|memory|vm|log|config|thread) \w+)", node.shell("help"), re.M))
    for wanted in ("node show", "node reboot", "node poweroff", "vm list", "vm show", "vm create", "vm start", "vm stop",
                   "vm reset", "vm pause", "vm resume", "vm console", "vm save", "vm restore", "vm delete", "vm dirty",
                   "log show", "config show"):
        assert any(command.startswith(wanted) for command in commands), f"{wanted} is not in help"
    for command in sorted(commands):
        assert command in node.shell(f"help {command}")


@pytest.mark.parametrize("command, words", [
    ("frobnicate", ["frobnicate"]),
    ("vm shw", ["shw"]),
    ("vm show", ["NAME"]),
    ("vm show nobody", ["nobody"]),
    ("vm start nobody", ["nobody"]),
    ("vm start counter", ["counter"]),
    ("vm stop idle", ["idle"]),
    ("vm stop idle --hard", ["idle"]),
    ("vm reset idle", ["idle"]),
    ("vm pause idle", ["idle"]),
    ("vm inspect idle", ["idle"]),
    ("vm resume counter", ["counter"]),
    ("vm delete counter", ["counter"]),
    ("vm deadline counter soon", ["soon"]),
    ("vm create counter --kernel \\nothing", ["counter"]),
    ("vm create other --memory many", ["many"]),
    ("vm list --frobnicate", ["frobnicate"]),
    ("vm list too many words", ["too"]),
])
def test_errors_name_the_object(node, command, words):
    with pytest.raises(ShellError) as caught:
        node.shell_json(command)
    error = caught.value.error
    assert error["status"] and error["cause"] and error["cure"]
    for word in words:
        assert word in f"{error['object']} {error['cause']} {error['cure']}", error
    assert node.shell(command).startswith("error: ")


def test_long_and_odd_lines_do_no_harm(node):
    for line in ("x" * 900, "vm show " + "'" * 40, '"', "\\", "\t\t", "vm  show   counter", "\x01\x02\x05\x0b",
                 "vm show \u00e4\u20ac"):
        node.machine.send(line + "\x15")  # Ctrl-U: the line is dropped
    assert node.state("counter") == "running"


def test_pause_resume_reset_stop(node):
    node.wait_state("counter", "running")
    node.shell_json("vm pause counter")
    frozen = node.shell_json("vm show counter")
    assert frozen["state"] == "paused"
    again = node.shell_json("vm show counter")
    assert again["guest_time_ns"] == frozen["guest_time_ns"], "a paused guest's clock stands still"
    node.shell_json("vm resume counter")
    node.shell_json("vm reset counter")
    assert node.wait_state("counter", "running") == "running"
    assert node.shell_json("vm show counter")["resets"] == 1
    node.shell_json("vm stop counter --hard")
    shown = node.shell_json("vm show counter")
    assert shown["state"] == "stopped" and shown["held_bytes"] == 0
    node.shell_json("vm start counter")
    node.console("counter", r"count 2\r\n")


def test_create_and_delete(node):
    node.shell_json(r"vm create made --memory 8M --vcpus 1 --kernel \tasuki\images\counter.elf"
                    r" --disk \tasuki\images\counter.elf --disk=\tasuki\images\counter.elf")
    assert node.shell_json("vm show made")["disks"] == 2
    node.shell_json("vm start made")
    node.console("made", r"count 1\r\n")
    node.shell_json("vm stop made --hard")
    node.shell_json("vm delete made")
    with pytest.raises(ShellError):
        node.shell_json("vm show made")
