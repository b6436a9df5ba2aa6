# SPDX-License-Identifier: MIT
"""A node on targets other than tgt, which the other tests have: LIO in a small machine, and istgt. It logs in to them with and
without secrets and digests, has a volume on each, and keeps it while both are killed and started again and while a way to one
of its portal groups is cut."""
import hashlib
import json
import os
import subprocess

import pytest
from disk_writer import FILES, SIZES, end_writer, start_writer, wait_written, written
from istgt import IstgtTarget
from lio import SOON, LioTarget
from node import BUILD, Linux, ShellError
from target import NETWORK, Relay, find, wait_for, wait_paths, wait_up

LEVELS = {"none": 0, "one": 1, "both": 2}
WORDS = {"none": "none", "one": "one way", "both": "both ways"}
BASE = "iqn.2026-11.example:"
WITH_GUEST = ["amd", "intel"] if os.environ.get("TASUKI_SLOW") else ["amd"]
GUEST = """
[vm demo]
memory = 192M
kernel = \\tasuki\\images\\vmlinuz
initrd = \\tasuki\\images\\initrd.img
cmdline = console=ttyS0
disk = /ClusterStorage/Lio/disk
disk = /ClusterStorage/Istgt/disk
"""


def tool(target, command, *arguments):
    result = subprocess.run([os.path.join(os.path.abspath(BUILD), "tasuki-csv"), command, target.disk, *map(str, arguments)],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, (command, result.stdout, result.stderr)
    return result.stdout


class Place:
    """The targets, two ways to LIO and one to istgt, and what the volumes hold at first. LIO has a write cache, which a power cut
    takes."""
    guest_wrote = None  # md5 of the beginning of the guest's disks

    def __init__(self, folder):
        self.content = os.urandom(200_000)
        (folder / "content").write_bytes(self.content)
        (folder / "disk").write_bytes(os.urandom(16 << 20))
        self.lio = LioTarget(size=96 << 20, name=BASE + "lio", groups=2, levels=LEVELS, luns=(1, 2, 3), cache=True, acl=SOON,
                             initiators=[BASE + level for level in LEVELS], log=str(folder / "lio.log"))
        self.istgt = {level: IstgtTarget(size=96 << 20, name=BASE + "istgt-" + level, chap=chap)
                      for level, chap in LEVELS.items()}
        self.volumes = {"Lio": self.lio, "Istgt": self.istgt["both"]}
        self.targets = [self.lio, *self.istgt.values()]
        try:
            for target in self.volumes.values():
                tool(target, "mkfs", "--force")
                for name in ("content", "disk"):
                    tool(target, "put", folder / name, "/" + name)
            for target in self.targets:
                target.start()
            self.ways = [Relay(port) for port in self.lio.ports]
            self.way = Relay(self.istgt["both"].port)
        except BaseException:
            self.close()
            raise

    def configuration(self):
        lines = [NETWORK]
        for level, chap in LEVELS.items():
            volume = {"volume": "Lio", "portal": [f"10.0.2.2:{way.port}" for way in self.ways]} if chap == 2 else {}
            self.lio.chap = chap
            lines.append(self.lio.configuration("lio-" + level, initiator=BASE + level, lun=1 + chap, **volume))
            volume = {"volume": "Istgt", "portal": f"10.0.2.2:{self.way.port}"} if chap == 2 else {}
            lines.append(self.istgt[level].configuration("istgt-" + level, **volume))
        self.lio.chap = 0
        return "\n".join(lines)

    def restart(self, target):
        target.kill()
        target.start()

    def way_of(self, session):
        return next(way for way in [*self.ways, self.way] if session["portal"].endswith(f":{way.port}"))

    def close(self):
        for one in [*getattr(self, "ways", []), *([self.way] if hasattr(self, "way") else []), *self.targets]:
            one.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("targets"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def node(booted, cpu, place):
    guest = {"conf": place.configuration() + GUEST, "files": FILES} if cpu in WITH_GUEST else {"conf": place.configuration()}
    return booted.get(cpu, "targets", **guest, cards=[{"model": "e1000"}])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["lio", "istgt"])
def test_a_login(node, kind, level):
    session = wait_up(node, f"{kind}-{level}", timeout=90)
    assert session["chap"] == WORDS[level]
    assert session["digests"] == "header, data"
    disk = find(node.shell_json("disk list")["disks"], "disk", f"{kind}-{level}")
    assert disk["path"] == "up" and disk["size_bytes"] == 96 << 20 and disk["block"] == 512
    assert disk["model"].startswith({"lio": "LIO-ORG", "istgt": "ISTGT"}[kind])


def discover(node, port, *options):
    return node.shell_json(" ".join([f"iscsi discover 10.0.2.2:{port}", *options]), timeout=60)


def test_discovery(node, place):
    """Each target and its portals, LIO's of two groups, by any initiator and as a storage that has secrets."""
    wait_up(node, "lio-none", timeout=90)
    shown = discover(node, place.lio.ports[0])
    assert shown["initiator"] == "iqn.2026-11.tasuki:node" and not shown["notices"]
    assert [(row["target"], row["portal"], row["group"]) for row in shown["portals"]] == [
        (place.lio.name, "10.0.2.15:3260", group) for group in (1, 2)]  # LIO tells where it was asked, for all that listen everywhere
    for level, target in place.istgt.items():
        shown = discover(node, target.port, f"--storage istgt-{level}")
        assert shown["initiator"] == "iqn.2026-11.example:alpha" and not shown["notices"]
        [row] = shown["portals"]
        assert (row["target"], row["portal"], row["group"]) == (target.name, f"127.0.0.1:{target.port}", 1)
    with pytest.raises(ShellError) as caught:
        discover(node, place.istgt["one"].port)
    error = caught.value.error
    assert "authenti" in error["cause"].lower() and "--storage" in error["cure"]
    assert error["object"] == f"portal 10.0.2.2:{place.istgt['one'].port}"


def test_istgt_validated(node, place):
    """What it keeps of the rules and what not; nothing is left of it, on the disk and of the keys."""
    wait_up(node, "istgt-none", timeout=90)
    shown = node.shell_json("disk validate istgt-none", timeout=60)
    found = {row["check"]: row["result"] for row in shown["checks"]}
    wrong = {"key and reservation outlive a reconnect", "the target can keep them over its loss of power"}
    assert {check for check, result in found.items() if result == "no"} == wrong, shown
    assert {check for check, result in found.items() if result == "not there"} == {"an UNMAP without a key is refused"}
    assert not shown["fit_for_fencing"] and shown["problem"] is None
    assert not [row for row in node.shell_json("disk list")["keys"] if row["disk"] == "istgt-none"]
    with open(place.istgt["none"].disk, "rb") as file:
        assert not any(file.read()), "the validation has changed the disk"


@pytest.fixture(scope="module")
def guest(node, cpu, place):
    if cpu not in WITH_GUEST:
        pytest.skip("the guest is on QEMU's node; on Bochs' too where TASUKI_SLOW is set")
    for volume in place.volumes:
        wait_for(node, "csv list", "volumes", volume, "state", "mounted", timeout=90)
    node.shell_json("vm start demo", timeout=60)
    node.console("demo", r"# ", timeout=120)
    return Linux(node, "demo")


def copies(node, name):
    """Another copy of the file on each volume."""
    for volume in ("Lio", "Istgt"):
        node.shell_json(f"cp /ClusterStorage/{volume}/content /ClusterStorage/{volume}/{name}", timeout=120)


def test_a_guest_writes(node, place, guest):
    """It has a disk on each volume, and writes to both while the targets are killed and started and their ways are cut: LIO loses
    its cache, istgt its reservations, the guest nothing."""
    disks = ("vda", "vdb")
    start_writer(node, guest, disks=disks)
    wait_written(guest, 4)
    for target in place.volumes.values():
        place.restart(target)
        wait_written(guest, written(guest) + 6, timeout=90)
    for storage in ("lio-both", "istgt-both"):
        session = wait_up(node, storage)
        way = place.way_of(session)
        way.set("cut")
        if storage == "lio-both":  # the other path goes on, so soon that it is hardly seen to be anything but up
            wait_for(node, "iscsi list", "sessions", storage, "portal", lambda shown: shown != session["portal"])
        else:
            wait_for(node, "iscsi list", "sessions", storage, "state", lambda state: state != "up")
        way.set("good")
        wait_written(guest, written(guest) + 6, timeout=90)
    assert node.state("demo") == "running"
    expected, *read = end_writer(node, guest, disks=disks)
    assert read == [expected] * 2
    assert guest.run("dmesg | grep -ci 'i/o error'").split()[0] == "0"
    requests = node.shell_json("disk list")["requests"]
    for storage in ("lio-both", "istgt-both"):
        assert find(requests, "disk", storage)["errors"] == 0
    place.guest_wrote = expected


def test_volumes_over_restarts_and_cuts(node, place, tmp_path):
    for volume in place.volumes:
        wait_for(node, "csv list", "volumes", volume, "state", "mounted", timeout=90)
    copies(node, "first")
    for target in place.volumes.values():
        place.restart(target)
    for storage in ("lio-both", "istgt-both"):
        wait_up(node, storage, timeout=90)
    copies(node, "second")
    before = wait_paths(node, "lio-both", timeout=90)
    way = place.way_of(before["in use"])
    way.set("cut")
    wait_for(node, "iscsi list", "sessions", "lio-both", "portal", before["stands by"]["portal"], timeout=90)
    wait_up(node, "lio-both", timeout=90)
    copies(node, "third")
    way.set("good")
    after = wait_paths(node, "lio-both", timeout=90)
    assert after["in use"]["portal"] == before["stands by"]["portal"]
    assert after["in use"]["logins"] == before["stands by"]["logins"], "the path that stood by has logged in again"
    assert after["stands by"]["logins"] == before["in use"]["logins"] + 1
    for volume in place.volumes:
        assert node.shell_json(f"csv scrub {volume}", timeout=120)["problems"] == 0
    node.machine.sendline("node poweroff")
    node.machine.wait(60 * node.patience)
    for target in place.volumes.values():
        target.kill()
        assert "0 transactions in the journal: sound" in tool(target, "fsck"), "it was not left in order"
        assert {entry["name"] for entry in json.loads(tool(target, "ls", "--json", "/"))} >= {"first", "second", "third"}
        for name in ("first", "second", "third"):
            tool(target, "get", "/" + name, tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == place.content
            tool(target, "rm", "/" + name)
        if place.guest_wrote:
            tool(target, "get", "/disk", tmp_path / "back")
            block, blocks = SIZES[node.cpu]
            assert hashlib.md5((tmp_path / "back").read_bytes()[:block * blocks]).hexdigest() == place.guest_wrote
        target.start()  # for the other vendor's node
    place.guest_wrote = None
