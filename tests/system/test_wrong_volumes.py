# SPDX-License-Identifier: MIT
"""Volumes and units that are not as they should be, all on one node: each is named with its cause and its cure, nothing is
written to it, and the volume and the VM beside it go on. A target that is not there when the node boots is waited for; when it
comes, its volume is mounted and the VM on it starts by itself."""
import hashlib
import json
import os
import re
import struct
import subprocess
import tempfile
import time

import pytest
from initiator import Initiator
from node import BUILD, ShellError, guest
from target import NETWORK, Target, find, free_port, wait_for, wait_up

MIB = 1 << 20
SIZE = 64 * MIB
BLOCK = 4096
KEY = 0xbad0bad
# docs/csv-format.md: the superblock's three copies (the last: of a disk of SIZE), the root of the volume, the journal's heads.
SUPERS, ROOT, HEADS = (0, 8192, 16383), 19, (20, 21)


def tool(disk, command, *arguments, status=0):
    result = subprocess.run([os.path.join(os.path.abspath(BUILD), "tasuki-csv"), command, disk, *map(str, arguments)],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == status, (command, result.returncode, result.stdout, result.stderr)
    return result.stdout


def crc32c(data, crc=0):
    crc ^= 0xffffffff
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def blocks_of(disk, numbers):
    with open(disk, "rb") as file:
        for number in numbers:
            file.seek(number * BLOCK)
            yield number, bytearray(file.read(BLOCK))


def put_block(disk, number, content):
    with open(disk, "r+b") as file:
        file.seek(number * BLOCK)
        file.write(content)


# What may be wrong with a volume's disk.

def empty(disk):
    put_block(disk, 0, bytes(BLOCK))


def foreign(disk):
    """Made over a volume, of which two superblocks are whole still: to mount that one would destroy what is there now."""
    tool(disk, "mkfs", "--force")
    subprocess.run(["/sbin/mkfs.ext4", "-q", "-F", "-E", "nodiscard", disk], check=True, timeout=60)


def damaged(disk):
    tool(disk, "mkfs", "--force")
    put_block(disk, ROOT, os.urandom(BLOCK))


def newer(disk):
    """Every copy of the superblock says version 2, with the right checksum."""
    tool(disk, "mkfs", "--force")
    for number, block in blocks_of(disk, SUPERS):
        assert block[:4] == b"TCSU", number
        struct.pack_into("<I", block, 40, 2)
        seed = crc32c(struct.pack("<Q", number), crc32c(block[48:64]))
        struct.pack_into("<I", block, 4, 0)
        struct.pack_into("<I", block, 4, crc32c(block, seed))
        put_block(disk, number, block)


def journal(disk):
    tool(disk, "mkfs", "--force")
    for number in HEADS:
        put_block(disk, number, os.urandom(BLOCK))


def cut(disk):
    os.truncate(disk, SIZE + 32 * MIB)
    tool(disk, "mkfs", "--force")
    os.truncate(disk, SIZE)


def full(disk):
    tool(disk, "mkfs", "--force")
    free = json.loads(tool(disk, "df", "--json"))["free_bytes"]
    with tempfile.NamedTemporaryFile() as file:
        file.write(os.urandom(free - 40 * BLOCK))
        file.flush()
        tool(disk, "put", file.name, "/rest")


# The units of one target, from 1: how each is made, and the words that must be told of it: what it is, and what helps.
UNITS = {
    "Good": (lambda disk: tool(disk, "mkfs", "--force"), ()),
    "Empty": (empty, ("empty", "tasuki-csv mkfs")),
    "Foreign": (foreign, ("overwritten by an ext2, ext3 or ext4", "take the right disk")),
    "Damaged": (damaged, (f"block {ROOT}", "tasuki-csv fsck")),
    "Newer": (newer, ("version 2", "knows 1", "newer")),
    "Journal": (journal, ("journal", "tasuki-csv fsck")),
    "Cut": (cut, ("24576", "16384", "as large as it was")),
    "Protected": (lambda disk: tool(disk, "mkfs", "--force"), ("write-protected", "allow writes")),
    "Full": (full, ()),
    "Reserved": (lambda disk: tool(disk, "mkfs", "--force"), ("reserved", f"0x{KEY:016x}", "write exclusive", "release")),
}
BESIDE = ["Empty", "Foreign", "Damaged", "Newer", "Journal", "Cut", "Protected"]


class Units(Target):
    """One file for each of UNITS, and a stranger's reservation on the last one."""

    def __init__(self):
        super().__init__(size=SIZE)
        self.stranger = None
        for name, (make, _) in UNITS.items():
            with open(self.file(name), "wb") as file:
                file.truncate(SIZE)
            make(self.file(name))

    def lun(self, name):
        return list(UNITS).index(name) + 2

    def file(self, name):
        return os.path.join(self.directory, name)

    def start(self):
        super().start()
        for name in UNITS:
            self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", str(self.lun(name)), "-b", self.file(name))
        self.admin("--op", "update", "--mode", "logicalunit", "--tid", "1", "--lun", str(self.lun("Protected")), "--params",
                   "readonly=1")

    def sums(self):
        return {name: hashlib.md5(open(self.file(name), "rb").read()).hexdigest() for name in BESIDE + ["Reserved"]}


class Wrong:
    """The node, its targets, and what their files held before."""


@pytest.fixture(scope="module")
def wrong(booted, cpu):
    it = Wrong()
    late = Target(size=SIZE, name="iqn.2026-11.example:late")
    with late, Units() as units:
        late.kill()
        tool(late.disk, "mkfs", "--force")
        tool(late.disk, "mkdir", "/late")
        with open(os.path.join(late.directory, "image"), "wb") as file:
            file.truncate(MIB)
        tool(late.disk, "put", os.path.join(late.directory, "image"), "/late/disk.img")
        it.before = units.sums()
        it.stranger = Initiator(units.port, units.name, lun=units.lun("Reserved"))
        it.stranger.reserve(KEY)
        kernel = "\\tasuki\\images\\counter.elf"
        conf = NETWORK + "".join(units.configuration(name.lower(), lun=units.lun(name), volume=name) for name in UNITS)
        conf += late.configuration("late", volume="Late", timeout=5)
        conf += units.configuration("absent", portal=f"10.0.2.99:{free_port()}", lun=30, volume="Absent")
        conf += f"[vm counter]\nmemory = 8M\nkernel = {kernel}\nstart = auto\n"
        for name in ("late", "absent"):
            conf += (f"[vm {name}]\nmemory = 8M\nkernel = {kernel}\nstart = auto\n"
                     f"disk = /ClusterStorage/{name.capitalize()}/{name}/disk.img\n")
        it.node = booted.get(cpu, "wrong-volumes", conf=conf, files={"tasuki/images/counter.elf": guest("counter")},
                             cards=[{"model": "e1000"}])
        it.units, it.late = units, late
        wait_up(it.node, "good")
        wait_for(it.node, "csv list", "volumes", "Good", "state", "mounted")
        yield it
        it.stranger.close()


def problem(node, command, key, name):
    return "".join(row["problem"] for row in node.shell_json(command)["problems"] if row[key] == name)


def wait_problem(node, command, key, name, words):
    deadline = time.monotonic() + 30 * node.patience
    while True:
        told = problem(node, command, key, name)
        if told and all(word in told for word in words):
            return told
        assert time.monotonic() < deadline, (name, words, told)
        time.sleep(0.5)


def logged(node):
    """The log, without the line breaks that the terminal's width makes."""
    return re.sub(r"\s+", " ", node.shell("log show"))


@pytest.mark.parametrize("name", BESIDE)
def test_a_volume_that_cannot_be_mounted(wrong, name):
    node, words = wrong.node, UNITS[name][1]
    wait_problem(node, "csv list", "volume", name, words)
    assert find(node.shell_json("csv list")["volumes"], "volume", name)["state"] == "not mounted"
    log = logged(node)
    assert re.search(rf"error volume {name}: [^\[]*{words[0]}", log), log
    for command in (f"ls /ClusterStorage/{name}", f"csv mount {name}"):
        with pytest.raises(ShellError) as caught:
            node.shell_json(command, timeout=60)
        error = caught.value.error
        for word in words:
            assert word in f"{error['object']}: {error['cause']}; {error['cure']}", (command, error)


def test_a_unit_that_a_stranger_has_reserved(wrong):
    """It is not mounted, and it is when the stranger has let it go."""
    node = wrong.node
    wait_problem(node, "csv list", "volume", "Reserved", UNITS["Reserved"][1])
    assert find(node.shell_json("csv list")["volumes"], "volume", "Reserved")["state"] != "mounted"
    assert wrong.units.sums()["Reserved"] == wrong.before["Reserved"], "something was written to it"
    wrong.stranger.release(KEY)
    wait_up(node, "reserved")
    wait_for(node, "csv list", "volumes", "Reserved", "state", "mounted")


@pytest.mark.parametrize("cpu", ["amd"], indirect=True)  # some two hundred commands
def test_a_volume_without_space(wrong):
    """What needs space is refused, with the volume's name; what is there stays, and what gives space back works."""
    node = wrong.node
    wait_for(node, "csv list", "volumes", "Full", "state", "mounted")
    with pytest.raises(ShellError) as caught:
        for number in range(400):
            node.shell_json(f"mkdir /ClusterStorage/Full/{number}")
    error = caught.value.error
    assert "Full" in error["object"] and "full" in error["cause"] and error["cure"], error
    node.shell_json("rm /ClusterStorage/Full/rest", timeout=60)
    node.shell_json("mkdir /ClusterStorage/Full/again")
    assert node.shell_json("csv scrub Full", timeout=120)["problems"] == 0


def test_a_target_that_is_not_there_at_boot(wrong):
    node = wrong.node
    wait_problem(node, "iscsi list", "storage", "absent", ("10.0.2.99", "nobody answers", "check"))
    wait_problem(node, "iscsi list", "storage", "late", ("nothing listens",))
    for name in ("Late", "Absent"):
        assert find(node.shell_json("csv list")["volumes"], "volume", name)["state"] == "waits for its disk"
    assert node.state("late") == "stopped"
    with pytest.raises(ShellError) as caught:
        node.shell_json("vm start late")
    assert "nothing listens" in caught.value.error["cause"], caught.value.error
    with pytest.raises(ShellError) as caught:
        node.shell_json("ls /ClusterStorage/Late")
    assert "not mounted" in caught.value.error["cause"] and "nothing listens" in caught.value.error["cause"], caught.value.error
    wrong.late.start()
    wait_for(node, "csv list", "volumes", "Late", "state", "mounted")
    node.wait_state("late", "running")
    deadline = time.monotonic() + 30 * node.patience
    while "warning vm absent: it waits for a disk, and starts when that is there" not in logged(node):
        assert time.monotonic() < deadline
    node.console("late", r"count 2\r\n")


def test_nothing_else_has_stopped(wrong):
    """After all of that: the good volume works, the VM without a disk counts, the shell answers, and what was wrong is as it
    was, to the byte."""
    node = wrong.node
    node.shell_json("mkdir /ClusterStorage/Good/new")
    assert [entry["name"] for entry in node.shell_json("ls /ClusterStorage/Good")["entries"]] == ["new"]
    assert node.shell_json("csv scrub Good", timeout=120)["problems"] == 0
    before = int(node.console("counter", r"count (\d+)\r\n(?!.*count)")[1])
    node.console("counter", rf"count {before + 5}\r\n")
    assert node.shell_json("vm show counter")["resets"] == 0
    now = wrong.units.sums()
    assert {name: now[name] for name in BESIDE} == {name: wrong.before[name] for name in BESIDE}, "something was written"
