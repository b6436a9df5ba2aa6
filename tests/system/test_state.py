# SPDX-License-Identifier: MIT
"""Save and restore: a guest that watches its memory, its registers, its clocks and its timers goes on without noticing,
again and again; the world's time goes on in its real-time clock; what cannot be done is refused and nothing is lost."""
import datetime
import os
import re

import pytest

from node import INITRD, TOP, VMLINUZ, Linux, Node, ShellError, guest

TIME = (rb"time ref (\d+) tsc (\d+) rtc (\d+-\d+-\d+ \d+:\d+:\d+) rounds (\d+) ticks (\d+) pit (\d+) fails (\d+)\r\n")
SECOND = 1_000_000_000


def ask(node, vm):
    """The newest answer: one that is newer than all that were there when the question was asked."""
    node.attach(vm)
    node.expect(r"ready \d+ CPUs\r\n", timeout=30)
    seen = getattr(node, "answers", {}).get(vm, 0)
    node.machine.send(b"t")
    for _ in range(seen + 1):
        match = node.expect(TIME, timeout=30)
    node.detach()
    node.answers = {**getattr(node, "answers", {}), vm: seen + 1}
    return {
        "ref_ns": int(match[1]) * 100, "tsc": int(match[2]),
        "rtc": datetime.datetime.strptime(match[3].decode(), "%Y-%m-%d %H:%M:%S"),
        "rounds": int(match[4]), "ticks": int(match[5]), "pit": int(match[6]), "failures": int(match[7]),
    }


def finish(node, vm):
    """Ends the guest; it must have found nothing wrong."""
    node.attach(vm)
    node.machine.send(b"q")
    begin = node.machine.position
    node.expect(r"^done \d+ passed \d+ failed\r\n", timeout=60)
    text = node.machine.output[begin:].decode(errors="replace").replace("\r\n", "\n")
    node.detach()
    assert not re.findall(r"^(?:fail|note the first) .*$", text, re.M), text[-3000:]
    assert re.search(r"^done \d+ passed 0 failed$", text, re.M), text[-3000:]


def save_and_restore(node, vm, stand_ns=0):
    """Once; the VM stays saved for that long. How long it was saved at least, by the node's clock."""
    node.shell_json(f"vm save {vm}", timeout=120)
    saved = node.shell_json(f"vm show {vm}")
    assert saved["state"] == "saved"
    later = node.shell_json(f"vm show {vm}")
    while later["since_ns"] < stand_ns:
        later = node.shell_json(f"vm show {vm}")
    assert later["guest_time_ns"] == saved["guest_time_ns"], "the guest's clock runs while it is saved"
    node.shell_json(f"vm restore {vm}", timeout=120)
    running = node.shell_json(f"vm show {vm}")
    assert running["state"] == "running"
    moved = running["guest_time_ns"] - saved["guest_time_ns"] - running["since_ns"]
    assert -SECOND < moved < SECOND, f"the guest's clock moved by {moved} ns beside the time that it ran"
    return later["since_ns"]


@pytest.mark.parametrize("cpu,times", [("amd", 10), ("intel", 5)])
def test_a_guest_does_not_notice(cpu, times):
    vms = {f"of{n}": {"kernel": guest("state"), "memory": "32M", "vcpus": n} for n in (1, 4)}
    with Node(cpu, "state", vms=vms, memory=512) as node:
        for vm in vms:
            node.shell_json(f"vm start {vm}")
            before = ask(node, vm)
            node.shell_json("cpu apic on")
            stood = save_and_restore(node, vm, 3 * SECOND)
            assert node.shell_json(f"vm show {vm}")["apic_virtualization"] == (cpu == "intel")
            after = ask(node, vm)
            assert after["ref_ns"] > before["ref_ns"] and after["tsc"] > before["tsc"]
            world = (after["rtc"] - before["rtc"]).total_seconds() * SECOND
            ran = after["ref_ns"] - before["ref_ns"]
            assert world > ran + stood - 2 * SECOND, "the RTC lost the time that it was saved"
            # With and without the CPU's help for the APIC, where it can: the stream is the same.
            for turn in range(times):
                node.shell_json(f"cpu apic {'on' if turn % 2 else 'off'}")
                save_and_restore(node, vm)
                assert node.shell_json(f"vm show {vm}")["apic_virtualization"] == (cpu == "intel" and turn % 2 == 1)
            node.shell_json("cpu apic auto")
            # Interrupts go on where the page that their delivery writes to has just lost its rights.
            node.shell_json(f"vm dirty {vm} start --engine wp")
            for _ in range(20):
                node.shell_json(f"vm dirty {vm} collect")
            node.shell_json(f"vm dirty {vm} stop")
            last = ask(node, vm)
            assert last["ticks"] > after["ticks"], "the timers stopped"
            assert last["failures"] == 0
            finish(node, vm)
            node.wait_state(vm, "stopped")
        free = node.shell_json("memory show")
        assert [owner["owner"] for owner in free["owners"]] == ["hypervisor"], "memory is still held"


