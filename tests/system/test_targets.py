# SPDX-License-Identifier: MIT
"""A node on targets other than tgt, which the other tests have: LIO in a small machine, and istgt. It logs in to them with and
without secrets and digests, has a volume on each, and keeps it while both are killed and started again and while a way to one
of its portal groups is cut."""
import json
import os
import subprocess

import pytest
from istgt import IstgtTarget
from lio import LioTarget
from node import BUILD
from target import NETWORK, Relay, find, wait_for, wait_up

LEVELS = {"none": 0, "one": 1, "both": 2}
WORDS = {"none": "none", "one": "one way", "both": "both ways"}
BASE = "iqn.2026-11.example:"


def tool(target, command, *arguments):
    result = subprocess.run([os.path.join(os.path.abspath(BUILD), "tasuki-csv"), command, target.disk, *map(str, arguments)],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, (command, result.stdout, result.stderr)
    return result.stdout


class Place:
    """The targets, two ways to LIO, and what the volumes hold at first."""

    def __init__(self, folder):
        self.content = os.urandom(200_000)
        (folder / "content").write_bytes(self.content)
        self.lio = LioTarget(size=96 << 20, name=BASE + "lio", groups=2, levels=LEVELS, luns=(1, 2, 3),
                             initiators=[BASE + level for level in LEVELS], log=str(folder / "lio.log"))
        self.istgt = {level: IstgtTarget(size=96 << 20, name=BASE + "istgt-" + level, chap=chap)
                      for level, chap in LEVELS.items()}
        self.volumes = {"Lio": self.lio, "Istgt": self.istgt["both"]}
        self.targets = [self.lio, *self.istgt.values()]
        try:
            for target in self.volumes.values():
                tool(target, "mkfs", "--force")
                tool(target, "put", folder / "content", "/content")
            for target in self.targets:
                target.start()
            self.ways = [Relay(port) for port in self.lio.ports]
        except BaseException:
            self.close()
            raise

    def configuration(self):
        lines = [NETWORK]
        for level, chap in LEVELS.items():
            volume = {"volume": "Lio", "portal": [f"10.0.2.2:{way.port}" for way in self.ways]} if chap == 2 else {}
            self.lio.chap = chap
            lines.append(self.lio.configuration("lio-" + level, initiator=BASE + level, lun=1 + chap, **volume))
            volume = {"volume": "Istgt"} if chap == 2 else {}
            lines.append(self.istgt[level].configuration("istgt-" + level, **volume))
        self.lio.chap = 0
        return "\n".join(lines)

    def close(self):
        for one in [*getattr(self, "ways", []), *self.targets]:
            one.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    made = Place(tmp_path_factory.mktemp("targets"))
    yield made
    made.close()


@pytest.fixture(scope="module")
def node(booted, cpu, place):
    return booted.get(cpu, "targets", conf=place.configuration(), cards=[{"model": "e1000"}])


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("kind", ["lio", "istgt"])
def test_a_login(node, kind, level):
    session = wait_up(node, f"{kind}-{level}", timeout=90)
    assert session["chap"] == WORDS[level]
    assert session["digests"] == "header, data"
    disk = find(node.shell_json("disk list")["disks"], "disk", f"{kind}-{level}")
    assert disk["path"] == "up" and disk["size_bytes"] == 96 << 20 and disk["block"] == 512
    assert disk["model"].startswith({"lio": "LIO-ORG", "istgt": "ISTGT"}[kind])


def copies(node, name):
    """Another copy of the file on each volume."""
    for volume in ("Lio", "Istgt"):
        node.shell_json(f"cp /ClusterStorage/{volume}/content /ClusterStorage/{volume}/{name}", timeout=120)


def test_volumes_over_restarts_and_cuts(node, place, tmp_path):
    for volume in place.volumes:
        wait_for(node, "csv list", "volumes", volume, "state", "mounted", timeout=90)
    copies(node, "first")
    for target in place.volumes.values():
        target.kill()
        target.start()
    for storage in ("lio-both", "istgt-both"):
        wait_up(node, storage, timeout=90)
    copies(node, "second")
    used = find(node.shell_json("iscsi list")["sessions"], "storage", "lio-both")["portal"]
    way = next(way for way in place.ways if used.endswith(f":{way.port}"))
    way.set("cut")
    wait_for(node, "iscsi list", "sessions", "lio-both", "portal", lambda shown: shown not in ("", used, None), timeout=90)
    wait_up(node, "lio-both", timeout=90)
    copies(node, "third")
    way.set("good")
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
        target.start()  # for the other vendor's node
