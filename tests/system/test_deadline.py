# SPDX-License-Identifier: MIT
"""Past its run deadline no instruction of a VM runs: none later than a millisecond after, also when the guest spins
with interrupts off. Time is counted in instructions here (QEMU's -icount, Bochs' sync=none), for the clock of a busy
computer would be judged instead."""
import re

import pytest
from node import Node, guest

ICOUNT = {"accel": "tcg", "smp": 1,
          "extra": ["-icount", "shift=0,sleep=off", "-rtc", "base=2020-01-01,clock=vm", "-seed", "1"]}
LIMIT_NS = 1_000_000


def gaps(text):
    return [(int(a), int(b)) for a, b in re.findall(r"^gap (\d+) (\d+)\r?$", text, re.M)]


# Who else wants the CPUs: one that computes, one that spins with interrupts off, one with them on, one that only exits.
NEIGHBOURS = {
    "counter": {"kernel": guest("counter"), "memory": "8M"},
    "hostile": {"kernel": guest("hostile"), "memory": "16M", "cmdline": "means=spin"},
    "flood": {"kernel": guest("flood"), "memory": "8M", "cmdline": "lines=100000000"},
    "spinner": {"kernel": guest("deadline"), "memory": "8M", "cmdline": "gap=100000000 interrupts=1"},
}
# A stretch in which the guest did not run is told if it was as long as this: longer than its neighbours' turns together.
GAP_NS = {False: 20_000_000, True: 150_000_000}


def start_neighbours(node):
    for name in NEIGHBOURS:
        node.shell_json(f"vm start {name}")
    node.console("hostile", r"ending by spin\r\n")
    node.attach("flood")
    node.expect(r"flood ready\r\n")
    node.machine.send("g")
    node.expect(r"line 000001 ")
    node.detach()


# Guests that are held: what each does, and the longest stretch without it that it does not tell.
VARIANTS = {"closed": ("interrupts=0", False), "open": ("interrupts=1", False), "light": ("cpuid=1", False),
            # With neighbours only the worst guest, which leaves by nothing but the host's interrupts.
            "closed-busy": ("interrupts=0", True)}


def boot(booted, cpu, busy):
    vms = {name: {"kernel": guest("deadline"), "memory": "8M", "cmdline": f"gap={GAP_NS[busy] // 1000} {what}"}
           for name, (what, its) in VARIANTS.items() if its == busy}
    machine = ICOUNT if cpu == "amd" else {"smp": 2 if busy else 1}
    return booted.get(cpu, f"deadline{'-busy' if busy else ''}", vms={**vms, **(NEIGHBOURS if busy else {})}, memory=512,
                      timeout=120, **machine)


@pytest.mark.parametrize("spin", VARIANTS)
@pytest.mark.parametrize("cpu", [pytest.param("amd", marks=pytest.mark.counted), "intel"])
def test_no_instruction_after_the_deadline(booted, cpu, spin):
    busy = VARIANTS[spin][1]
    gap_ns = GAP_NS[busy]
    node = boot(booted, cpu, busy)
    node.shell_json(f"vm start {spin}")
    node.console(spin, r"spinning\r\n")
    if busy:
        start_neighbours(node)
    seen = []
    for _ in range(2):
        deadline = node.shell_json(f"vm deadline {spin} 50")["guest_time_ns"]
        # The guest's clock goes on while it is held; wait until the deadline is well past.
        while node.shell_json(f"vm show {spin}")["guest_time_ns"] < deadline + 2 * gap_ns:
            pass
        exits = node.shell_json(f"vm show {spin}")["exits"]
        others = {name: node.shell_json(f"vm show {name}")["exits"] for name in NEIGHBOURS if busy}
        for name, count in others.items():
            assert any(node.shell_json(f"vm show {name}")["exits"] > count for _ in range(100)), f"{name} stands"
        assert node.shell_json(f"vm show {spin}")["exits"] == exits, "the guest runs after its deadline"
        node.shell_json(f"vm deadline {spin} none")
        text = node.console(spin, rf"(?:gap \d+ \d+\r\n.*?){{{len(seen) + 1}}}").group().decode()
        around = [gap for gap in gaps(text) if gap[1] > deadline]
        assert around, f"no gap around {deadline}: {gaps(text)}"
        seen = gaps(text)
        late = around[0][0] - deadline
        assert late <= LIMIT_NS, f"an instruction ran {late} ns after the deadline"
        assert around[0][1] >= deadline + 2 * gap_ns, "it went on before the deadline was taken away"
        print(f"{cpu}: the last instruction ran {-late} ns before the deadline")
    node.shell_json(f"vm pause {spin}")
    assert node.state(spin) == "paused"
    exits = node.shell_json(f"vm show {spin}")["exits"]
    assert node.shell_json(f"vm show {spin}")["exits"] == exits, "the guest runs while it is paused"
    node.shell_json(f"vm resume {spin}")
    assert node.state(spin) == "running"
    node.shell_json(f"vm stop {spin} --hard")


def test_a_deadline_in_the_past_and_a_moved_one(booted, cpu):
    vms = {"spin": {"kernel": guest("deadline"), "memory": "8M"},
           "counter": {"kernel": guest("counter"), "memory": "8M"}}
    node = booted.get(cpu, "deadline-moved", vms=vms)
    node.shell_json("vm start spin")
    node.shell_json("vm start counter")
    node.console("spin", r"spinning\r\n")
    node.shell_json("vm deadline spin 0")
    exits = node.shell_json("vm show spin")["exits"]
    node.console("counter", r"count \d+\r\n(?s:.*)count \d+\r\n")  # the neighbour runs on
    assert node.shell_json("vm show spin")["exits"] - exits <= 1
    node.shell_json("vm deadline spin 3600000")  # further away: it goes on
    node.console("spin", r"gap \d+ \d+\r\n")
    node.shell_json("vm deadline spin 0")
    node.shell_json("vm stop spin --hard")       # a held VM can be stopped
    assert node.state("spin") == "stopped"
    node.shell_json("vm stop counter --hard")
