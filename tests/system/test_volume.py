# SPDX-License-Identifier: MIT
"""A volume on a real target's unit: a node mounts it, shows and changes what is on it, keeps it over the target's restart,
and leaves it in order; a host's tool makes it before and checks it afterwards."""
import hashlib
import json
import os
import subprocess

import pytest
from disk_writer import FILES, GUEST, SIZES, end_writer, start_writer, wait_vm, wait_written, written
from node import BUILD, Linux, Node, ShellError
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
            assert scrubbed["problems"] == 0 and scrubbed["read_bytes"] > 0
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


def test_a_guest_whose_disk_is_a_file(cpu, tmp_path):
    """Half of what it writes is there already, the other half has no blocks yet. The target is killed and started again
    meanwhile; what the guest reads, and what the host's tool finds afterwards, is what was written."""
    block, blocks = SIZES[cpu]
    content = os.urandom(block * blocks // 2)
    image = tmp_path / "image"
    image.write_bytes(content)
    os.truncate(image, 48 << 20)
    with Target(size=128 << 20) as target:
        target.kill()
        tool(target, "mkfs", "--force")
        tool(target, "mkdir", "/demo")
        tool(target, "put", image, "/demo/disk0.img")
        target.start()
        conf = NETWORK + target.configuration("san", volume="Volume1") + GUEST.format(name="demo", start="auto").replace(
            "storage:san", f"{ROOT}/demo/disk0.img") + GUEST.format(name="other", start="manual").replace(
            "storage:san", f"{ROOT}/demo/disk0.img")
        with Node(cpu, "volume-guest", conf=conf, files=FILES, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            wait_vm(node, "running")
            node.console("demo", r"# ", timeout=120)
            linux = Linux(node, "demo")
            assert linux.run("cat /sys/block/vda/size").split()[0] == str((48 << 20) // 512)
            assert linux.run(f"head -c {len(content)} /dev/vda | md5sum").split()[0] == hashlib.md5(content).hexdigest()
            assert linux.run(f"tail -c {1 << 20} /dev/vda | tr -d '\\0' | wc -c").split()[0] == "0"
            assert "another disk already" in refusal(node, "vm start other")["cause"]
            assert "a VM has it" in refusal(node, f"cp {ROOT}/demo/disk0.img {ROOT}/copy")["cause"]
            assert "a VM has it" in refusal(node, f"rm {ROOT}/demo/disk0.img")["cause"]
            start_writer(node, linux)
            wait_written(linux, 10)
            target.kill()
            target.start()
            wait_written(linux, written(linux) + 2 * blocks)
            expected, read = end_writer(node, linux)
            assert read == expected
            assert node.shell_json("csv scrub Volume1", timeout=120)["problems"] == 0
            node.machine.sendline("node poweroff")
            node.machine.wait(60 * node.patience)
        target.kill()
        assert "0 transactions in the journal: sound" in tool(target, "fsck"), "it was not left in order"
        tool(target, "get", "/demo/disk0.img", tmp_path / "back")
        back = (tmp_path / "back").read_bytes()
        assert len(back) == 48 << 20 and hashlib.md5(back[:block * blocks]).hexdigest() == expected
        assert not any(back[block * blocks:])


@pytest.mark.vendor("amd")
def test_a_volume_made_in_the_node(tmp_path):
    """Not over what the disk holds; and larger when its disk has become larger."""
    with Target(size=64 << 20) as target:
        target.kill()
        with open(target.disk, "r+b") as disk:
            disk.seek(1080)
            disk.write(b"\x53\xef")
        target.start()
        conf = NETWORK + target.configuration("san")
        with Node("amd", "volume-made", conf=conf, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            assert node.shell_json("csv list")["volumes"] == []
            assert "ext4" in refusal(node, "csv add san --name Volume1")["cause"]
            assert "volume = Volume1" in node.shell_json("csv add san --name Volume1 --force", timeout=60)["message"]
            assert node.shell_json("csv show Volume1")["state"] == "mounted"
            node.shell(f"mkdir {ROOT}/new")
            assert "mounted" in refusal(node, "csv add san --name Volume1 --force")["cause"]
            target.kill()
            os.truncate(target.disk, 128 << 20)
            target.start()
            wait_up(node)
            grown = node.shell_json("csv grow Volume1", timeout=60)
            assert grown["before_bytes"] == 64 << 20 and grown["size_bytes"] == 128 << 20
            assert find(node.shell_json("df")["volumes"], "volume", "Volume1")["free_bytes"] > 100 << 20
            assert node.shell_json("csv scrub Volume1")["problems"] == 0
            node.machine.sendline("node poweroff")
            node.machine.wait(60 * node.patience)
        target.kill()
        assert "0 transactions in the journal: sound" in tool(target, "fsck"), "it was not left in order"
        assert {entry["name"] for entry in json.loads(tool(target, "ls", "--json", "/"))} == {"new"}


@pytest.mark.vendor("amd")
def test_a_guest_fills_the_volume(tmp_path):
    """It stands still at the write for which there is no block, and goes on when there is one; it sees no error."""
    ballast = tmp_path / "ballast"
    ballast.write_bytes(os.urandom(36 << 20))
    thin = tmp_path / "thin"
    thin.touch()
    os.truncate(thin, 96 << 20)
    with Target(size=64 << 20) as target:
        target.kill()
        tool(target, "mkfs", "--force")
        tool(target, "put", ballast, "/ballast")
        tool(target, "put", thin, "/disk0.img")
        chunks = (json.loads(tool(target, "df", "--json"))["free_bytes"] >> 20) + 4
        target.start()
        conf = NETWORK + target.configuration("san", volume="Volume1") + GUEST.format(name="demo", start="auto").replace(
            "storage:san", f"{ROOT}/disk0.img")
        with Node("amd", "volume-full", conf=conf, files=FILES, cards=[{"model": "e1000"}]) as node:
            wait_up(node)
            wait_vm(node, "running")
            node.console("demo", r"# ", timeout=120)
            linux = Linux(node, "demo")
            # Each MiB begins at another place of the same one.
            write = (f"i=0; while [ $i -lt {chunks} ]; do (dd if=/tmp/a bs=4k skip=$i; dd if=/tmp/a bs=4k count=$i) 2>/dev/null | "
                     "dd of=/dev/vda bs=4k seek=$((i * 256)) conv=fsync 2>/dev/null || echo bad >> /tmp/bad; i=$((i + 1)); "
                     "echo $i > /tmp/n; done; echo end > /tmp/end")
            content = linux.run("dd if=/dev/urandom of=/tmp/a bs=1M count=1 2>/dev/null; md5sum /tmp/a").split()[0]
            node.attach("demo")
            node.machine.send(f"({write}) &\r")
            node.expect(r"# ", timeout=30)
            node.detach()
            wait_vm(node, "paused", timeout=120)
            for word in ("Volume1 is full", "disk0.img", "remove files"):
                assert word in find(node.shell_json("vm list")["vms"], "name", "demo")["reason"]
            log = " ".join(node.shell("log show").split())
            assert "vm demo: paused, since a write of it has to wait: /disk0.img: volume Volume1 is full" in log
            node.shell("vm resume demo")  # tries again, in vain
            wait_vm(node, "paused")
            assert find(node.shell_json("csv list")["volumes"], "volume", "Volume1")["free_bytes"] < 1 << 20
            node.shell(f"rm {ROOT}/ballast", timeout=60)
            wait_vm(node, "running")
            assert linux.run("until [ -s /tmp/end ]; do sleep 0.2; done; cat /tmp/n; cat /tmp/bad 2>/dev/null; "
                             "dmesg | grep 'I/O error'", timeout=120).split() == [str(chunks)]
            node.machine.sendline("node poweroff")
            node.machine.wait(60 * node.patience)
        target.kill()
        assert "0 transactions in the journal: sound" in tool(target, "fsck"), "it was not left in order"
        tool(target, "get", "/disk0.img", tmp_path / "back")
        back = (tmp_path / "back").read_bytes()
        assert hashlib.md5(back[:1 << 20]).hexdigest() == content
        for i in range(chunks):
            start = i * 4096
            assert back[i << 20:(i + 1) << 20] == back[start:1 << 20] + back[:start], i
        assert not any(back[chunks << 20:])
