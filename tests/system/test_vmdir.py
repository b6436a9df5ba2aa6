# SPDX-License-Identifier: MIT
"""VMs that are directories on a volume: found when it is mounted, changed and made by the shell, saved and restored over a power
cycle of the node; one that is another node's does not start; a saved state that is damaged is refused, and nothing is lost."""
import os
import subprocess
import time

import pytest
from node import BUILD, Node, ShellError, guest
from target import NETWORK, Target, wait_for, wait_up

ROOT = "/ClusterStorage/Volume1"
CONF = "# made by hand\n[vm {name}]\nmemory = 16M\nkernel = kernel.elf\n{more}"
LINE = rb"count (\d+)\r\n"


def tool(target, command, *arguments, status=0):
    result = subprocess.run([os.path.join(os.path.abspath(BUILD), "tasuki-csv"), command, target.disk, *map(str, arguments)],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == status, (command, result.returncode, result.stdout, result.stderr)
    return result.stdout


class Volume:
    """A volume on a target, which a node has or the host's tool, in turn."""

    def __init__(self, target, folder):
        self.target, self.folder = target, folder
        target.kill()
        self.tool("mkfs", "--force")

    def tool(self, command, *arguments, status=0):
        return tool(self.target, command, *arguments, status=status)

    def put(self, path, content):
        file = self.folder / "file"
        file.write_bytes(content)
        self.tool("put", file, path)

    def get(self, path):
        file = self.folder / "got"
        file.unlink(missing_ok=True)
        self.tool("get", path, file)
        return file.read_bytes()

    def vm(self, name, kernel, more=""):
        self.tool("mkdir", f"/{name}")
        self.tool("put", guest(kernel), f"/{name}/kernel.elf")
        self.put(f"/{name}/vm.conf", CONF.format(name=name, more=more).encode())

    def node(self, cpu, name, node="node", more=""):
        """Boots one that mounts it."""
        self.target.start()
        conf = NETWORK.replace("name = node", f"name = {node}") + self.target.configuration("san", volume="Volume1") + more
        booted = Node(cpu, name, conf=conf, cards=[{"model": "e1000"}], memory=512)
        try:
            wait_up(booted)
            wait_for(booted, "csv list", "volumes", "Volume1", "state", "mounted")
        except BaseException:
            booted.close()
            raise
        return booted

    def off(self, node):
        """The node in order, then the target."""
        node.machine.sendline("node poweroff")
        node.machine.wait(60 * node.patience)
        self.target.kill()


@pytest.fixture
def volume(tmp_path):
    with Target(size=96 << 20) as target:
        yield Volume(target, tmp_path)


def vms(node):
    return {vm["name"]: vm for vm in node.shell_json("vm list")["vms"]}


def wait_vm(node, name, state):
    deadline = time.monotonic() + 60 * node.patience
    while True:
        found = vms(node).get(name)
        if found and found["state"] == state:
            return found
        assert time.monotonic() < deadline, node.shell("vm list")
        time.sleep(0.3)


def refused(node, command, *words):
    with pytest.raises(ShellError) as failure:
        node.shell_json(command, timeout=120)
    error = failure.value.error
    assert error["cure"], error
    for word in words:
        assert word in " ".join((error["object"], error["cause"], error["cure"])), error


def counted(node, vm, beyond=0):
    """The guest counts on: a number that is higher; and it found nothing wrong."""
    node.attach(vm)
    last = beyond
    while last <= beyond:
        last = int(node.expect(LINE, timeout=60)[1])
    node.detach()
    assert b"fail " not in node.machine.output
    return last


def test_saved_over_a_power_cycle(cpu, volume):
    volume.vm("demo", "counter", "start = auto\n")
    with volume.node(cpu, "vmdir-save") as node:
        assert wait_vm(node, "demo", "running")["volume"] == "Volume1"
        first = node.shell_json("vm show demo")
        assert first["owner"] == "node" and first["directory"] == f"{ROOT}/demo" and not first["changed"]
        count = counted(node, "demo", 3)
        assert "on its volume" in node.shell_json("vm save demo", timeout=120)["message"]
        assert vms(node)["demo"]["state"] == "saved"
        assert node.shell_json("vm state demo", timeout=120)["good"]
        held = node.shell_json("memory show")["owners"]
        assert [owner["owner"] for owner in held] == ["hypervisor"], "its memory is still held"
        volume.off(node)
    state = volume.get("/demo/saved.state")
    assert "sound" in volume.tool("fsck")
    conf = volume.get("/demo/vm.conf").decode()
    assert conf.startswith("# made by hand\n[vm demo]\nmemory = 16M\n") and f"uuid = {first['uuid']}\nowner = node\n" in conf

    damaged = bytearray(state)
    damaged[len(state) // 2] ^= 1
    newer = state[:8] + (99).to_bytes(4, "little") + state[12:]
    if cpu == "amd":
        for content, words in ((state[:-1000], "cut"), (bytes(damaged), "checksum is wrong"), (newer, "header"), (b"", "cut")):
            volume.tool("rm", "/demo/saved.state")
            volume.put("/demo/saved.state", content)
            with volume.node(cpu, "vmdir-damaged") as node:
                wait_vm(node, "demo", "saved")
                refused(node, "vm restore demo", "vm demo", words, "state is kept")
                refused(node, "vm start demo", "its state is saved", "vm restore demo")
                assert vms(node)["demo"]["state"] == "saved"
                volume.off(node)
            assert volume.get("/demo/saved.state") == content
        volume.tool("rm", "/demo/saved.state")
        volume.put("/demo/saved.state", state)

    with volume.node(cpu, "vmdir-restore") as node:
        shown = wait_vm(node, "demo", "saved")
        assert node.shell_json("vm show demo")["uuid"] == first["uuid"]
        assert shown["volume"] == "Volume1"
        node.shell_json("vm restore demo", timeout=120)
        assert counted(node, "demo", count) > count, "it began anew"
        assert "saved.state" not in [entry["name"] for entry in node.shell_json(f"ls {ROOT}/demo")["entries"]]
        node.machine.kill()  # as by a power cut, and what was restored is not restored again
    volume.target.kill()
    with volume.node(cpu, "vmdir-again") as node:
        wait_vm(node, "demo", "running")
        volume.off(node)
