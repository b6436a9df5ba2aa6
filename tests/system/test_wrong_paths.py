# SPDX-License-Identifier: MIT
"""The way to the storage goes wrong under a Debian guest that writes: the cable is pulled for 10 s and for longer than the
storage's timeout, the target is late, stands still and goes on, answers pings and no commands, and bytes are corrupted on the way.
Each is named, the VM beside it and the shell go on, and at the end the guest's disk holds what it wrote, to the byte.

$TASUKI_PULL: seconds of the long pull, instead of 18; after half a minute all that happens is a try every 5 s."""
import hashlib
import os
import re
import signal
import time

import pytest
from disk_writer import FILES, GUEST, SIZES, end_writer, start_writer, wait_vm, wait_written, written
from node import Linux, guest
from target import NETWORK, Relay, Target, find, wait_for, wait_up

TIMEOUT = 16
PULL = int(os.environ.get("TASUKI_PULL", 18))


class Scene:
    pulled = False

    def pull(self):
        self.pulled = True
        self.node.machine.qmp("set_link", name="card0", up=False)

    def plug(self):
        if self.pulled:  # else QEMU's card would lose its link for a moment
            self.node.machine.qmp("set_link", name="card0", up=True)
        self.pulled = False

    def session(self):
        return find(self.node.shell_json("iscsi list")["sessions"], "storage", "san")

    def log(self):
        """What the log says beyond what it said before."""
        text = re.sub(r"\s+", " ", self.node.shell("log show"))
        new, self.told = text[self.told:], len(text)
        return new

    def others_go_on(self):
        """The VM beside it counts, and the shell answers quickly."""
        before = int(self.node.console("counter", r"count (\d+)\r\n(?!.*count)")[1])
        began = time.monotonic()
        self.node.shell_json("node show")
        assert time.monotonic() - began < 5
        self.node.console("counter", rf"count {before + 2}\r\n")


@pytest.fixture(scope="module")
def scene(booted):
    it = Scene()
    with Target(size=64 << 20) as target:
        it.relay, it.target, it.told = Relay(target.port, pdus=True), target, 0
        conf = NETWORK + target.configuration("san", portal=f"10.0.2.2:{it.relay.port}", timeout=TIMEOUT) + GUEST.format(
            name="demo", start="auto")
        conf += "[vm counter]\nmemory = 8M\nkernel = \\tasuki\\images\\counter.elf\nstart = auto\n"
        it.node = booted.get("amd", "wrong-paths", conf=conf, files={**FILES, "tasuki/images/counter.elf": guest("counter")},
                             cards=[{"model": "e1000"}], qmp=True)
        wait_up(it.node)
        wait_vm(it.node, "running")
        it.node.console("demo", r"# ", timeout=120)
        it.linux = Linux(it.node, "demo")
        start_writer(it.node, it.linux)
        wait_written(it.linux, 4)
        it.log()
        yield it
        it.relay.close()


def test_a_cable_is_pulled_for_ten_seconds(scene):
    """Writes wait; the VM runs on."""
    node = scene.node
    scene.pull()
    began = time.monotonic()
    scene.others_go_on()
    time.sleep(max(0, began + 10 - time.monotonic()))
    assert node.state("demo") == "running"
    scene.plug()
    wait_written(scene.linux, written(scene.linux) + 5)
    log = scene.log()
    assert "the link is down" in log and "paused" not in log


def test_a_cable_is_pulled_for_long(scene):
    """The VM is paused, and says why and since when; it goes on by itself."""
    node = scene.node
    before = written(scene.linux)
    scene.pull()
    began = time.monotonic()
    wait_vm(node, "paused", timeout=TIMEOUT + 15)
    assert time.monotonic() - began >= TIMEOUT - 2, "not before its time"
    shown = node.shell_json("vm show demo")
    assert "waits for its disk" in shown["reason"], shown
    log = scene.log()
    assert "warning e1000 00:02.0: the link is down" in log, log
    assert re.search(r"error vm demo: paused, since its disk is away: .* check cable and switch; it goes on when", log), log
    while time.monotonic() - began < PULL:
        scene.others_go_on()
        time.sleep(2)
    assert node.state("demo") == "paused"
    scene.plug()
    wait_vm(node, "running")
    wait_written(scene.linux, before + 10)
    assert scene.session()["logins"] >= 2


