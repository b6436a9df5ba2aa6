# SPDX-License-Identifier: MIT
"""The frequency of a guest's TSC belongs to its VM: where the CPU scales, all the guest's clocks agree with it, over saves
and restores too; where it cannot, a VM whose frequency is not the host's is refused, and one that is nearly so runs."""
import pytest
from node import Node, ShellError, guest
from test_state import SECOND, ask, finish, save_and_restore


@pytest.mark.vendor("intel")
def test_a_guest_keeps_its_own_frequency():
    """Bochs' TSC runs at 50 MHz. The guests compare their TSC with the PM timer, the 8254, the RTC and Hyper-V's clocks."""
    vms = {
        "fast": {"kernel": guest("state"), "memory": "16M", "vcpus": 2, "tsc-frequency": "1.5 GHz"},
        "slow": {"kernel": guest("timers"), "memory": "16M", "vcpus": 1, "tsc-frequency": "123457 kHz"},
        "own": {"kernel": guest("timers"), "memory": "16M", "vcpus": 1},
    }
    with Node("intel", "tsc", vms=vms, memory=512) as node:
        for vm in ("slow", "own"):
            node.run_guest(vm, timeout=90).check()
        node.shell_json("vm start fast")
        assert node.shell_json("vm show fast")["tsc_khz"] == 1500000
        first = ask(node, "fast")
        for stand in (SECOND, 0):
            save_and_restore(node, "fast", stand)
        assert node.shell_json("vm show fast")["tsc_khz"] == 1500000
        last = ask(node, "fast")
        rate = (last["tsc"] - first["tsc"]) * SECOND / (last["ref_ns"] - first["ref_ns"])
        assert abs(rate - 1.5e9) < 1.5e7, "the TSC does not run at its frequency"
        node.shell_json("vm pause fast")
        node.shell_json("vm resume fast")
        assert ask(node, "fast")["failures"] == 0
        finish(node, "fast")


def test_what_cannot_be_scaled_is_refused():
    """QEMU 7.2 has no TSC ratio."""
    vms = {"far": {"kernel": guest("timers"), "memory": "16M", "tsc-frequency": "1 GHz"},
           "near": {"kernel": guest("timers"), "memory": "16M"}}
    with Node("amd", "tsc", vms=vms, memory=512) as node:
        host = node.shell_json("cpu list")["host"]["tsc_khz"]
        with pytest.raises(ShellError) as failure:
            node.shell_json("vm start far")
        words = " ".join(str(word) for word in failure.value.error.values())
        for part in ("far", "1000000 kHz", f"{host} kHz", "tsc-frequency"):
            assert part in words, words
        assert node.state("far") == "stopped"
        told = host + host // 10000  # 100 in a million
        node.shell_json(rf"vm create told --memory 16M --kernel \tasuki\images\timers.elf --tsc-frequency {told}kHz")
        node.run_guest("told").check()
        far = host + host // 3000
        node.shell_json(rf"vm create beyond --memory 16M --kernel \tasuki\images\timers.elf --tsc-frequency {far}kHz")
        with pytest.raises(ShellError):
            node.shell_json("vm start beyond")
