# SPDX-License-Identifier: MIT
"""A guest whose disk is a file on a volume writes without a pause while everything between it and the target goes wrong: the
target dies, its connections are cut and hold back what was sent on them, the card's cable is pulled. Nothing is lost, nothing
lands late, the guest sees no error: what it believes is on its disk is what the host's tool takes out of the volume. With
$TASUKI_SLOW set, on Bochs too, Debian for half an hour."""
import hashlib
import os
import subprocess
import time

import pytest
from debian_load import FILES as DEBIAN_FILES
from debian_load import GUEST as DEBIAN
from debian_load import IMAGE, Debian, build
from disk_writer import FILES, GUEST, end_writer, start_writer, wait_vm
from node import Linux, Node
from target import NETWORK, Relay, Target, find, wait_for, wait_up
from test_volume import ROOT, tool

MIB = 1 << 20
# Small enough that a write goes to the target in one piece with its data: all of it can be held back.
WRITER = {"amd": (4096, 50), "intel": (4096, 20)}


SLOW = bool(os.environ.get("TASUKI_SLOW"))


class Busybox(Linux):
    """The demo guest with tests/system/disk_writer.py, as far as Trouble wants to know."""

    def wait_answered(self, more, timeout=90):
        """The guest counts: a line of the node's log may come between what it prints."""
        self.run(f"set -- $(cat /sys/block/vda/stat); goal=$(($5 + {more})); until set -- $(cat /sys/block/vda/stat); [ $5 -ge $goal ]; "
                 "do sleep 0.2; done", timeout=timeout)


def wait_login(node, before, timeout=60):
    wait_for(node, "iscsi list", "sessions", "san", "logins", lambda logins: logins > before, timeout)
    return wait_up(node)["logins"]


class Trouble:
    """What can go wrong on the way to the target, each until it is over and the guest's writes go on."""

    def __init__(self, node, linux, target, relay, more):
        self.node, self.linux, self.target, self.relay, self.more = node, linux, target, relay, more

    def go_on(self):
        self.linux.wait_answered(self.more)

    def killed(self, seconds=0.0):
        self.target.kill()
        time.sleep(seconds)
        self.target.start()
        self.go_on()

    def cut(self, seconds):
        self.relay.set("cut")
        time.sleep(seconds)
        self.relay.set("good")
        self.go_on()

    def unplugged(self, seconds):
        self.node.machine.qmp("set_link", name="card0", up=False)
        time.sleep(seconds)
        self.node.machine.qmp("set_link", name="card0", up=True)
        self.go_on()

    def held_back(self):
        """The target gets nothing more of a connection on which a write has begun; the node makes another one, and sends again
        there what had no answer; newer writes to the same blocks follow. let_go() comes when nothing is written any more, which
        would hide what lands late."""
        logins = wait_up(self.node)["logins"]
        self.relay.hold(1000)
        wait_login(self.node, logins)
        self.go_on()

    def let_go(self):
        held, sent = self.relay.release()
        assert held >= 1000
        print(f"held back {held} bytes, of which {sent} went out late")


def leave_in_order(node):
    """The node has seen no error of its disk and nothing wrong on the volume; then it is switched off."""
    assert find(node.shell_json("disk list")["requests"], "disk", "san")["errors"] == 0
    assert node.shell_json("csv scrub Volume1", timeout=120)["problems"] == 0
    node.machine.sendline("node poweroff")
    node.machine.wait(60 * node.patience)


