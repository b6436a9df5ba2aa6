# SPDX-License-Identifier: MIT
"""Threads of a core: two VMs never run on them at the same moment, unless the configuration allows it, and each gets on.

The node itself counts (core_shares of `cpu list`) how often a guest got a CPU while another thread of the core was
another VM's, or ran without having the core. That the count can be anything but 0 is shown where sharing is allowed."""
import pytest
from node import Node, guest

VMS = {name: {"kernel": guest("counter"), "memory": "8M"} for name in "abcd"}


def exits(node):
    return {vm: node.shell_json(f"vm show {vm}")["exits"] for vm in VMS}


def run(cpu, share):
    """Four busy VMs on two cores of two threads: every VM has a neighbour on its core. What `cpu list` says at last."""
    with Node(cpu, f"cores-{share}", vms=VMS, node={"share-cores": share}, smp=4, threads=2) as node:
        cpus = node.shell_json("cpu list")["cpus"]
        assert [(c["core"] - cpus[0]["core"], c["thread"]) for c in cpus] == [(0, 0), (0, 1), (1, 0), (1, 1)]
        for vm in VMS:
            node.shell_json(f"vm start {vm}")
        for vm in VMS:
            node.console(vm, r"count 3\r\n")
        for _ in range(3):
            before = exits(node)
            for _ in range(200):  # every command takes its time
                if all(now > before[vm] + 20 for vm, now in exits(node).items()):
                    break
            else:
                raise AssertionError(f"a VM does not get on: {before}, then {exits(node)}")
        # A vCPU that waits for its turn can be paused, resumed and stopped like any other.
        for vm in VMS:
            node.shell_json(f"vm pause {vm}")
        before = exits(node)
        assert exits(node) == before
        for vm in VMS:
            node.shell_json(f"vm resume {vm}")
        node.shell_json("vm deadline a 0")
        node.console("b", r"count 5\r\n")
        for vm in VMS:
            node.shell_json(f"vm stop {vm} --hard")
        assert "ran on CPU" not in node.shell("log show")
        return node.shell_json("cpu list")


@pytest.mark.parametrize("cpu", ["amd", "intel"])
def test_one_vm_at_a_time_on_a_core(cpu):
    listed = run(cpu, "no")
    assert listed["host"]["cores"] == "one VM at a time"
    assert sum(c["core_shares"] for c in listed["cpus"]) == 0


@pytest.mark.parametrize("cpu", ["amd"])
def test_shared_where_it_is_allowed(cpu):
    listed = run(cpu, "yes")
    assert listed["host"]["cores"] == "shared by VMs"
    assert sum(c["core_shares"] for c in listed["cpus"]) > 0
