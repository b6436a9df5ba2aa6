# SPDX-License-Identifier: MIT
"""Storages: a node logs in to a real target (tgt, started here on the loopback, which emulators' user networks show as
10.0.2.2), with CHAP both ways and digests; what is wrong with a storage is said with its cause and its cure, and never with
a secret; the target is killed and started again, and the session comes back."""
import time

import pytest
from node import Node, ShellError
from target import NETWORK, OURS, THEIRS, Relay, Target, find, free_port, wait_for, wait_up

@pytest.fixture(scope="module")
def target():
    with Target(size=96 << 20, chap=2) as started:
        yield started


@pytest.fixture(scope="module")
def relays():
    """A second target, and two ways to it."""
    with Target(size=32 << 20, name="iqn.2026-11.example:ways") as other:
        ways = [Relay(other.port), Relay(other.port)]
        yield other, ways
        for way in ways:
            way.close()


@pytest.fixture(scope="module")
def node(booted, cpu, target, relays):
    """One storage that works, and one for each thing that may be wrong."""
    wrong = OURS[0] + " another-secret-of-ours"
    storages = [
        target.configuration("san"),
        target.configuration("stranger", target="iqn.2026-11.example:nobody"),
        target.configuration("missing", lun=7),
        target.configuration("secret", chap=wrong, lun=2),
        target.configuration("deaf", portal=[f"10.0.2.2:{free_port()}"], lun=3),
        target.configuration("impostor", lun=4, **{"chap-mutual": THEIRS[0] + " another-secret-of-theirs"}),
        relays[0].configuration("ways", timeout=30, portal=[f"10.0.2.2:{way.port}" for way in relays[1]]),
        target.configuration("open", lun=5).replace(f"chap = {' '.join(OURS)}\n", "").replace(
            f"chap-mutual = {' '.join(THEIRS)}\n", ""),
    ]
    return booted.get(cpu, "iscsi", conf=NETWORK + "\n".join(storages), cards=[{"model": "e1000"}])


def test_a_login_with_both_secrets_and_digests(node):
    session = wait_up(node)
    assert session["chap"] == "both ways" and session["digests"] == "header, data"
    assert session["portal"].startswith("10.0.2.2:") and session["up_ns"] > 0
    disk = find(node.shell_json("disk list")["disks"], "disk", "san")
    assert disk == {"disk": "san", "path": "up", "size_bytes": 96 << 20, "block": 512, "model": "IET VIRTUAL-DISK",
                    "reservation": "none", "vm": None}


@pytest.mark.parametrize("name, words", [
    ("stranger", ["iqn.2026-11.example:nobody", "no target of that name"]),
    ("missing", ["logical unit", "lun"]),
    ("secret", ["authenti"]),
    ("impostor", ["answer is wrong", "mutual"]),
    ("deaf", ["refused", "nothing listens"]),
    ("open", ["authenti"]),
])
def test_what_is_wrong_is_said(node, name, words):
    wait_up(node)

    def told(_):
        problems = node.shell_json("iscsi list")["problems"]
        problem = "".join(row["problem"] for row in problems if row["storage"] == name).lower()
        return problem and all(word in problem for word in words)
    wait_for(node, "iscsi list", "sessions", name, "state", told)
    assert find(node.shell_json("disk list")["disks"], "disk", name)["path"] != "up"


def test_no_secret_is_shown(node):
    wait_up(node)
    shown = "".join(node.shell(command) for command in ("log show", "config show", "iscsi list", "disk list"))
    assert "secret-of" not in shown
    assert "secret-of" not in node.machine.output.decode(errors="replace")