@pytest.mark.parametrize("cpu", ["amd", "intel"] if SLOW else ["amd"])
def test_a_guest_writes_while_its_target_is_troubled(cpu, tmp_path):
    size = WRITER[cpu]
    block, blocks = size
    with Target(size=96 * MIB) as target:
        target.kill()
        tool(target, "mkfs", "--force")
        tool(target, "mkdir", "/demo")
        (tmp_path / "image").write_bytes(b"")
        os.truncate(tmp_path / "image", 16 * MIB)
        tool(target, "put", tmp_path / "image", "/demo/disk0.img")
        target.start()
        relay = Relay(target.port)
        guest = GUEST.format(name="demo", start="auto").replace("storage:san", f"{ROOT}/demo/disk0.img")
        conf = NETWORK + target.configuration("san", volume="Volume1", portal=f"10.0.2.2:{relay.port}", timeout=40) + guest
        machine = {"qmp": True} if cpu == "amd" else {}
        with Node(cpu, "load", conf=conf, files=FILES, cards=[{"model": "e1000"}], **machine) as node:
            wait_vm(node, "running")
            node.console("demo", r"# ", timeout=120)
            linux = Busybox(node, "demo")
            start_writer(node, linux, size)
            trouble = Trouble(node, linux, target, relay, 2 * blocks)
            trouble.go_on()
            trouble.killed()
            trouble.cut(1)
            if cpu == "amd":
                trouble.unplugged(2)
                trouble.unplugged(12)
            trouble.held_back()
            assert node.state("demo") == "running"
            expected, read = end_writer(node, linux, size)
            assert read == expected
            trouble.let_go()
            assert linux.run("dmesg | grep -ci 'i/o error'").split()[0] == "0"
            leave_in_order(node)
        relay.close()
        target.kill()
        assert "0 transactions in the journal: sound" in tool(target, "fsck"), "it was not left in order"
        tool(target, "get", "/demo/disk0.img", tmp_path / "back")
        back = (tmp_path / "back").read_bytes()
        assert hashlib.md5(back[:block * blocks]).hexdigest() == expected
        assert len(back) == 16 * MIB and not any(back[block * blocks:])


def md5(path):
    """Of a file with holes, which are not short of time."""
    done = hashlib.md5()
    with open(path, "rb") as file:
        while piece := file.read(MIB):
            done.update(piece)
    return done.hexdigest()


@pytest.mark.parametrize("cpu", ["amd", "intel"] if SLOW else ["amd"])
def test_debian_under_load(cpu, tmp_path):
    """fio writes and verifies, git clones and checks; its root and the disk that they work on are files on the volume."""
    build()
    with Target(size=1024 * MIB) as target:
        target.kill()
        tool(target, "mkfs", "--force")
        tool(target, "mkdir", "/demo")
        tool(target, "put", IMAGE, "/demo/root.img")
        (tmp_path / "work").write_bytes(b"")
        os.truncate(tmp_path / "work", 96 * MIB)
        tool(target, "put", tmp_path / "work", "/demo/work.img")
        target.start()
        relay = Relay(target.port)
        conf = NETWORK + target.configuration("san", volume="Volume1", portal=f"10.0.2.2:{relay.port}", timeout=40) + DEBIAN.format(
            root=f"{ROOT}/demo/root.img", work=f"{ROOT}/demo/work.img")
        machine = {"qmp": True} if cpu == "amd" else {}
        with Node(cpu, "load-debian", conf=conf, files=DEBIAN_FILES, cards=[{"model": "e1000"}], **machine) as node:
            wait_vm(node, "running")
            debian = Debian(node)
            debian.start()
            node.detach()
            trouble = Trouble(node, debian, target, relay, {"amd": 200, "intel": 20}[cpu])
            trouble.go_on()
            trouble.killed()
            trouble.cut(1)
            if cpu == "amd":
                trouble.unplugged(3)
            trouble.held_back()
            fio, git = debian.stop()
            print(f"{fio} rounds of fio, {git} of git")
            assert fio and git and node.state("demo") == "running"
            trouble.let_go()
            assert debian.run("dmesg | grep -ci 'i/o error'").split()[0] == "0"
            believed = debian.believes("/dev/vdb", "/dev/vda")
            leave_in_order(node)
        relay.close()
        target.kill()
        assert "0 transactions in the journal: sound" in tool(target, "fsck"), "it was not left in order"
        for name, expected in zip(("work", "root"), believed):
            tool(target, "get", f"/demo/{name}.img", tmp_path / name)
            assert md5(tmp_path / name) == expected, name
            subprocess.run(["e2fsck", "-fn", tmp_path / name], check=True, timeout=120, stdout=subprocess.DEVNULL,
                           env={**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"})
