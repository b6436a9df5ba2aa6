# SPDX-License-Identifier: MIT
"""Every small guest of tests/guests that judges itself, on both vendors: what a guest sees is a PC."""
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


def test_thirty_two_cpus():
    """As many as a VM may have. On one vendor: the number is the shared half's, and there are 32 of them to emulate."""
    settings = {"kernel": guest("smp"), "memory": "64M", "vcpus": 32, "cmdline": "cpu=lax"}
    with Node("amd", "smp32", vms={"smp": settings}) as node:
        node.run_guest("smp", timeout=300).check()
