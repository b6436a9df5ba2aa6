# SPDX-License-Identifier: MIT
"""Who may write: reservations and fencing, on real targets. A node whose volume is mounted and the host's tool keep each other
out by name; a node that another one has fenced while it was away discards what it had queued, and says so; what a reservation
needs is tried on the unit itself, where tgt fails for its reasons and LIO passes."""
import json
import os
import subprocess
import threading
import time

import pytest
from disk_writer import FILES, GUEST, start_writer, wait_vm, wait_written
from initiator import Initiator
from lio import SOON, LioTarget
from node import BUILD, Linux, Node, ShellError
from target import INITIATOR, NETWORK, Relay, Target, find, wait_for, wait_paths, wait_up

ROOT = "/ClusterStorage/Volume1"
STRANGER = 0xbad0bad0bad0bad1
TOOL = os.path.join(os.path.abspath(BUILD), "tasuki-csv")


def tool(where, command, *arguments, status=0):
    """What the tool prints, errors included."""
    result = subprocess.run([TOOL, command, where, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                            timeout=120)
    assert result.returncode == status, (command, result.returncode, result.stdout)
    return result.stdout


def url(target):
    return f"iscsi://127.0.0.1:{target.port}/{target.name}/1"


def refusal(node, command):
    try:
        return pytest.fail(f"{command}: {node.shell_json(command)}")
    except ShellError as error:
        return error.error


def disk(node, name="san"):
    return find(node.shell_json("disk list")["disks"], "disk", name)


def keys(node, name="san"):
    return {row["key"]: row["of"] for row in node.shell_json("disk list")["keys"] if row["disk"] == name}


def wait_problem(node, command, *words):
    deadline = time.monotonic() + 60 * node.patience
    while True:
        told = json.dumps(node.shell_json(command)["problems"])
        if all(word in told for word in words):
            return told
        assert time.monotonic() < deadline, (words, told)
        time.sleep(0.3)


def answers(node, command="disk validate san"):
    shown = node.shell_json(command, timeout=60)
    return shown, {row["check"]: row["result"] for row in shown["checks"]}


def take_turns(node, ways):
    """Two portals of one portal group: the second one was tried, has no session of its own, and is the next when the first is lost."""
    assert wait_for(node, "iscsi list", "sessions", "san", "logins", lambda logins: logins >= 2)["state"] == "up"
    deadline = time.monotonic() + 60 * node.patience
    while True:
        rows = {row["state"]: row["portal"] for row in node.shell_json("disk list")["paths"]}
        if set(rows) == {"in use", "takes turns"}:
            break
        assert time.monotonic() < deadline, rows
        time.sleep(0.3)
    next(way for way in ways if rows["in use"].endswith(f":{way.port}")).set("cut")
    wait_for(node, "iscsi list", "sessions", "san", "portal", rows["takes turns"])
    wait_up(node)


def test_one_writer(cpu):
    """A disk that an admin reserves, then a volume's reservation, on one node: who else comes is refused by name."""
    with Target(size=64 << 20) as target, Target(size=96 << 20, name="iqn.2026-11.example:vol") as other:
        other.kill()
        tool(other.disk, "mkfs", "--force")
        other.start()
        conf = NETWORK + target.configuration("san") + other.configuration("vol", volume="Volume1")
        with Node(cpu, "fence", conf=conf, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            before = open(target.disk, "rb").read()
            shown, found = answers(node)
            assert not shown["fit_for_fencing"] and shown["problem"] is None
            wrong = {check for check, result in found.items() if result == "no"}
            assert wrong == {"a WRITE SAME without a key is refused", "key and reservation outlive a reconnect",
                             "the target can keep them over its loss of power"}, found
            assert open(target.disk, "rb").read() == before, "the validation has changed the disk"

            assert disk(node)["reservation"] == "none" and not keys(node)
            node.shell("disk reserve san")
            assert disk(node)["reservation"] == "ours" and list(keys(node).values()) == ["this node"]
            stranger = Initiator(target.port, target.name)
            assert stranger.write(0, bytes(512)) == 0x18, "a stranger writes to a reserved disk"
            node.shell("disk release san")
            assert disk(node)["reservation"] == "none" and not keys(node)
            stranger.reserve(STRANGER)
            assert disk(node)["reservation"] == f"reserved by key {STRANGER:#x}, write exclusive"
            assert keys(node) == {f"{STRANGER:#x}": "a stranger"}
            error = refusal(node, "disk reserve san")
            assert f"{STRANGER:#x}" in error["cause"] and "write exclusive" in error["cause"], error
            assert "registered" in answers(node)[0]["problem"]
            assert "1 strangers" in node.shell_json("disk preempt san")["message"]
            assert disk(node)["reservation"] == "ours"
            assert stranger.write(0, bytes(512)) == 0x18
            stranger.close()

            wait_for(node, "csv list", "volumes", "Volume1", "state", "mounted")
            assert disk(node, "vol")["reservation"] == "ours"
            [ours] = keys(node, "vol")
            assert "Volume1 needs the reservation" in refusal(node, "disk release vol")["cause"]
            for command in (("mkdir", "/d"), ("ls", "/"), ("mkfs", "--force")):
                said = tool(url(other), *command, status=1)
                assert "reserved by another host" in said and ours in said and "Write Exclusive" in said, said
            node.shell(f"mkdir {ROOT}/ours")
            node.machine.sendline("node poweroff")
            node.machine.wait(60 * node.patience)
        assert "ours" in tool(url(other), "ls", "/"), "the reservation was not given back"


def test_the_tool_has_it():
    """The host's tool writes to the volume: the node names its key, and mounts when it has ended, or takes over when told."""
    with Target(size=96 << 20) as target:
        target.kill()
        tool(target.disk, "mkfs", "--force")
        target.start()
        put = subprocess.Popen([TOOL, "put", url(target), "-", "/held"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        put.stdin.write(b"x" * (5 << 20))
        put.stdin.flush()
        with Node("amd", "fence-tool", conf=NETWORK + target.configuration("san", volume="Volume1"), cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            told = wait_problem(node, "csv list", "reserved by a stranger, key 0x", "write exclusive", "--take-over")
            assert find(node.shell_json("csv list")["volumes"], "volume", "Volume1")["state"] != "mounted"
            [theirs] = keys(node)
            assert theirs in told and theirs in refusal(node, "csv mount Volume1")["cause"]
            put.kill()
            put.wait()
            assert theirs in refusal(node, "csv mount Volume1")["cause"], "a killed tool's reservation is not there any more"
            node.shell("csv mount Volume1 --take-over")
            assert disk(node)["reservation"] == "ours" and theirs not in keys(node)
            node.shell(f"mkdir {ROOT}/d")
            node.machine.sendline("node poweroff")
            node.machine.wait(60)
        assert "d" in tool(url(target), "ls", "/").split()


def test_a_node_that_was_fenced_and_healed():
    """Cut off while its guest writes, and the volume taken over and changed meanwhile: nothing that the node had queued lands."""
    with Target(size=128 << 20) as target:
        target.kill()
        tool(target.disk, "mkfs", "--force")
        image = os.path.join(target.directory, "image")
        with open(image, "wb") as file:
            file.write(os.urandom(48 << 20))
        tool(target.disk, "put", image, "/disk0.img")
        target.start()
        way = Relay(target.port)
        conf = NETWORK + target.configuration("san", volume="Volume1", portal=f"10.0.2.2:{way.port}", timeout=5)
        conf += GUEST.format(name="demo", start="auto").replace("storage:san", f"{ROOT}/disk0.img")
        with Node("amd", "fence-healed", conf=conf, files=FILES, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            wait_vm(node, "running")
            node.console("demo", r"# ", timeout=120)
            linux = Linux(node, "demo")
            start_writer(node, linux)
            wait_written(linux, 8)
            way.set("cut")
            wait_vm(node, "paused")
            tool(url(target), "mkdir", "/theirs", "--take-over")
            tool(url(target), "rm", "/disk0.img")
            tool(url(target), "put", image, "/theirs/disk0.img")
            target_holds = open(target.disk, "rb").read()
            way.set("good")
            told = wait_problem(node, "iscsi list", "fenced: ", "requests are discarded")
            assert "epoch" in told or "not registered any more" in told
            time.sleep(3)
            shown = node.shell_json("vm show demo")
            assert shown["state"] == "paused" and "fenced" in shown["reason"], shown
            assert "fenced" in json.dumps(refusal(node, "vm resume demo"))
            assert "fenced: " in node.shell("log show")
            assert open(target.disk, "rb").read() == target_holds, "a stale write has landed"
            node.shell("vm stop demo --hard", timeout=60)
            wait_problem(node, "csv list", "fenced")
            node.shell("csv mount Volume1", timeout=60)
            assert {row["name"] for row in node.shell_json(f"ls {ROOT}")["entries"]} == {"theirs"}
            node.machine.sendline("node poweroff")
            node.machine.wait(60)
        way.close()
        target.kill()
        assert ": sound" in tool(target.disk, "fsck")


def test_a_fit_target(tmp_path):
    """LIO passes the validation, by another initiator name and not by its own; and who holds it is told by name. Two portals of
    one portal group take turns."""
    with LioTarget(size=96 << 20, log=str(tmp_path / "lio.log")) as target:
        ways = [Relay(target.port), Relay(target.port)]
        conf = NETWORK + target.configuration("san", portal=[f"10.0.2.2:{way.port}" for way in ways])
        with Node("amd", "fence-lio", conf=conf, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            shown, found = answers(node)
            assert shown["fit_for_fencing"] and set(found.values()) == {"yes"}, shown
            assert not keys(node) and disk(node)["reservation"] == "none"
            assert not any(open(target.disk, "rb").read()), "the validation has changed the disk"
            _, found = answers(node, f"disk validate san --initiator {INITIATOR}")
            assert found["a write without a key is refused"] == "no", "LIO tells sessions of one initiator apart now"
            node.shell("disk reserve san")
            [held] = [row for row in node.shell_json("disk list")["keys"] if row["disk"] == "san"]
            assert held["holds"] and held["initiator"].startswith(f"{INITIATOR},i,0x80")
            take_turns(node, ways)
            assert keys(node) == {held["key"]: "this node"} and disk(node)["reservation"] == "ours"
            error = tool(url(target), "mkfs", status=1)
            assert held["key"] in error and "Registrants Only" in error, error
        for way in ways:
            way.close()


def test_a_dead_way_that_held_a_write_back(tmp_path):
    """A volume on LIO, and a path by each of two portal groups: the one in use dies in the midst of a write and holds it back, the
    node goes on by the other one, which stood by with its key and logs in no more; what was held does not land when it is let go."""
    with LioTarget(size=96 << 20, groups=2, acl=SOON, log=str(tmp_path / "lio.log")) as target:
        tool(url(target), "mkfs")
        ways = [Relay(port) for port in target.ports]
        conf = NETWORK + target.configuration("san", volume="Volume1", portal=[f"10.0.2.2:{way.port}" for way in ways])
        with Node("amd", "fence-ways", conf=conf, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            wait_for(node, "csv list", "volumes", "Volume1", "state", "mounted")
            before = wait_paths(node)
            first, second = ways if before["in use"]["portal"].endswith(f":{ways[0].port}") else ways[::-1]
            assert list(keys(node).values()) == ["this node"] * 2 and disk(node)["reservation"] == "ours"
            node.shell(f"mkdir {ROOT}/first")
            time.sleep(6)  # it is committed, and what the next ones need has been read
            holding = threading.Thread(target=first.hold, args=(2000, 1000))
            holding.start()
            for name in ("a", "b", "c"):
                node.shell(f"mkdir {ROOT}/{name}", timeout=90)
            holding.join()
            wait_for(node, "iscsi list", "sessions", "san", "portal", f"10.0.2.2:{second.port}")
            wait_up(node)
            after = wait_paths(node)
            assert after["in use"]["portal"] == before["stands by"]["portal"]
            assert after["in use"]["logins"] == before["stands by"]["logins"], "the path that stood by has logged in again"
            assert after["stands by"]["logins"] > before["in use"]["logins"]
            assert disk(node)["reservation"] == "ours"
            node.shell(f"rm {ROOT}/a")
            time.sleep(6)  # what has changed is committed after 5 s
            with open(target.disk, "rb") as file:
                holds = file.read()
            held, sent = first.release()
            assert held >= 1000
            node.shell(f"ls {ROOT}")
            time.sleep(2)
            with open(target.disk, "rb") as file:
                assert file.read() == holds, f"a write of the dead way has landed ({sent} of {held} bytes)"
            node.machine.sendline("node poweroff")
            node.machine.wait(60)
        tool(url(target), "mkdir", "/later")  # no key is left that would keep others out
        for way in ways:
            way.close()
        target.kill()
        assert ": sound" in tool(target.disk, "fsck")
        assert {entry["name"] for entry in json.loads(tool(target.disk, "ls", "--json", "/"))} == {"first", "b", "c", "later"}
