# SPDX-License-Identifier: MIT
"""`node reboot` and `node poweroff`: what they are for, whatever the VMs are doing."""
from node import Node, guest

VMS = {"counter": {"kernel": guest("counter"), "memory": "8M", "start": "auto"},
       "idle": {"kernel": guest("smp"), "memory": "16M", "vcpus": 2}}
# Guests that are not easily stopped: one spins with interrupts off, the others fall over as soon as they run, so that their
# registers are printed while the node goes down.
BUSY = {**VMS, "spin": {"kernel": guest("deadline"), "memory": "8M"},
        **{f"walk{i}": {"kernel": guest("hostile"), "memory": "16M", "cmdline": "means=walk"} for i in range(6)}}


def boots_again(node):
    node.expect(r"BdsDxe: starting", timeout=60)
    node.boot()
    shown = node.shell_json("node show")
    assert shown["vms"] and shown["uptime_ns"] < 60e9, shown
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
            node.machine.sendline("node reboot")
            boots_again(node)


def test_poweroff(cpu):
    with Node(cpu, "poweroff", vms=VMS) as node:
        node.machine.sendline("node poweroff")
        node.machine.wait(60 * node.patience)


def test_reboot_and_poweroff_while_vms_run(cpu):
    with Node(cpu, "power-busy", vms=BUSY) as node:
        make_busy(node)
        node.machine.sendline("node reboot")
        boots_again(node)
        make_busy(node)
        node.machine.sendline("node poweroff")
        node.machine.wait(60 * node.patience)
        assert b"stopped: vCPU 0: its page tables lie at" in node.machine.output, "nothing was printed meanwhile"
        assert b"PANIC" not in node.machine.output
