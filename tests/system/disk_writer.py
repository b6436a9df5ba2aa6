# SPDX-License-Identifier: MIT
"""A Debian guest that writes to its disk without end, notes what it has written where, and can tell it at last."""
import time

from node import INITRD, VMLINUZ

FILES = {"tasuki/images/vmlinuz": VMLINUZ, "tasuki/images/initrd.img": INITRD}
GUEST = ("\n[vm {name}]\nmemory = 192M\nkernel = \\tasuki\\images\\vmlinuz\ninitrd = \\tasuki\\images\\initrd.img\n"
         "cmdline = console=ttyS0\ndisk = storage:san\nstart = {start}\n")

SIZES = {"amd": (256 << 10, 40), "intel": (32 << 10, 8)}  # blocks and how many of them: Bochs is slow


def start_writer(node, guest, size=None, disks=("vda",)):
    """Round after round each block of the disks gets another piece of a file, durably; which one is noted when it is written."""
    block, blocks = size or SIZES[node.cpu]
    is_open = node.attached
    node.attach(guest.vm)
    for line in (
            f"dd if=/dev/urandom of=/tmp/a bs={block} count={blocks} 2>/dev/null",
            "cat > /tmp/w << 'END'",
            f"r=0; while [ ! -e /tmp/stop ]; do i=0; while [ $i -lt {blocks} ]; do p=$(( (i + r) % {blocks} ))",
            *[f"dd if=/tmp/a of=/dev/{disk} bs={block} count=1 skip=$p seek=$i conv=fsync 2>/dev/null || echo bad >> /tmp/bad"
              for disk in disks],
            "echo $p > /tmp/m$i; i=$((i + 1)); n=$((n + 1)); echo $n > /tmp/n; done; r=$((r + 1)); done; echo end > /tmp/end",
            "END"):
        node.machine.send(line + "\r")
        node.expect(r"[#>] ", timeout=30)
    node.machine.send("sh /tmp/w &\r")
    node.expect(r"# ", timeout=30)
    if not is_open:
        node.detach()


def wait_vm(node, state, timeout=60):
    deadline = time.monotonic() + timeout * node.patience
    while node.state("demo") != state:
        assert time.monotonic() < deadline, node.shell("vm show demo")
        time.sleep(0.3)


def written(guest):
    return int(guest.run("cat /tmp/n").strip() or 0)


def wait_written(guest, count, timeout=60):
    guest.run(f"until [ $(cat /tmp/n) -ge {count} ]; do sleep 0.2; done", timeout=timeout)


def end_writer(node, guest, size=None, disks=("vda",)):
    """The md5 of what was noted as written, and of what the guest reads from each disk; and no write has failed."""
    block, blocks = size or SIZES[node.cpu]
    guest.run("touch /tmp/stop; until [ -e /tmp/end ]; do sleep 0.1; done", timeout=90)
    expected = guest.run(f"i=0; while [ $i -lt {blocks} ]; do dd if=/tmp/a bs={block} count=1 skip=$(cat /tmp/m$i) 2>/dev/null; "
                         "i=$((i + 1)); done | md5sum", timeout=60).split()[0]
    read = [guest.run(f"echo 3 > /proc/sys/vm/drop_caches; dd if=/dev/{disk} bs={block} count={blocks} 2>/dev/null | md5sum",
                      timeout=60).replace("drop_caches: 3", "").split()[-2] for disk in disks]
    assert guest.run("cat /tmp/bad 2>/dev/null | wc -l").split()[0] == "0"
    return expected, *read
