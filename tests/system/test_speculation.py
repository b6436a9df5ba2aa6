# SPDX-License-Identifier: MIT
"""What the hypervisor does around each run of a guest against leaks by speculation: the emulators have none of the
weaknesses, but they execute the instructions, so that guests must still get right what they get right without."""
import pytest
from node import FAST, Node, guest

VMS = {name: {"kernel": guest(name), "memory": "16M", "vcpus": 2} for name in ("exceptions", "stringio")}


@pytest.mark.parametrize("cpu", ["amd", "intel"])
def test_guests_run_with_the_exit_barrier(cpu):
    lax = {"cmdline": "cpu=lax" if cpu == "amd" else "cpu=strict"}
    vms = {name: {**settings, **lax} for name, settings in VMS.items()}
    with Node(cpu, "speculation", vms=vms, node={"exit-barrier": "always"}, ips=FAST) as node:
        said = node.shell_json("cpu list")["host"]["speculation"]
        assert "return stack at exits" in said
        # Bochs' Skylake does not say that it is without iTLB multihit; AMD's CPUs are.
        assert ("no large executable pages" in said) == (cpu == "intel")
        for name in VMS:
            node.run_guest(name, timeout=90).check()


@pytest.mark.parametrize("cpu", ["amd", "intel"])
def test_none_where_it_is_not_asked_for(booted, cpu):
    node = booted.get(cpu, "speculation-no", vms={}, node={"exit-barrier": "no"})
    assert "at exits" not in node.shell_json("cpu list")["host"]["speculation"]
    shown = node.shell_json("config show")["node"]
    assert (shown["exit_barrier"], shown["serial"], shown["share_cores"]) == ("no", "com1", False)
