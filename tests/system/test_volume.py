# SPDX-License-Identifier: MIT
"""A volume on a real target's unit: a node mounts it, shows and changes what is on it, keeps it over the target's restart,
and leaves it in order; a host's tool makes it before and checks it afterwards."""
import json
import os
import subprocess

import pytest
from node import BUILD, Node, ShellError
from target import NETWORK, Target, find, wait_for, wait_up

ROOT = "/ClusterStorage/Volume1"


def tool(target, command, *arguments, status=0):
    result = subprocess.run([os.path.join(os.path.abspath(BUILD), "tasuki-csv"), command, target.disk, *map(str, arguments)],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == status, (command, result.returncode, result.stdout, result.stderr)
    return result.stdout


def names(node, path):
    return {entry["name"]: entry for entry in node.shell_json(f"ls {path}")["entries"]}


def refusal(node, command):
    try:
        return pytest.fail(f"{command}: {node.shell_json(command)}")
    except ShellError as error:
        return error.error


def wait_mounted(node):
    return wait_for(node, "csv list", "volumes", "Volume1", "state", "mounted")


def test_a_node_and_its_volume(cpu, tmp_path):
    content = os.urandom(300_000)
    (tmp_path / "content").write_bytes(content)
    with Target(size=96 << 20) as target:
        target.kill()
        tool(target, "mkfs", "--force", "--label", "first")
        tool(target, "mkdir", "/demo")
        tool(target, "put", tmp_path / "content", "/demo/content")
        target.start()
        conf = NETWORK + target.configuration("san", volume="Volume1") + target.configuration("bare", lun=9, volume="Volume2")
        with Node(cpu, "volume", conf=conf, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            wait_mounted(node)
            shown = node.shell_json("csv show Volume1")
            assert shown["label"] == "first" and shown["size_bytes"] == 96 << 20 and not shown["read_only"]
            assert find(node.shell_json("disk list")["disks"], "disk", "san")["vm"] == "Volume1"
            assert find(node.shell_json("csv list")["volumes"], "volume", "Volume2")["state"] == "waits for its disk"
            assert names(node, ROOT).keys() == {"demo"}
            entry = names(node, f"{ROOT}/demo")["content"]
            assert entry["type"] == "file" and entry["size_bytes"] == len(content)

            node.shell(f"mkdir {ROOT}/new")
            node.shell(f"cp {ROOT}/demo/content {ROOT}/new/copy")
            node.shell(f"mv {ROOT}/demo/content {ROOT}/moved")
            assert names(node, f"{ROOT}/demo") == {}
            assert names(node, f"{ROOT}/new")["copy"]["size_bytes"] == len(content)
            scrubbed = node.shell_json("csv scrub Volume1", timeout=120)
            assert scrubbed["problems"] == 0 and scrubbed["files"] == 2
            for command, words in ((f"ls {ROOT}/nobody", "no such file"), (f"rm {ROOT}/new", "not empty"),
                                   (f"mkdir {ROOT}/new", "already"), ("ls /ClusterStorage/Nowhere/x", "there is none"),
                                   ("ls /etc", "no path on a volume"), ("ls /ClusterStorage/Volume2", "not mounted")):
                error = refusal(node, command)
                assert words in error["cause"] and error["cure"], (command, error)

            target.kill()
            target.start()
            wait_up(node)
            node.shell(f"rm {ROOT}/moved", timeout=90)
            assert names(node, ROOT).keys() == {"demo", "new"}
            node.machine.sendline("node poweroff")
            node.machine.wait(60 * node.patience)
        target.kill()
        assert "0 transactions in the journal: sound" in tool(target, "fsck"), "it was not left in order"
        assert {entry["name"] for entry in json.loads(tool(target, "ls", "--json", "/"))} == {"demo", "new"}
        tool(target, "get", "/new/copy", tmp_path / "back")
        assert (tmp_path / "back").read_bytes() == content
