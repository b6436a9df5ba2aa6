# SPDX-License-Identifier: MIT
"""VMs that are directories on a volume: found when it is mounted, changed and made by the shell, saved and restored over a power
cycle of the node; one that is another node's does not start; a saved state that is damaged is refused, and nothing is lost."""
import json
import os
import re
import subprocess
import time

import pytest
from disk_writer import end_writer, start_writer, wait_written, written
from node import BUILD, INITRD, VMLINUZ, Linux, Node, ShellError, guest
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
    with Target(size=320 << 20) as target:
        yield Volume(target, tmp_path)


def vms(node):
    return {vm["name"]: vm for vm in node.shell_json("vm list")["vms"]}


def listed(node, path):
    return {entry["name"]: entry for entry in node.shell_json(f"ls {path}")["entries"]}


def wait_vm(node, name, state):
    """In this state, and its vm.conf was read: a VM is listed a moment before that."""
    deadline = time.monotonic() + 60 * node.patience
    while True:
        found = vms(node).get(name)
        if found and found["state"] == state and "was not read yet" not in found["reason"]:
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
    assert not re.search(rb"^fail ", node.machine.output, re.MULTILINE)
    return last


LINUX = (b"[vm linux]\nmemory = 160M\nkernel = vmlinuz\ninitrd = initrd.img\ncmdline = console=ttyS0\ndisk = disk0.img\n"
         b"start = auto\n")


def add_linux(volume):
    """A Debian guest, all of whose files are in its directory."""
    volume.tool("mkdir", "/linux")
    volume.tool("put", VMLINUZ, "/linux/vmlinuz")
    volume.tool("put", INITRD, "/linux/initrd.img")
    volume.put("/linux/disk0.img", bytes(16 << 20))
    volume.put("/linux/vm.conf", LINUX)


def save_linux(node):
    """In the midst of its writing to its disk; a snapshot of the disk before that."""
    wait_vm(node, "linux", "running")
    node.console("linux", r"# ", timeout=120)
    linux = Linux(node, "linux")
    start_writer(node, linux)
    wait_written(linux, 10)
    node.shell_json("vm disk snapshot linux disk0.img first")
    wait_written(linux, written(linux) + 20)
    node.shell_json("vm save linux", timeout=200)
    return linux


