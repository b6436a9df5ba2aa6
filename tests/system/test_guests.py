# SPDX-License-Identifier: MIT
"""Every small guest of tests/guests that judges itself, on both vendors: what a guest sees is a PC."""
import re

import pytest
from node import Node, guest

# name: (vCPUs, more settings, seconds)
GUESTS = {
    "apic": (1, {}, 60),
    "exceptions": (2, {}, 120),
    "modes": (1, {}, 60),
    "msr": (1, {}, 30),
    "paging": (1, {}, 60),
    "smp": (4, {}, 120),
    "stringio": (1, {}, 60),
    "timers": (1, {}, 60),
    "xsave": (2, {}, 60),
}


def vms(cpu):
    """QEMU does not make some of the CPU's own checks; `cpu=lax` leaves these out (see the guests). So does `xsaves=legacy` with
    a fault of Bochs (see guest xsave)."""
    lax = "cpu=lax" if cpu == "amd" else "cpu=strict xsaves=legacy"
    return {name: {"kernel": guest(name), "memory": "16M", "vcpus": vcpus, "cmdline": lax, **more}
            for name, (vcpus, more, _) in GUESTS.items()}


@pytest.mark.parametrize("name", GUESTS)
def test_guest(booted, cpu, name):
    node = booted.get(cpu, "guests", vms=vms(cpu))
    report = node.run_guest(name, timeout=GUESTS[name][2])
    if not report.done:
        node.shell(f"vm inspect {name}")
    report.check()


def test_refused_msrs_are_told_for_what_they_are(booted, cpu):
    """After the guest that reads and writes them."""
    node = booted.get(cpu, "guests", vms=vms(cpu))
    if not node.runs.get("msr"):
        node.run_guest("msr", timeout=GUESTS["msr"][2]).check()
    log = " ".join(node.shell("log show", timeout=60).split())
    assert re.search(r"writes 0x[0-9a-f]+ to MSR 0xc0000080, which does not take that value: #GP", log), log[-3000:]
    assert "writes 0x0 to MSR 0xfe, which is read-only: #GP" in log, log[-3000:]
    assert re.search(r"reads MSR 0x20000000, which its CPU model does not have: #GP", log), log[-3000:]


def test_thirty_two_cpus():
    """As many as a VM may have. On one vendor: the number is the shared half's, and there are 32 of them to emulate."""
    settings = {"kernel": guest("smp"), "memory": "64M", "vcpus": 32, "cmdline": "cpu=lax"}
    with Node("amd", "smp32", vms={"smp": settings}) as node:
        node.run_guest("smp", timeout=300).check()
