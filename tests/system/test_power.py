# SPDX-License-Identifier: MIT
"""`node reboot` and `node poweroff`: what they are for, whatever the VMs are doing, and where the firmware does not help."""
import os
import subprocess
import threading

import pytest
from node import BUILD, Node, guest

VMS = {"counter": {"kernel": guest("counter"), "memory": "8M", "start": "auto"},
       "idle": {"kernel": guest("smp"), "memory": "16M", "vcpus": 2}}
# Guests that are not easily stopped: one spins with interrupts off, the others fall over as soon as they run, so that their
# registers are printed while the node goes down.
BUSY = {**VMS, "spin": {"kernel": guest("deadline"), "memory": "8M"},
        **{f"walk{i}": {"kernel": guest("hostile"), "memory": "16M", "cmdline": "means=walk"} for i in range(6)}}


def names(node):
    return {vm["name"] for vm in node.shell_json("vm list")["vms"]}


def mark(node):
    """Makes what a start does not know of. Asked of a node that boots_again() is to look at."""
    node.shell_json(r"vm create before --memory 8M --kernel \tasuki\images\counter.elf")
    assert "before" in names(node)


def boots_again(node, vms=VMS):
    node.expect(r"BdsDxe: starting", timeout=60)
    node.boot()
    assert names(node) == set(vms), "this is not a new start"
    node.console("counter", r"count 2\r\n")


def make_busy(node):
    """Leaves the VMs starting: the last command is under way when this returns."""
    node.console("counter", r"count 2\r\n")
    node.shell_json("vm start spin")
    node.console("spin", r"spinning\r\n")
    node.machine.send("".join(f"vm start walk{i}\r" for i in range(6)))


def test_reboot(cpu):
    """Twice, for what a reset leaves behind may only spoil the next one."""
    with Node(cpu, "reboot", vms=VMS) as node:
        for _ in range(2):
            node.wait_state("counter", "running")
            mark(node)
            node.machine.sendline("node reboot")
            boots_again(node)


def test_poweroff(cpu):
    with Node(cpu, "poweroff", vms=VMS) as node:
        node.machine.sendline("node poweroff")
        node.machine.wait(60 * node.patience)


def test_reboot_and_poweroff_while_vms_run(cpu):
    with Node(cpu, "power-busy", vms=BUSY) as node:
        mark(node)
        make_busy(node)
        node.machine.sendline("node reboot")
        boots_again(node, BUSY)
        make_busy(node)
        node.machine.sendline("node poweroff")
        node.machine.wait(60 * node.patience)
        assert b"stopped: vCPU 0: its page tables lie at" in node.machine.output, "nothing was printed meanwhile"
        assert b"PANIC" not in node.machine.output


# What gdb does when the node is about to call the firmware. QEMU's debugger writes to any memory, by physical addresses
# in a mode of its own, in which the hypervisor's variables cannot be read.
PHYSICAL = "maintenance packet Qqemu.PhyMemMode:"
SERVICE = ["set $services=runtime_services", PHYSICAL + "1", "set $service=*(unsigned long *)($services+104)"]
FIRMWARE = {
    "hangs": [*SERVICE, "set *(unsigned short *)$service=0xfeeb", PHYSICAL + "0"],  # a jump to itself
    "returns": [*SERVICE, "set *(unsigned char *)$service=0xc3", PHYSICAL + "0"],
    "is not there": ["set var runtime_services=0"],
}
SAID = {"hangs": r"nothing has happened for 5 s", "returns": r"its reset service came back",
        "is not there": r"it gave no runtime services"}


def with_firmware(node, debugger, command, what):
    """Gives the command; the firmware then is as `what` says."""
    arguments = ["gdb", "-batch", os.path.join(BUILD, "tasuki.elf"), "-ex", f"target remote {debugger}",
                 "-ex", "hbreak end_node", "-ex", "continue", "-ex", "delete"]
    for step in FIRMWARE[what]:
        arguments += ["-ex", step]
    gdb = subprocess.Popen([*arguments, "-ex", "detach"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT)
    watch = threading.Timer(120, gdb.kill)  # its output then ends
    watch.start()
    try:
        line = gdb.stdout.readline()
        while line and b"Hardware assisted breakpoint" not in line:
            line = gdb.stdout.readline()
        node.machine.sendline(command)
        said = gdb.communicate(timeout=60)[0].decode(errors="replace")
        assert gdb.returncode == 0, said
    finally:
        watch.cancel()
        gdb.kill()
        gdb.wait()


@pytest.mark.parametrize("what, cpus", [("hangs", 1), ("hangs", 2), ("returns", 2), ("is not there", 1)])
def test_reboot_without_the_firmwares_help(tmp_path, what, cpus):
    debugger = str(tmp_path / "gdb")
    extra = ["-gdb", f"unix:{debugger},server=on,wait=off"]
    with Node("amd", "reboot-firmware", vms=VMS, node={"log": "warning"}, smp=cpus, extra=extra) as node:
        mark(node)
        with_firmware(node, debugger, "node reboot", what)
        node.expect(rf"the firmware does not restart the node: {SAID[what]}", timeout=30)
        node.expect(r"power: restarting by ACPI's reset register", timeout=30)
        boots_again(node)


@pytest.mark.parametrize("what", FIRMWARE)
def test_poweroff_without_the_firmwares_help(tmp_path, what):
    """There is no other means; the admin is told."""
    debugger = str(tmp_path / "gdb")
    extra = ["-gdb", f"unix:{debugger},server=on,wait=off"]
    with Node("amd", "poweroff-firmware", vms=VMS, extra=extra) as node:
        with_firmware(node, debugger, "node poweroff", what)
        node.expect(rf"the firmware does not switch the node off: {SAID[what]}\. It can be switched off by hand now",
                    timeout=30)
