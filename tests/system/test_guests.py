# SPDX-License-Identifier: MIT
"""Every small guest of tests/guests that judges itself, on both vendors: what a guest sees is a PC."""
import os
import re

import pytest
from node import FAST, Node, guest

# name: (vCPUs, more settings, seconds)
GUESTS = {
    "apic": (1, {}, 60),
    "cpuid": (2, {}, 30),
    "exceptions": (2, {}, 120),
    "light": (2, {}, 90),
    "modes": (1, {}, 60),
    "msr": (1, {}, 30),
    "paging": (1, {}, 60),
    "reset": (2, {}, 60),
    "smp": (4, {}, 120),
    "stringio": (1, {}, 60),
    "timers": (1, {}, 60),
    "xsave": (2, {}, 60),
}
ROUNDS = 2000 # of each kind of access to its APIC, in each of the two modes


def vms(cpu):
    """QEMU does not make some of the CPU's own checks; `cpu=lax` leaves these out (see the guests)."""
    lax = "cpu=lax" if cpu == "amd" else "cpu=strict"
    made = {name: {"kernel": guest(name), "memory": "16M", "vcpus": vcpus, "cmdline": lax, **more}
            for name, (vcpus, more, _) in GUESTS.items()}
    made["portable"] = {"kernel": guest("cpuid"), "memory": "16M", "vcpus": 2, "cpu": "portable"}
    for name in ("rounds-on", "rounds-off"):
        made[name] = {"kernel": guest("apic"), "memory": "16M", "vcpus": 1, "cmdline": f"rounds={ROUNDS}"}
    # Bochs lets virtual interrupts come with interrupts off (docs/platform.md), which the guest would tell.
    made["apic-on"] = {**made["apic"], "cmdline": lax + " early=1"}
    return made


@pytest.mark.parametrize("name", GUESTS)
def test_guest(booted, cpu, name):
    node = booted.get(cpu, "guests", vms=vms(cpu), ips=FAST)
    report = node.run_guest(name, timeout=GUESTS[name][2])
    if not report.done:
        node.shell(f"vm inspect {name}")
    report.check()


def test_refused_msrs_are_told_for_what_they_are(booted, cpu):
    """After the guest that reads and writes them."""
    node = booted.get(cpu, "guests", vms=vms(cpu), ips=FAST)
    if not node.runs.get("msr"):
        node.run_guest("msr", timeout=GUESTS["msr"][2]).check()
    log = " ".join(node.shell("log show", timeout=60).split())
    assert re.search(r"writes 0x[0-9a-f]+ to MSR 0xc0000080, which does not take that value: #GP", log), log[-3000:]
    assert "writes 0x0 to MSR 0xfe, which is read-only: #GP" in log, log[-3000:]
    assert re.search(r"reads MSR 0x20000000, which its CPU model does not have: #GP", log), log[-3000:]


def test_the_portable_cpu(booted, cpu):
    """Leaf by leaf what portable-1.txt has, on each vendor, now and for ever: saved VMs carry the model's name. The
    leaves with the TSC's frequency (0x15, 0x16) are the VM's own."""
    report = booted.get(cpu, "guests", vms=vms(cpu), ips=FAST).run_guest("portable", timeout=30)
    report.check()
    seen = [line for line in re.findall(r"^cpuid .*$", report.text, re.M) if not re.match(r"cpuid 1[56]\.", line)]
    with open(os.path.join(os.path.dirname(__file__), "portable-1.txt"), encoding="utf-8") as file:
        assert seen == file.read().splitlines()


def test_thirty_two_cpus():
    """As many as a VM may have. On one vendor: the number is the shared half's, and there are 32 of them to emulate."""
    settings = {"kernel": guest("smp"), "memory": "64M", "vcpus": 32, "cmdline": "cpu=lax"}
    with Node("amd", "smp32", vms={"smp": settings}) as node:
        node.run_guest("smp", timeout=300).check()


@pytest.mark.vendor("intel")
@pytest.mark.parametrize("name", ["apic-on", "exceptions", "msr", "smp", "timers"])
def test_guest_with_apic_virtualization(booted, name):
    """The same where the CPU delivers the interrupts. QEMU's cannot, and on Bochs' it takes the admin's insisting."""
    node = booted.get("intel", "guests", vms=vms("intel"), ips=FAST)
    node.shell_json("cpu apic on")
    try:
        report = node.run_guest(name, timeout=GUESTS[name.removesuffix("-on")][2])
    finally:
        node.shell_json("cpu apic auto")
    report.check()


def exits_of_rounds(node, name):
    """Exits of a guest that used its APIC 2 * ROUNDS times and stands still: by whom, and how many."""
    node.shell_json(f"vm start {name}")
    text = node.console(name, rf"note counted {2 * ROUNDS}\r\n", r"fail [^\n]*\n", timeout=60)[0]
    assert text.startswith(b"note"), text
    info = node.shell_json(f"vm show {name}")
    node.shell_json(f"vm stop {name} --hard")
    return info["apic_virtualization"], info["exits"]


@pytest.mark.vendor("intel")
def test_apic_accesses_cost_no_exits(booted):
    """TPR, EOI, interrupts to itself and their delivery, in both of the APIC's modes."""
    node = booted.get("intel", "guests", vms=vms("intel"), ips=FAST)
    assert "apic_virtualization" in node.shell_json("cpu list")["virtualization_features"]
    node.shell_json("cpu apic on")
    try:
        virtual, few = exits_of_rounds(node, "rounds-on")
        node.shell_json("cpu apic off")
        software, many = exits_of_rounds(node, "rounds-off")
    finally:
        node.shell_json("cpu apic auto")
    print(f"exits of {2 * ROUNDS} rounds: {few} with APIC virtualization, {many} without")
    assert virtual and not software
    assert many >= 3 * 2 * ROUNDS, "one for TPR, one for the interrupt, one for its end, in each round"
    assert few < ROUNDS
