# SPDX-License-Identifier: MIT
"""A Debian guest whose disk is a logical unit of a real target: it writes while the target is killed and started again, and
loses nothing; it waits, and where it takes long it is paused until the storage is back. The guest never sees an error.
With $TASUKI_SLOW set, on Bochs too, where that takes some four minutes."""
import hashlib
import os
import time

import pytest
from disk_writer import FILES, GUEST, SIZES, end_writer, start_writer, wait_vm, wait_written, written
from node import Linux, ShellError
from target import NETWORK, Target, find, wait_up

def check_written(node, guest, target):
    """Ends the writer; what the guest and the target's file have is what was noted."""
    block, blocks = SIZES[node.cpu]
    expected, read = end_writer(node, guest)
    with open(target.disk, "rb") as file:
        on_target = hashlib.md5(file.read(block * blocks)).hexdigest()
    assert read == expected and on_target == expected
    assert guest.run("dmesg | grep -ci 'i/o error'").split()[0] == "0"
    requests = find(node.shell_json("disk list")["requests"], "disk", "san")
    assert requests["errors"] == 0 and requests["writes"] > 0 and requests["flushes"] > 0


@pytest.fixture(scope="module", params=["amd", "intel"] if os.environ.get("TASUKI_SLOW") else ["amd"])
def cpu(request):
    return request.param


@pytest.fixture(scope="module")
def guest(booted, cpu):
    """A Debian guest whose disk is the target's unit; it starts by itself when the storage is there."""
    with Target(size=64 << 20, chap=2) as started:
        conf = NETWORK + started.configuration("san", timeout=5) + GUEST.format(name="demo", start="auto") + GUEST.format(
            name="other", start="manual")
        node = booted.get(cpu, "iscsi-guest", conf=conf, files=FILES, cards=[{"model": "e1000"}])
        wait_up(node)
        wait_vm(node, "running")
        node.console("demo", r"# ", timeout=120)
        yield node, Linux(node, "demo"), started


def test_a_disk_has_one_user(guest):
    node, _, _ = guest
    assert node.shell_json("disk list")["disks"][0]["vm"] == "demo"
    with pytest.raises(ShellError) as caught:
        node.shell_json("vm start other")
    assert "demo" in caught.value.error["cause"]
    with pytest.raises(ShellError) as caught:
        node.shell_json("iscsi logout san")
    assert "demo" in caught.value.error["cause"] and "stop the VM" in caught.value.error["cure"]


def test_the_target_dies_under_writes(guest):
    """A short time without the target is a pause of the writes; a long one pauses the VM, with the reason; nothing is lost
    and the guest sees no error."""
    node, linux, target = guest
    start_writer(node, linux)
    wait_written(linux, 8)
    target.kill()
    time.sleep(1)
    target.start()
    wait_written(linux, written(linux) + 10)
    assert node.state("demo") == "running"
    target.kill()
    wait_vm(node, "paused")
    shown = node.shell_json("vm show demo")
    assert "waits for its disk" in shown["reason"]
    with pytest.raises(ShellError) as caught:
        node.shell_json("vm resume demo")
    assert "its disk is away" in caught.value.error["cause"]
    os.truncate(target.disk, 96 << 20)
    target.start()
    wait_vm(node, "running")
    wait_written(linux, written(linux) + 10)
    assert wait_up(node)["logins"] >= 3
    linux.run(f"until [ $(cat /sys/block/vda/size) = {(96 << 20) // 512} ]; do sleep 0.1; done")  # its disk has grown meanwhile
    assert linux.run("dd if=/dev/vda iflag=direct of=/dev/null bs=1M skip=90 2>&1 | grep -c '6+0 records in'").split()[0] == "1"
    for order in ("save", "restore"):  # the unit is the one that it was
        node.shell_json(f"vm {order} demo", timeout=120)
    wait_written(linux, written(linux) + 10)
    check_written(node, linux, target)


def test_a_stop_while_the_target_is_away(guest):
    """A VM that waits for its disk can be stopped and started again."""
    node, linux, target = guest
    linux.run("rm -f /tmp/stop /tmp/end; (sh /tmp/w > /dev/null 2>&1 &)")
    target.kill()
    wait_vm(node, "paused")
    node.shell_json("vm stop demo --hard", timeout=30)
    assert node.state("demo") == "stopped"
    assert node.shell_json("disk list")["disks"][0]["vm"] is None
    target.start()
    wait_up(node)
    node.shell_json("vm start demo", timeout=60)
    assert node.shell_json("disk list")["disks"][0]["vm"] == "demo"
    assert node.shell_json("node show")
    node.shell_json("vm stop demo --hard", timeout=30)
