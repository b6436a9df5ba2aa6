# SPDX-License-Identifier: MIT
"""When things go wrong: the shell comes up and says what and why, and what is right still runs."""
import re

import pytest
from node import ESCAPES, Node, ShellError, guest

COUNTER = {"kernel": guest("counter"), "memory": "8M", "start": "auto"}


def runs(node, name="counter"):
    node.console(name, r"count 2\r\n")


def problem(node, name):
    """The error of `vm start`, in words."""
    with pytest.raises(ShellError) as caught:
        node.shell_json(f"vm start {name}")
    error = caught.value.error
    return f"{error['object']}: {error['cause']}; {error.get('cure', '')}"


def test_no_configuration(cpu):
    with Node(cpu, "noconf", conf="") as node:
        assert node.shell_json("node show")["vms"] == 0
        log = " ".join(node.shell("log show").split())
        assert "tasuki.conf could not be read (there is no such file)" in log


def test_bad_configuration_and_files(cpu, tmp_path):
    """All wrong VMs in one configuration; the one that is right runs."""
    damaged = str(tmp_path / "damaged.bin")
    with open(guest("counter"), "rb") as file:
        whole = file.read()
    with open(damaged, "wb") as file:
        file.write(whole[:4096 + 512])  # has its Multiboot header, lacks most of its segment
    nothing = str(tmp_path / "nothing.raw")
    open(nothing, "wb").close()
    vms = {
        "counter": COUNTER,
        "nothing": {"memory": "8M", "kernel": nothing},
        "emptyinitrd": {"memory": "8M", "kernel": guest("counter"), "initrd": nothing},
        "emptydisk": {"memory": "8M", "kernel": guest("smp"), "disk": nothing},
        "nocpu": {"memory": "8M", "kernel": guest("smp"), "cpu": "pentium"},
        "nokernel": {"memory": "8M", "kernel": "\\tasuki\\images\\absent", "start": "auto"},
        "noinitrd": {"memory": "8M", "kernel": guest("smp"), "initrd": "\\tasuki\\images\\gone.img"},
        "nodisk": {"memory": "8M", "kernel": guest("smp"), "disk": "\\tasuki\\images\\gone.raw"},
        "damaged": {"memory": "8M", "kernel": damaged},
        "text": {"memory": "8M", "kernel": "\\tasuki\\tasuki.conf"},
        "large": {"memory": "64G", "kernel": guest("smp"), "start": "auto"},
        "far": {"memory": "8M", "kernel": "\\tasuki\\images\\" + "x" * 1100},
        "odd": {"memory": "12X", "kernel": guest("smp"), "colour": "blue"},
    }
    with Node(cpu, "badconf", vms=vms, node={"frobnicate": "yes"}) as node:
        said = ESCAPES.sub(b"", node.machine.output)
        assert re.search(rb"Tasuki: \\tasuki\\images\\x{20,40}: the path is too long", said), said[:3000]
        runs(node)
        found = node.shell_json("config show")["problems"]
        text = "\n".join(f"{one['line']}:{one['column']} {one['text']}" for one in found)
        for word in ("frobnicate", "colour", "12X", "pentium"):
            assert word in text, text
        for name, word in {"nokernel": "absent", "noinitrd": "gone.img", "nodisk": "gone.raw", "damaged": "damaged",
                           "far": "could not be read", "text": "tasuki.conf", "large": "memory", "nothing": "0 bytes",
                           "emptydisk": "0 bytes", "nocpu": "config show"}.items():
            assert word in problem(node, name)
        for name in ("nokernel", "large", "damaged"):
            assert node.state(name) in ("stopped", "failed")
        node.shell_json("vm start emptyinitrd")
        runs(node, "emptyinitrd")
        runs(node)


@pytest.mark.parametrize("vendor, model, name", [("amd", "max,-svm", "SVM"), ("intel", "p4_prescott_celeron_336", "VMX")])
def test_no_virtualization(vendor, model, name):
    with Node(vendor, "novirt", vms={"counter": COUNTER}, model=model) as node:
        shown = node.shell_json("node show")
        assert shown["virtualization"] == "none"
        assert name in shown["problem"]
        assert "node show" in problem(node, "counter")


def test_little_memory(cpu):
    vms = {"counter": COUNTER, "large": {"kernel": guest("smp"), "memory": "400M"}}
    with Node(cpu, "small", vms=vms, memory=320) as node:
        runs(node)
        assert "memory" in problem(node, "large")


# What a hostile guest may end as. None: it says by itself what it found. (INIT sends the first CPU to a reset vector
# where no firmware is.)
HOSTILE = {
    "memory": None, "devices": None, "msr": None, "port": None, "opcodes": None,
    "triple": "triple", "spin": "running", "walk": "failed", "fetch": "any", "stack": "failed", "init": "any",
    "hlt": "running",
}


REASONS = {"walk": "its page tables lie at", "stack": "an interrupt or exception was to be delivered through 0xd0000"}


@pytest.mark.parametrize("means", HOSTILE)
def test_a_neighbour_outlives_a_hostile_guest(booted, cpu, means):
    vms = {"counter": COUNTER}
    vms.update({name: {"kernel": guest("hostile"), "memory": "16M", "cmdline": f"means={name}"} for name in HOSTILE})
    node = booted.get(cpu, "hostile", vms=vms)
    before = int(node.console("counter", r"count (\d+)\r\n(?!.*count)")[1])
    fate = HOSTILE[means]
    if fate is None:
        node.run_guest(means, timeout=90).check()
    else:
        node.shell_json(f"vm start {means}")
        node.console(means, rf"ending by {means}\r\n")
        if fate == "triple":  # the VM is reset, and where that does not help, stopped
            node.console(means, r"(?:ending by triple.*?){3}")
            assert node.shell_json(f"vm show {means}")["resets"] >= 2
        elif fate == "failed":
            node.wait_state(means, "failed")
            reason = node.shell_json(f"vm show {means}")["reason"]
            assert REASONS[means] in reason, reason
            assert re.search(rf"vm {means}: vCPU 0:\s+rip", node.shell("log show")), "its registers are in the log"
    # The neighbour counts on, and its memory is whole.
    text = node.console("counter", rf"count 1\r\n.*count {before + 10}\r\n", timeout=60).group().decode()
    assert "fail" not in text
    assert node.shell_json("vm show counter")["resets"] == 0
    if fate is None:
        node.wait_state(means, "stopped")
    else:
        if fate == "running":
            assert node.state(means) == "running"
        try:
            node.shell_json(f"vm stop {means} --hard")
        except ShellError as error:
            assert "stopped" in str(error)
        node.wait_state(means, "stopped")
    assert node.shell_json(f"vm show {means}")["held_bytes"] == 0
