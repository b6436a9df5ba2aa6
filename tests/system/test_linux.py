# SPDX-License-Identifier: MIT
"""Debian's own kernel, unmodified, to user space: with 1, 2 and 4 vCPUs, alone and beside others, on both vendors."""
import hashlib
import re

import pytest
from node import INITRD, VMLINUZ, guest

LINUX = {"kernel": VMLINUZ, "initrd": INITRD, "cmdline": "console=ttyS0"}


def vms():
    made = {f"debian{count}": {**LINUX, "memory": "192M", "vcpus": count} for count in (1, 2, 4)}
    # The same kernel on what older ones use: INTx through the IOAPIC, and the local APIC's page.
    made["debian1"]["cmdline"] += " pci=nomsi nox2apic"
    for name in ("one", "two", "three"):
        made[name] = {"kernel": guest("counter"), "memory": "8M"}
    return made


def boot(node, name, vcpus):
    node.shell_json(f"vm start {name}")
    node.attach(name)
    match = node.expect(r"Linux \S+ on (\d+) CPU\(s\)", r"Kernel panic[^\n]*", r"BUG:[^\n]*", timeout=240)
    assert match[0].startswith(b"Linux"), match[0].decode()
    assert int(match[1]) == vcpus
    node.expect(r"[#$] ", timeout=60)


@pytest.mark.parametrize("vcpus", [1, 2, 4])
def test_debian_reaches_user_space(booted, cpu, vcpus):
    node = booted.get(cpu, "linux", vms=vms())
    name = f"debian{vcpus}"
    boot(node, name, vcpus)
    # A shell that computes: what the guest prints is its own.
    node.machine.send("echo $((6*7*1000+vcpus))$(nproc)\r")
    node.expect(rf"42000{vcpus}\r", timeout=30)
    # What a kernel complains of when its machine is wrong.
    words = "'firmware bug|clocksource.*unstable|xsave consistency|acpi.*error|lockup|stall'"
    node.machine.send(f"dmesg | grep -ciE {words}; echo end''ed\r")
    count = int(node.expect(r"^(\d+)\r\nended", timeout=30)[1])
    if count:
        node.machine.send(f"dmesg | grep -iE {words}; echo end''ed\r")
        complaints = node.expect(r"\n(.*)ended", timeout=30)[1].decode()
        pytest.fail(f"the kernel complains:\n{complaints}")
    node.machine.send("cat /sys/devices/system/clocksource/clocksource0/current_clocksource\r")
    node.expect(r"hyperv_clocksource_tsc_page", timeout=30)
    # The entropy device gives bytes, and not the same twice.
    node.machine.send("for i in 1 2; do dd if=/dev/hwrng bs=64 count=1 2>/dev/null | md5sum; done; echo end''ed\r")
    sums = re.findall(rb"[0-9a-f]{32}", node.expect(r"\n([0-9a-f].*?)ended", timeout=30)[1])
    assert len(sums) == 2 and sums[0] != sums[1] and hashlib.md5(b"").hexdigest().encode() not in sums
    node.machine.send("grep -c 'IO-APIC.*virtio' /proc/interrupts; grep -c 'MSI.*virtio' /proc/interrupts; echo end''ed\r")
    lines, messages = map(int, node.expect(r"^(\d+)\r\n(\d+)\r\nended", timeout=30).groups())
    assert (lines > 0, messages > 0) == ((True, False) if vcpus == 1 else (False, True))
    # A shell on virtio's console: its output comes, and what is typed goes there.
    node.machine.send("sh </dev/hvc0 >/dev/hvc0 2>&1\r")
    node.expect(r"built-in shell.*?[#$] ", timeout=30)
    node.machine.send("busybox readlink /proc/self/fd/0\r")
    node.expect(r"^/dev/hvc0\r", timeout=30)
    node.expect(r"[#$] ", timeout=30)  # typed before it, a key is echoed twice, and what follows goes to the wrong shell
    node.machine.send("exit\r")
    node.expect(r"exit\r\n.*?[#$] ", timeout=30)
    node.machine.send("busybox readlink /proc/self/fd/0\r")
    node.expect(r"^/dev/(console|ttyS0)\r", timeout=30)
    node.machine.send("poweroff -f\r")
    node.detach()
    assert node.wait_state(name, "stopped", timeout=60) == "stopped"


def counts(node, name):
    """Two counts, one after the other, of a VM that counts; its memory is whole."""
    text = node.console(name, r"count (\d+)\r\n(?:.*?)count (\d+)\r\n").group().decode()
    assert "fail" not in text, text
    return int(re.findall(r"count (\d+)", text)[-1])


def test_several_vms_at_once(booted, cpu):
    node = booted.get(cpu, "linux", vms=vms())
    names = ["one", "two", "three"]
    for name in names:
        node.shell_json(f"vm start {name}")
    boot(node, "debian2", 2)
    node.detach()
    before = {name: counts(node, name) for name in names}
    node.shell_json("vm pause two")
    node.shell_json("vm stop debian2 --hard")
    assert node.state("two") == "paused"
    for name in ("one", "three"):
        # Each goes on from where it was: the console shows its lines from the first on.
        node.console(name, rf"count {before[name] + 20}\r\n", timeout=60)
    node.shell_json("vm resume two")
    node.console("two", rf"count {before['two'] + 20}\r\n", timeout=60)
    for name in names:
        assert node.shell_json(f"vm show {name}")["resets"] == 0
        node.shell_json(f"vm stop {name} --hard")
