# SPDX-License-Identifier: MIT
"""Interrupts of PCI devices as levels (INTx), and the one of ACPI, by the controller that a kernel's command line leaves
it: the 8259 pair, or the IOAPIC. Debian's own kernel uses its virtio disk, entropy device and console by them. That
it took no other way is what its /proc/interrupts says."""
import re

import pytest
from node import INITRD, VMLINUZ, Linux, Node

# Command line, vCPUs; and how /proc/interrupts names the controllers of the virtio devices and of ACPI.
CASES = {
    "pic": ("noapic nolapic pci=nomsi", 1, "XT-PIC", "XT-PIC"),    # the 8259s, and no local APIC either
    "picapic": ("noapic pci=nomsi", 2, "XT-PIC", "XT-PIC"),        # the 8259s, by LINT0 of the boot CPU
    "messages": ("noapic", 1, "PCI-MSI", "XT-PIC"),
    "ioapic": ("pci=nomsi", 1, "IO-APIC", "IO-APIC"),
}
DEVICES = {"virtio0": "console", "virtio1": "entropy", "virtio2": "disk", "virtio3": "second disk"}
# By the 8259s: slots 1 and 3 on interrupt 11, 2 and 4 on 10.
INPUTS = {"11": {"virtio0", "virtio2"}, "10": {"virtio1", "virtio3"}}
COMPLAINTS = ("dmesg | grep -iE 'nobody cared|disabling irq|spurious|PCI INT.*(no GSI|failed)|firmware bug|"
              "acpi.*error|lockup|stall|hung|I/O error'")


def interrupts(linux):
    """{interrupt: (count, controller, its devices)} of those that have devices of ACPI or virtio. On a hypervisor of this
    kind Linux says of its IOAPIC, like of one behind an IOMMU, that interrupts are remapped (IR)."""
    found = {}
    for line in linux.run("cat /proc/interrupts").split("\n"):
        match = re.match(r" *(\d+): +((?:\d+ +)+)(\S+) (.*)$", line)
        names = set(re.findall(r"\b(acpi|virtio\d+)\b", match[4])) if match else set()
        if names:
            found[match[1]] = (sum(map(int, match[2].split())), match[3].removeprefix("IR-"), names)
    return found


def count(lines, name):
    return sum(line[0] for line in lines.values() if name in line[2])


def use_disk(linux, disk):
    """Puts bytes that no run had before on the disk, and reads them back from there."""
    answer = linux.run("dd if=/dev/urandom of=/random bs=64k count=4 2>/dev/null && "
                       f"dd if=/random of=/dev/{disk} bs=64k conv=fsync 2>/dev/null && echo 3 >/proc/sys/vm/drop_caches && "
                       f"head -c 262144 /dev/{disk} | cmp - /random && echo sa''me")
    assert answer == "same\n", answer


def use_entropy(linux):
    assert linux.run("cat /sys/class/misc/hw_random/rng_current").startswith("virtio_rng")
    assert linux.run("dd if=/dev/hwrng bs=64 count=1 2>/dev/null | wc -c") == "64\n"


def use_console(linux):
    """What is typed goes where the guest spoke last, which may be the serial port's echo that comes late: so it is asked
    for again. Words of this time's own, as for a command."""
    node, linux.count = linux.node, linux.count + 1
    word = f"word-{linux.count}"
    node.machine.send(f"{{ until echo as''k-{word}; read -t 2 line; [ \"$line\" = {word} ]; do :; done; }} <>/dev/hvc0 >&0; "
                      f"echo hea''rd-{word}\r")
    for _ in range(10):
        if node.expect(rf"(ask|heard)-{word}\r\n", timeout=30)[1] == b"heard":
            return
        node.machine.send(word + "\r")
    pytest.fail("what is typed does not reach virtio's console")


@pytest.mark.parametrize("cpu,names", [("amd", list(CASES)), ("intel", ["pic"])])
def test_linux_uses_its_devices(cpu, names, tmp_path):
    disks = [tmp_path / f"disk{i}.raw" for i in range(2)]
    for disk in disks:
        disk.write_bytes(bytes(2 << 20))
    linux = {"kernel": VMLINUZ, "initrd": INITRD, "memory": "192M", "disk": [str(disk) for disk in disks]}
    vms = {name: {**linux, "vcpus": CASES[name][1], "cmdline": f"console=ttyS0 quiet {CASES[name][0]}"} for name in names}
    with Node(cpu, "intx", vms=vms, memory=1024) as node:
        for name in names:
            use_all(node, name, *CASES[name][2:])


def use_all(node, name, of_virtio, of_acpi):
    node.shell_json(f"vm start {name}")
    node.attach(name)  # and left open, since showing again what was said takes long on Bochs
    node.expect(r"Tasuki demo guest: user space.*?# ", timeout=240)
    linux = Linux(node, name)
    linux.run("dmesg -n 1")  # what the kernel says is read from its log, and not in the midst of an answer
    before = interrupts(linux)
    assert {line[1] for line in before.values() if "acpi" in line[2]} == {of_acpi}, before
    assert {line[1] for line in before.values() if "acpi" not in line[2]} == {of_virtio}, before
    assert before["9"][2] == {"acpi"}, before
    if of_virtio == "XT-PIC":
        assert {number: line[2] for number, line in before.items() if number != "9"} == INPUTS, before
    uses = {"virtio0": lambda: use_console(linux), "virtio1": lambda: use_entropy(linux),
            "virtio2": lambda: use_disk(linux, "vda"), "virtio3": lambda: use_disk(linux, "vdb")}
    for device, use in uses.items():
        use()
        after = interrupts(linux)
        assert count(after, device) > count(before, device), f"no interrupt of the {DEVICES[device]}: {after}"
        before = after
    if name == "pic":
        # Saved while it writes, so that a level may be asserted, or in service, at that moment.
        linux.run("echo 0 >/writes; { (i=0; while dd if=/random of=/dev/vda bs=64k conv=fsync 2>/dev/null; do i=$((i+1)); "
                  "echo $i >/writes.new; mv /writes.new /writes; done) & }; writer=$!")
        node.detach()
        node.shell_json(f"vm save {name}", timeout=120)
        node.shell_json(f"vm restore {name}", timeout=120)
        node.attach(name)
        (writes,) = linux.wait_beyond("/writes", 0)
        linux.wait_beyond("/writes", writes + 1)
        linux.run("kill $writer; wait")
        for use in uses.values():
            use()
    complaints = linux.run(COMPLAINTS)
    assert not complaints, f"the kernel complains:\n{complaints}"
    # The power button is an interrupt of ACPI.
    node.detach()
    node.shell_json(f"vm stop {name}")
    assert node.wait_state(name, "stopped", timeout=60) == "stopped"
