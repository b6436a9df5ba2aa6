# SPDX-License-Identifier: MIT
"""The console of a guest that prints much: nothing is missing while it is read, and what cannot be kept is said."""
import re

import pytest
from node import FAST, guest

LINE = 62
MARKER = re.compile(rb"\r\n\[console: (\d+) bytes lost: this line is slower than the guest\]\r\n")
# More than the ring of a console that nobody reads, 64 KiB. Bochs' line takes 11.5 KB in a second of its clock.
LINES = {"amd": 2500, "intel": 1200}
# The last MiB is kept, so in Bochs this loses some; QEMU's line is quicker than a guest there.
FLOOD = {"amd": 2500, "intel": 20000}
VMS = {cpu: {"flood": {"kernel": guest("flood"), "memory": "8M", "cmdline": f"lines={LINES[cpu]}"},
             "torrent": {"kernel": guest("flood"), "memory": "8M", "cmdline": f"lines={FLOOD[cpu]}"},
             "counter": {"kernel": guest("counter"), "memory": "8M"}} for cpu in LINES}


@pytest.fixture
def node(booted, cpu):
    return booted.get(cpu, "console", vms=VMS[cpu], ips=FAST)


def flood(node, vm):
    """Lets the guest print, with its console open."""
    node.shell_json(f"vm start {vm}")
    node.attach(vm)
    node.expect(r"flood ready\r\n")
    node.machine.send("g")


def numbers(text):
    """What is in the output, as numbers of lines; each line whole."""
    lines = text.split(b"\r\n")
    assert lines[-1] == b""
    for line in lines[:-1]:
        assert re.fullmatch(rb"line \d{6} \.{48}", line), line
    return [int(line[5:11]) for line in lines[:-1]]


def test_nothing_is_lost_while_it_is_read(node, cpu):
    flood(node, "flood")
    begin = node.machine.position
    end = node.expect(r"flood end\r\n", timeout=150).start()
    node.detach()
    assert numbers(node.machine.output[begin:end]) == list(range(LINES[cpu]))
    # And the last 64 KiB of it are kept for whoever looks next.
    begin = node.machine.position
    end = node.console("flood", r"flood end\r\n").end()
    replay = node.machine.output[begin:end]
    kept = [int(number) for number in re.findall(rb"line (\d{6}) \.{48}\r\n", replay)]
    assert kept == list(range(LINES[cpu] - len(kept), LINES[cpu]))
    assert 64 * 1024 - 3 * LINE <= len(kept) * LINE <= 64 * 1024
    node.shell_json("vm stop flood --hard")


def test_what_is_lost_is_said(node, cpu):
    """The bytes before the gap, those that it names and those after it are all that the guest printed."""
    flood(node, "torrent")
    begin = node.machine.position
    match = node.expect(MARKER.pattern, rb"flood end\r\n", timeout=150)
    if match.re.pattern == MARKER.pattern:
        shown = match.start() - begin
        after = node.expect(r"^line (\d{6}) ", timeout=60)
        skipped = after.start() - match.end()
        assert int(after[1]) * LINE == shown + int(match[1]) + skipped
    else:
        assert numbers(node.machine.output[begin:match.start()]) == list(range(FLOOD[cpu]))
    node.detach()
    node.shell_json("vm stop torrent --hard")


@pytest.mark.parametrize("cpu", ["amd"], indirect=True)
def test_a_guest_that_prints_is_not_held_up(node):
    """Nobody reads; the guest goes on, and its neighbour too."""
    if node.state("counter") == "stopped":
        node.shell_json("vm start counter")
    seen = int(node.console("counter", r"count (\d+)\r\n(?!.*count)")[1])
    flood(node, "flood")
    node.detach()
    node.console("counter", rf"count {seen + 10}\r\n")
    node.console("flood", r"flood end\r\n", timeout=150)
    for vm in ("flood", "counter"):
        node.shell_json(f"vm stop {vm} --hard")