def test_logout_and_login(node):
    wait_up(node)
    assert "logs out" in node.shell_json("iscsi logout san")["message"]
    wait_for(node, "iscsi list", "sessions", "san", "state", "logged out")
    with pytest.raises(ShellError) as caught:
        node.shell_json("iscsi logout san")
    assert "logged out already" in caught.value.error["cause"]
    node.shell_json("iscsi login san")
    wait_up(node)
    with pytest.raises(ShellError) as caught:
        node.shell_json("iscsi login san")
    assert "logged in already" in caught.value.error["cause"]
    with pytest.raises(ShellError) as caught:
        node.shell_json("iscsi login nas")
    assert caught.value.error["object"] == "storage nas" and "no such storage" in caught.value.error["cause"]


def test_discovery(node, target):
    """What is behind a portal; and a portal that is none, or where nobody is."""
    wait_up(node)
    shown = node.shell_json(f"iscsi discover 10.0.2.2:{target.port} --initiator iqn.2026-11.example:asks")
    assert shown == {"initiator": "iqn.2026-11.example:asks", "notices": [], "portals": [
        {"target": target.name, "portal": f"127.0.0.1:{target.port}", "group": 1}]}  # as it sees the way to itself
    assert wait_up(node)["state"] == "up"
    for command, words in ((f"iscsi discover 10.0.2.2:{free_port()}", ["portal 10.0.2.2:", "refused", "start the target"]),
                           ("iscsi discover san.example", ["san.example", "not a portal", "10.0.0.5:3260"]),
                           ("iscsi discover 10.0.2.2 --storage nas", ["storage nas", "no such storage", "iscsi list"]),
                           ("iscsi discover 10.0.2.2 --initiator me", ["initiator me", "not the name of one", "iqn."])):
        with pytest.raises(ShellError) as caught:
            node.shell_json(command, timeout=60)
        assert all(word in " ".join(map(str, caught.value.error.values())) for word in words), caught.value.error


def test_a_target_that_is_started_again(node, target):
    logins = wait_up(node)["logins"]
    target.kill()
    wait_for(node, "iscsi list", "sessions", "san", "state", lambda state: state != "up", timeout=30)
    target.start()
    session = wait_up(node)
    assert session["logins"] > logins and session["digests"] == "header, data"


def test_another_unit_is_not_taken_for_it(node, target):
    """A unit that has shrunk meanwhile: nothing is written to it, and it is taken again when it has its size back."""
    wait_up(node)
    target.kill()
    with open(target.disk, "r+b") as file:
        file.truncate(48 << 20)
    target.start()

    def told(_):
        problems = node.shell_json("iscsi list")["problems"]
        return any("nothing is written" in row["problem"] for row in problems if row["storage"] == "san")
    wait_for(node, "iscsi list", "sessions", "san", "state", told)
    target.kill()
    with open(target.disk, "r+b") as file:
        file.truncate(96 << 20)
    target.start()
    wait_up(node)


def portal(node, way):
    return lambda shown: shown == f"10.0.2.2:{way.port}"


def test_portals_take_turns(node, relays):
    """One way is cut, and the session comes back on the other; that one stalls, which the node finds out by itself."""
    one, other = relays[1]
    wait_up(node, "ways")
    used = find(node.shell_json("iscsi list")["sessions"], "storage", "ways")["portal"]
    first, second = (one, other) if used.endswith(str(one.port)) else (other, one)
    first.set("cut")
    wait_for(node, "iscsi list", "sessions", "ways", "portal", portal(node, second))
    wait_up(node, "ways")
    first.set("good")
    second.set("stalled")
    wait_for(node, "iscsi list", "sessions", "ways", "portal", portal(node, first))
    wait_up(node, "ways")
    second.set("good")


def test_without_a_network():
    target = Target()
    with Node("amd", "iscsi-none", conf="[node]\nname = node\nlog = error\n" + target.configuration("san")) as node:
        shown = node.shell_json("iscsi list")
        assert shown["sessions"][0]["state"] == "does not work" and "no network" in shown["problems"][0]["problem"]
        with pytest.raises(ShellError) as caught:
            node.shell_json("iscsi login san")
        assert "no network" in caught.value.error["cause"]
    target.close()