@pytest.mark.vendor("intel")
def test_debug_traps_that_wait_are_saved():
    """On VMX alone, since QEMU does not hold them back. The log's write protection makes exits where one waits."""
    with Node("intel", "state-held", vms={"held": {"kernel": guest("held"), "memory": "48M"}}, memory=512) as node:
        node.shell_json("vm start held")
        node.console("held", r"pass 1\r\n")
        for _ in range(4):
            node.shell_json("vm dirty held start --engine wp")
            node.shell_json("vm save held", timeout=120)
            node.shell_json("vm restore held", timeout=120)
        finish(node, "held")


def test_a_paused_guest_stays_paused():
    vms = {"vm": {"kernel": guest("state"), "memory": "16M", "vcpus": 2}}
    with Node("amd", "state-paused", vms=vms, memory=512) as node:
        node.shell_json("vm start vm")
        ask(node, "vm")
        node.shell_json("vm pause vm")
        paused = node.shell_json("vm show vm")
        node.shell_json("vm save vm")
        assert "paused as it was" in node.shell_json("vm restore vm")["message"]
        again = node.shell_json("vm show vm")
        assert (again["state"], again["guest_time_ns"]) == ("paused", paused["guest_time_ns"])
        node.shell_json("vm resume vm")
        assert ask(node, "vm")["failures"] == 0
        finish(node, "vm")


def test_what_a_stream_holds_is_listed():
    vms = {"vm": {"kernel": guest("state"), "memory": "16M", "vcpus": 3}}
    with Node("amd", "state-list", vms=vms, memory=512) as node:
        node.shell_json("vm start vm")
        ask(node, "vm")
        node.shell_json("vm save vm")
        state = node.shell_json("vm state vm")
        assert state["good"] is True
        sections = {row["tag"]: row for row in state["sections"]}
        assert sum(row["count"] for row in sections.values()) == state["count"]
        for tag in ("VM", "CPUMODEL", "CLOCK", "PCI", "PIC", "IOAPIC", "PIT", "RTC", "UART", "PM", "HYPERV"):
            assert sections[tag]["count"] == 1, tag
        for tag in ("CPU", "XSAVE", "MSR", "HVVCPU", "VCPU", "APIC"):
            assert (sections[tag]["first"], sections[tag]["last"], sections[tag]["count"]) == (0, 2, 3), tag
        with open(os.path.join(TOP, "docs", "state-stream.md"), encoding="utf-8") as file:
            page = file.read()
        assert not [tag for tag in sections if f"| `{tag}` |" not in page], "docs/state-stream.md lacks a section"


def refused(node, command, words):
    with pytest.raises(ShellError) as failure:
        node.shell_json(command, timeout=120)
    error = failure.value.error
    assert error["cure"] and words in error["cause"] + " " + error["cure"], error


def test_refusals_lose_nothing():
    vms = {"vm": {"kernel": guest("state"), "memory": "16M", "vcpus": 1}}
    with Node("amd", "state-refused", vms=vms, memory=512) as node:
        empty = node.shell_json("memory show")["free_bytes"]
        refused(node, "vm save vm", "only a running or paused VM can be saved")
        refused(node, "vm restore vm", "no saved state")
        refused(node, "vm state vm", "no saved state")
        node.shell_json("vm start vm")
        ask(node, "vm")
        refused(node, "vm restore vm", "no saved state")
        node.shell_json("vm save vm")
        refused(node, "vm save vm", "only a running or paused VM can be saved")
        refused(node, "vm start vm", "`vm restore vm` lets it go on")
        refused(node, "vm pause vm", "only a running VM")
        refused(node, "vm dirty vm start", "start it first")
        node.shell_json("vm restore vm")
        assert ask(node, "vm")["failures"] == 0
        node.shell_json("vm save vm")
        assert "saved state is dropped" in node.shell_json("vm stop vm --hard")["message"]
        assert node.state("vm") == "stopped"
        node.shell_json("vm start vm")
        node.shell_json("vm save vm")
        node.shell_json("vm delete vm")
        assert not node.shell_json("vm list")["vms"]
        assert node.shell_json("memory show")["free_bytes"] > empty - 1024 * 1024