def test_a_target_that_answers_late(scene):
    """Each answer takes a second and more: slow, but nothing is wrong, and nothing is dropped."""
    logins = scene.session()["logins"]
    scene.relay.delay = 0.5
    scene.relay.set("late")
    wait_written(scene.linux, written(scene.linux) + 2)
    assert scene.session()["logins"] == logins and scene.node.state("demo") == "running"
    scene.relay.set("good")
    wait_written(scene.linux, written(scene.linux) + 5)


def test_a_target_that_stands_still_and_goes_on(scene):
    """What it was sent before is carried out late, when it goes on, beside what the new session sends again."""
    logins = scene.session()["logins"]
    os.kill(scene.target.process.pid, signal.SIGSTOP)
    try:
        wait_for(scene.node, "iscsi list", "sessions", "san", "state", lambda state: state != "up", timeout=30)
        scene.others_go_on()
    finally:
        os.kill(scene.target.process.pid, signal.SIGCONT)
    wait_up(scene.node)
    wait_written(scene.linux, written(scene.linux) + 10)
    assert scene.session()["logins"] > logins
    assert re.search(r"storage san: [^\[]*no answer to a ping", scene.log())


def test_a_target_that_answers_pings_and_no_commands(scene):
    """The session stands, and yet the VM is paused after the timeout; later the session is given up, and the next one is good."""
    node, before = scene.node, written(scene.linux)
    logins, log = scene.session()["logins"], ""
    scene.relay.set("deaf")
    wait_vm(node, "paused", timeout=TIMEOUT + 15)
    shown = scene.session()
    assert shown["state"] == "up" and shown["logins"] == logins, shown
    deadline = time.monotonic() + 40
    while "the target answers neither a command nor its abort" not in (log := log + scene.log()):
        assert time.monotonic() < deadline, log
        scene.others_go_on()
        time.sleep(1)
    assert "no answer to a ping" not in log
    scene.relay.set("good")
    wait_vm(node, "running")
    wait_written(scene.linux, before + 10)
    assert scene.session()["logins"] > logins


@pytest.fixture(autouse=True)
def mended(scene):
    """One test that fails does not take the others with it."""
    yield
    scene.node.detach()
    scene.plug()
    scene.relay.set("good")


@pytest.mark.parametrize("way, words", [
    ("to the target", "the target (closed|reset) the connection; its log"),
    ("from the target", "wrong digest: bytes were corrupted on the way; check cables"),
], ids=["out", "in"])
def test_bytes_that_are_corrupted_on_the_way(scene, way, words):
    """The digests find it, the session is rebuilt, and what was under way is sent again."""
    logins = scene.session()["logins"]
    scene.relay.flips[way] = 1
    if way == "from the target":
        scene.linux.run("dd if=/dev/vda of=/dev/null bs=1M count=16 iflag=direct 2>/dev/null")
    deadline = time.monotonic() + 60
    while scene.session()["logins"] == logins:
        assert time.monotonic() < deadline, scene.relay.flips
        time.sleep(0.3)
    wait_up(scene.node)
    assert scene.relay.flips[way] == 0
    wait_written(scene.linux, written(scene.linux) + 5)
    assert re.search(rf"warning storage san: [^\[]*{words}", scene.log())


def test_nothing_was_lost(scene):
    node, (block, blocks) = scene.node, SIZES["amd"]
    expected, read = end_writer(node, scene.linux)
    with open(scene.target.disk, "rb") as file:
        on_target = hashlib.md5(file.read(block * blocks)).hexdigest()
    assert read == expected and on_target == expected
    assert scene.linux.run("dmesg | grep -ci 'i/o error'").split()[0] == "0"
    assert find(node.shell_json("disk list")["requests"], "disk", "san")["errors"] == 0
    assert node.shell_json("vm show counter")["resets"] == 0
    scene.others_go_on()