def restore_linux(node, linux):
    """
    It writes on, and finds on its disk what it has written, before it was saved and after. Its disk grows meanwhile, and it
    finds that too.
    """
    linux.node = node
    node.shell_json("vm restore linux", timeout=200)
    assert linux.run("cat /sys/block/vda/size").split()[0] == str((16 << 20) // 512)
    node.shell_json("vm disk grow linux disk0.img 24M")
    linux.run(f"until [ $(cat /sys/block/vda/size) = {(24 << 20) // 512} ]; do sleep 0.1; done")
    assert linux.run("dd if=/tmp/a of=/dev/vda bs=1M count=4 seek=20 conv=fsync 2>/dev/null && dd if=/dev/vda iflag=direct bs=1M "
                     "skip=20 count=4 2>/dev/null | cmp -n 4194304 - /tmp/a && echo 'sa'me").split()[-1] == "same"
    wait_written(linux, written(linux) + 60)
    expected, read = end_writer(node, linux)
    assert expected == read


def test_saved_over_a_power_cycle(cpu, volume):
    """With the small guest; on AMD with a Debian too, which writes to its disk."""
    volume.vm("demo", "counter", "start = auto\ndisk = disk0.img\n")
    volume.vm("cold", "counter", "disk = disk0.img\n")
    for name in ("demo", "cold"):
        volume.put(f"/{name}/disk0.img", os.urandom(1 << 20))
    if cpu == "amd":
        add_linux(volume)
    with volume.node(cpu, "vmdir-save") as node:
        assert wait_vm(node, "demo", "running")["volume"] == "Volume1"
        first = node.shell_json("vm show demo")
        assert first["owner"] == "node" and first["directory"] == f"{ROOT}/demo" and not first["changed"]
        linux = save_linux(node) if cpu == "amd" else None
        count = counted(node, "demo", 3)
        assert "on its volume" in node.shell_json("vm save demo", timeout=120)["message"]
        assert vms(node)["demo"]["state"] == "saved"
        node.shell_json(f"cp {ROOT}/demo/saved.state {ROOT}/demo/older")
        node.shell_json("vm restore demo", timeout=120)
        count = counted(node, "demo", count)
        node.shell_json("vm start cold")
        for name in ("demo", "cold"):
            node.shell_json(f"vm save {name}", timeout=120)
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
    bad = {"cut": (state[:-1000], "cut"), "flip": (bytes(damaged), "checksum is wrong"), "newer": (newer, "header"),
           "empty": (b"", "cut"), "older": (volume.get("/demo/older"), "a running VM's disk, since")}
    for name, content in (("good", state), *((name, content) for name, (content, _) in bad.items())):
        volume.put(f"/demo/{name}", content)
    volume.vm("other", "counter")
    volume.put("/other/saved.state", state)
    disk = os.urandom(1 << 20)
    volume.put("/cold/disk0.img", disk)  # by the host's tool, while its VM is saved

    with volume.node(cpu, "vmdir-restore") as node:
        wait_vm(node, "other", "saved")
        refused(node, "vm restore other", "vm other", "the state is of another one", "state is kept")
        wait_vm(node, "demo", "saved")
        for name, (content, words) in bad.items():
            node.shell_json(f"mv {ROOT}/demo/{name} {ROOT}/demo/saved.state")
            refused(node, "vm restore demo", "vm demo", words, "state is kept")
            refused(node, "vm start demo", "its state is saved", "vm restore demo")
            assert vms(node)["demo"]["state"] == "saved"
            assert listed(node, f"{ROOT}/demo")["saved.state"]["size_bytes"] == len(content)
        node.shell_json(f"mv {ROOT}/demo/good {ROOT}/demo/saved.state")
        for command in (f"mv {ROOT}/demo/disk0.img {ROOT}/demo/kept", f"cp {ROOT}/demo/kept {ROOT}/demo/disk0.img"):
            node.shell_json(command)
        refused(node, "vm restore demo", "vm demo", "disk0.img is another file now", "state is kept")
        node.shell_json(f"mv {ROOT}/demo/kept {ROOT}/demo/disk0.img")
        refused(node, "vm restore cold", "disk0.img", "since", "vm stop cold --hard")
        node.shell_json("vm stop cold --hard")
        node.shell_json("vm start cold")
        counted(node, "cold")
        node.shell_json("vm disk snapshot cold disk0.img now")
        node.shell_json("vm disk grow cold disk0.img 2M")
        refused(node, "vm disk grow cold disk0.img 1M", "larger than that")
        refused(node, "vm disk revert cold disk0.img now", "it is running", "stop it first")
        counted(node, "cold")
        node.shell_json("vm stop cold --hard")
        assert "what it was before is disk0.img.before-now" in node.shell_json("vm disk revert cold disk0.img now")["message"]
        sizes = {name: entry["size_bytes"] for name, entry in listed(node, f"{ROOT}/cold").items()}
        assert [sizes[f"disk0.img{name}"] for name in ("", ".now", ".before-now")] == [1 << 20, 1 << 20, 2 << 20]
        assert wait_vm(node, "demo", "saved")["volume"] == "Volume1"
        assert node.shell_json("vm show demo")["uuid"] == first["uuid"]
        node.shell_json("vm restore demo", timeout=120)
        assert counted(node, "demo", count) > count, "it began anew"
        assert "saved.state" not in listed(node, f"{ROOT}/demo")
        if linux:
            restore_linux(node, linux)
        node.machine.kill()  # as by a power cut: what was restored is not there to be restored again
    volume.target.kill()
    assert "saved.state" not in volume.tool("ls", "/demo")
    assert volume.get("/other/saved.state") == state
    assert volume.get("/cold/disk0.img") == disk and volume.get("/cold/disk0.img.before-now") == disk + bytes(1 << 20)
    assert "sound" in volume.tool("fsck")


def test_made_and_changed_by_the_shell(volume):
    """Everything that the shell does to a VM on a volume, and everything that it refuses; and VMs that are not as they should be."""
    volume.vm("wrong", "counter", "  memory = 12X\n")
    volume.vm("elsewhere", "counter", "owner = beta\nstart = auto\n")
    volume.vm("demo", "counter", "disk = one.img\nnetwork = lan\n")
    one, old = os.urandom(1 << 20), os.urandom(1 << 20)
    volume.put("/demo/one.img", one)
    volume.put("/demo/one.img.old", old)
    volume.tool("mkdir", "/no name")
    volume.put("/no name/vm.conf", b"[vm x]\n")
    volume.vm("here", "counter")
    for name in ("twin", "twin2"):
        volume.vm(name, "counter", "uuid = 5f0c2f6e-3d0a-4b53-9f6b-0c1d2e3f4a5b\n")
    for name in ("huge", "folder", "long", "spare"):
        volume.tool("mkdir", f"/{name}")
    volume.put("/huge/vm.conf", b"[vm huge]\n" + b"# large\n" * 9000)
    volume.tool("mkdir", "/folder/vm.conf")
    volume.put("/long/vm.conf", b"[vm long]\nkernel = " + b"x" * 1000 + b"\n")
    volume.put("/spare/conf", f"[vm fresh]\nmemory = 16M\nkernel = {ROOT}/demo/kernel.elf\nstart = auto\n".encode())
    with volume.node("amd", "vmdir-shell", more="\n[vm here]\nkernel = \\x\n") as node:
        for name in ("elsewhere", "wrong", "demo", "twin", "twin2", "huge", "folder", "long"):
            wait_vm(node, name, "stopped")
        assert vms(node).keys() == {"wrong", "elsewhere", "demo", "here", "twin", "twin2", "huge", "folder", "long"}
        for name, words in (("huge", "make it smaller"), ("folder", "vm.conf"), ("long", "shorten it")):
            assert words in vms(node)[name]["reason"], vms(node)[name]
            refused(node, f"vm start {name}", words)
        assert vms(node)["here"]["volume"] is None
        log = json.dumps(node.shell_json("log show"))
        assert "a name that no VM can have" in log and "vm here: there is one in" in log
        refused(node, "vm start twin2", "its uuid is that of vm twin, whose directory is older", "vm set twin2 uuid --default")
        node.shell_json("vm start twin")
        refused(node, "vm start twin2", "its uuid is that of vm twin")
        refused(node, "vm set twin uuid --default", "what it is known by")
        node.shell_json("vm stop twin --hard")
        refused(node, "vm set twin2 uuid 5f0c2f6e-3d0a-4b53-9f6b-0c1d2e3f4a5c", "is not chosen", "--default")
        node.shell_json("vm set twin2 uuid --default")
        assert not vms(node)["twin2"]["reason"] and node.shell_json("vm show twin2")["uuid"] != node.shell_json("vm show twin")["uuid"]
        node.shell_json("vm start twin2")
        node.shell_json("vm stop twin2 --hard")

        # What is wrong is told with its place, and can be put right.
        path = f"{ROOT}/wrong/vm.conf, line 5, column 12"
        refused(node, "vm start wrong", path, '"12X" is not a size')
        assert path in node.shell_json("vm show wrong")["problem"] and path in vms(node)["wrong"]["reason"]
        node.shell_json("vm set wrong memory 16M")
        assert "problem" not in node.shell_json("vm show wrong")
        refused(node, "vm set wrong memory 13X", "memory", '"13X" is not a size')
        refused(node, "vm set wrong network wan", "there is no network wan", "nothing was changed")
        refused(node, "vm set wrong cmdline 'a #b'", "cannot stand on a line")
        refused(node, "vm set wrong memory 1M 2M", "one value")
        refused(node, "vm set wrong memory", "there is no value")
        refused(node, "vm set here memory 16M", "not on a volume")

        # Another node's.
        refused(node, "vm start elsewhere", "it belongs to node beta", "vm set elsewhere owner node", "--take-over")
        refused(node, "vm set elsewhere memory 16M", "it belongs to node beta")
        refused(node, "vm set elsewhere owner node", "it belongs to node beta")
        refused(node, "vm delete elsewhere", "it belongs to node beta")
        node.shell_json("vm set elsewhere owner node --take-over")
        node.shell_json("vm start elsewhere")
        refused(node, "vm set elsewhere owner beta", "it is running here")
        assert "from its next start on" in node.shell_json("vm set elsewhere memory 32M")["message"]
        shown = node.shell_json("vm show elsewhere")
        assert shown["memory_bytes"] == 16 << 20 and shown["changed"]
        refused(node, "vm save elsewhere", "memory in its vm.conf is not as it was", "set it back")
        node.shell_json("vm stop elsewhere --hard")
        node.shell_json("vm start elsewhere")
        shown = node.shell_json("vm show elsewhere")
        assert shown["memory_bytes"] == 32 << 20 and not shown["changed"]

        # Saved: it goes on as it was, so nothing of it is changed; and the state can be dropped.
        node.shell_json("vm save elsewhere")
        refused(node, "vm set elsewhere vcpus 2", "it is saved")
        refused(node, "vm disk add elsewhere two.img --size 1M", "it is saved")
        assert "saved.state" in listed(node, f"{ROOT}/elsewhere")
        node.shell_json("vm set elsewhere owner beta")
        refused(node, "vm restore elsewhere", "it belongs to node beta")
        refused(node, "vm stop elsewhere --hard", "it belongs to node beta")
        node.shell_json("vm set elsewhere owner node --take-over")
        assert "dropped" in node.shell_json("vm stop elsewhere --hard")["message"]
        assert "saved.state" not in listed(node, f"{ROOT}/elsewhere")

        # Disks.
        mac = node.shell_json("vm show demo")["networks"][0]["mac"]
        node.shell_json("vm disk add demo two.img --size 8M")
        node.shell_json("vm disk add demo three.img --size 4M --preallocate")
        refused(node, "vm disk add demo two.img", "already")
        refused(node, "vm disk add demo four.img", "no such file")
        refused(node, "vm disk add demo four.img --size 100G --preallocate", "the volume is full")
        refused(node, "vm disk add demo four.img --size 1000", "multiple of 512")
        refused(node, "vm disk add demo four.img --size 100T", "64 TiB")
        refused(node, "vm disk add demo saved.state --size 1M", "the node itself uses")
        refused(node, "vm disk clone demo one.img vm.conf.new", "the node itself uses")
        refused(node, "vm disk grow demo four.img 8M", "it has no disk")
        assert node.shell_json("vm show demo")["disk_paths"] == [f"{ROOT}/demo/{name}.img" for name in ("one", "two", "three")]
        node.shell_json("vm disk grow demo two.img 16M")
        refused(node, "vm disk grow demo two.img 8M", "larger than that")
        files = listed(node, f"{ROOT}/demo")
        assert files["two.img"]["size_bytes"] == 16 << 20 and files["two.img"]["held_bytes"] == 0
        assert files["three.img"]["held_bytes"] == 4 << 20 and "four.img" not in files
        node.shell_json("vm start demo")
        node.shell_json("vm disk snapshot demo one.img before")
        node.shell_json(f"vm disk clone demo one.img {ROOT}/copy.img")
        refused(node, f"vm disk clone demo one.img {ROOT}/copy.img", "already")
        counted(node, "demo", 1)
        assert node.shell_json("vm show demo")["networks"][0]["mac"] == mac
        node.shell_json("vm stop demo --hard")

        # Back to a snapshot.
        refused(node, "vm disk revert demo one.img none", "no such file")
        refused(node, "vm disk revert demo four.img before", "it has no disk")
        refused(node, "vm disk revert demo one.img old --keep copy --discard", "arguments are others")
        node.shell_json("vm disk revert demo one.img old")
        refused(node, "vm disk revert demo one.img old", "one.img.before-old is there already", "--discard")
        node.shell_json("vm disk revert demo one.img old --keep second")
        node.shell_json("vm disk revert demo one.img before --discard")
        assert "one.img.before-before" not in listed(node, f"{ROOT}/demo")

        # A volume that is full: the guest goes on, and nothing is left of the state. A start needs no block.
        free = node.shell_json("csv show Volume1")["free_bytes"]
        node.shell_json(f"vm disk add wrong fill.img --size {(free - (32 << 10)) // 4096 * 4096} --preallocate", timeout=120)
        node.shell_json("vm start demo")
        counted(node, "demo", 1)  # what it has written by then takes more than is left
        refused(node, "vm save demo", "the volume is full", "remove what is not needed")
        counted(node, "demo", 1)
        node.shell_json("vm stop demo --hard")
        assert not [name for name in listed(node, f"{ROOT}/demo") if name.startswith("saved.state")]
        node.shell_json("vm set wrong disk --default")
        node.shell_json(f"rm {ROOT}/wrong/fill.img")

        # What the shell does to files is a VM, or is none any more, at once.
        node.shell_json(f"mkdir {ROOT}/fresh")
        node.shell_json(f"cp {ROOT}/demo/vm.conf {ROOT}/fresh/vm.conf")
        assert "is not the name of its directory" in vms(node)["fresh"]["reason"]
        node.shell_json(f"rm {ROOT}/fresh/vm.conf")
        assert "fresh" not in vms(node)
        node.shell_json(f"cp {ROOT}/spare/conf {ROOT}/fresh/vm.conf")
        assert vms(node)["fresh"]["state"] == "stopped" and not vms(node)["fresh"]["reason"]
        node.shell_json("vm start fresh")
        refused(node, f"mv {ROOT}/fresh {ROOT}/renamed", "the directory of VM fresh", "stop the VM")
        node.shell_json(f"cp {ROOT}/fresh/vm.conf {ROOT}/spare/vm.conf")
        assert vms(node)["spare"]["reason"]
        node.shell_json(f"mv {ROOT}/spare/vm.conf {ROOT}/fresh/vm.conf")
        assert "spare" not in vms(node) and node.shell_json("vm show fresh")["changed"]
        node.shell_json(f"rm {ROOT}/fresh/vm.conf")
        refused(node, "vm save fresh", "vm.conf", "no such file")
        node.shell_json("vm stop fresh --hard")
        refused(node, "vm start fresh", "vm.conf", "no such file")
        node.shell_json(f"cp {ROOT}/spare/conf {ROOT}/fresh/vm.conf")
        node.shell_json(f"mv {ROOT}/fresh {ROOT}/renamed")
        assert "fresh" not in vms(node) and vms(node)["renamed"]["reason"]
        node.shell_json(f"rm {ROOT}/renamed/vm.conf")
        assert "renamed" not in vms(node)

        # Making and deleting.
        refused(node, "vm create made --volume Volume1 --network wan", "there is no network wan", "nothing was made")
        refused(node, "vm create made --volume Nowhere", "there is none")
        refused(node, "vm create demo --volume Volume1", "already")
        node.shell_json(f"vm create made --volume Volume1 --memory 16M --kernel {ROOT}/demo/kernel.elf --cmdline 'a b=#c' --start auto")
        made = node.shell_json("vm show made")
        assert made["owner"] == "node" and made["directory"] == f"{ROOT}/made"
        node.shell_json("vm disk add made own.img --size 1M")
        node.shell_json("vm start made")
        refused(node, "vm delete made", "it is running")
        counted(node, "made")
        node.shell_json("vm stop made --hard")
        assert "stays" in node.shell_json("vm delete made")["message"]
        assert listed(node, f"{ROOT}/made").keys() == {"own.img"} and "made" not in vms(node)
        node.shell_json("vm create made --volume Volume1 --disk own.img")
        refused(node, "vm start made", "there is no kernel")
        node.shell_json("vm delete made --disks")
        assert "made" not in listed(node, ROOT)
        assert node.shell_json("csv scrub Volume1", timeout=120)["problems"] == 0
        volume.off(node)
    assert "sound" in volume.tool("fsck")
    assert volume.get("/demo/one.img.before") == volume.get("/copy.img") == volume.get("/demo/one.img") == one
    assert volume.get("/demo/one.img.before-old") == one
    assert volume.get("/demo/one.img.second") == volume.get("/demo/one.img.old") == old
    assert b"  memory = 12X" not in volume.get("/wrong/vm.conf")
    assert volume.get("/wrong/vm.conf").startswith(b"# made by hand\n[vm wrong]\n")