def test_a_node_without_the_memory_says_so_and_the_vm_goes_on():
    vms = {"vm": {"kernel": guest("dirty"), "memory": "300M", "vcpus": 1}}
    with Node("amd", "state-memory", vms=vms, memory=512) as node:
        node.shell_json("vm start vm")
        match = node.console("vm", r"ready ([0-9a-f]+) ([0-9a-f]+)\r\n")
        first, end = int(match[1], 16), int(match[2], 16)
        node.attach("vm")
        node.machine.send(b"w %x %x 1\n" % (first, end - first))
        node.expect(r"obeyed 1\r\n", timeout=60)
        node.detach()
        free = node.shell_json("memory show")["free_bytes"]
        refused(node, "vm save vm", "it goes on")
        assert node.state("vm") == "running"
        assert node.shell_json("memory show")["free_bytes"] >= free - 1024 * 1024, "the refused state is still held"
        node.attach("vm")
        node.machine.send(b"w %x 5 7\n" % first)
        node.expect(r"obeyed 2\r\n", timeout=60)
        node.detach()


def test_a_restore_without_the_memory_keeps_the_state():
    """Two VMs that do not fit at once, of which the one that is saved has touched little."""
    vms = {name: {"kernel": guest("flood"), "memory": "300M", "cmdline": "lines=10"} for name in ("vm", "other")}
    with Node("amd", "state-room", vms=vms, memory=512) as node:
        node.shell_json("vm start vm")
        node.console("vm", r"flood ready\r\n")
        node.shell_json("vm save vm")
        saved = node.shell_json("vm show vm")
        node.shell_json("vm start other")
        refused(node, "vm restore vm", "stop another VM")
        again = node.shell_json("vm show vm")
        assert (again["state"], again["guest_time_ns"]) == ("saved", saved["guest_time_ns"])
        node.shell_json("vm stop other --hard")
        node.shell_json("vm restore vm")
        node.attach("vm")
        node.machine.send("g")
        node.expect(r"flood end\r\n")
        node.detach()


BEAT = "i=0; while sleep 0.1; do i=$((i+1)); echo $i >/beat.new; mv /beat.new /beat; done &"
# Writes a file to the disk, drops what Linux remembers of it, and reads it back: how often it was right, and wrong.
DISK = ("g=0; b=0; s=$(stat -c %s /bin/busybox); m=$(md5sum </bin/busybox); while :; do "
        "dd if=/bin/busybox of=/dev/vda bs=64k conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches; "
        "if [ \"$(head -c $s /dev/vda | md5sum)\" = \"$m\" ]; then g=$((g+1)); else b=$((b+1)); fi; "
        "echo $g $b >/disk.new; mv /disk.new /disk; sleep 0.1; done &")
COMPLAINTS = "dmesg | grep -iE 'stall|lockup|backward|unstable|hung|I/O error|reset'"


@pytest.mark.parametrize("cpu,times", [("amd", 3)])
def test_a_linux_guest_goes_on(cpu, times, tmp_path):
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(8 << 20))
    vm = {"kernel": VMLINUZ, "initrd": INITRD, "memory": "256M", "vcpus": 2, "cmdline": "console=ttyS0 quiet",
          "disk": str(disk)}
    with Node(cpu, "state-linux", vms={"linux": vm}, memory=1024) as node:
        node.shell_json("vm start linux")
        node.console("linux", rb"# ", timeout=120)
        linux = Linux(node, "linux")
        before = linux.run(COMPLAINTS)
        linux.run("echo 0 >/beat; echo 0 0 >/disk; ls /dev/vda")
        linux.run(f"{{ {BEAT} }}")
        linux.run(f"{{ {DISK} }}")
        (beats,), (good, bad) = linux.wait_beyond("/beat", 3), linux.wait_beyond("/disk", 0)
        for _ in range(times):
            assert bad == 0
            save_and_restore(node, "linux", SECOND // 2)
            (beats,) = linux.wait_beyond("/beat", beats + 3)
            good, bad = linux.wait_beyond("/disk", good + 1)
        node.shell_json("vm save linux", timeout=120)
        sections = {row["tag"]: row for row in node.shell_json("vm state linux")["sections"]}
        assert sections["DISK"]["count"] == 1 and sections["DISKDATA"]["count"] > 0 and sections["VIRTIO"]["count"] == 3
        node.shell_json("vm restore linux", timeout=120)
        good, bad = linux.wait_beyond("/disk", good + 1)
        assert bad == 0, "the disk gave back something else"
        assert linux.run(COMPLAINTS) == before, "the kernel complains"
