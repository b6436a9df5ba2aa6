# SPDX-License-Identifier: MIT
"""tasuki-csv on a file: every command, and what it says when something is wrong. No machine is booted."""
import json
import os
import subprocess

import pytest

import node

pytestmark = pytest.mark.vendor("none")
TOOL = os.path.join(os.path.abspath(node.BUILD), "tasuki-csv")
MIB = 1 << 20


class Volume:
    """A volume in a file of a directory of its own, where the commands run."""

    def __init__(self, folder):
        self.folder = folder
        self.path = str(folder / "volume.img")

    def run(self, command, *arguments, data=None, status=0):
        """Runs a command on the volume and returns its standard output; its exit status must be `status`."""
        result = subprocess.run([TOOL, command, self.path, *map(str, arguments)], input=data, cwd=self.folder,
                                capture_output=True, timeout=120)
        self.errors = result.stderr.decode()
        assert result.returncode == status, f"{command} {arguments}: {result.returncode}\n{self.errors}"
        assert (status == 0) == (self.errors == ""), self.errors
        return result.stdout

    def fails(self, command, *words, arguments=(), status=1):
        """Runs a command that must fail, as one line that has all these words."""
        self.run(command, *arguments, status=status)
        assert self.errors.startswith("tasuki-csv: ") and self.errors.count("\n") == 1, self.errors
        for word in words:
            assert word in self.errors, self.errors

    def names(self, path="/"):
        return [entry["name"] for entry in json.loads(self.run("ls", "--json", path))]

    def check(self):
        assert self.run("fsck").decode().endswith(": sound\n")


@pytest.fixture
def volume(tmp_path):
    made = Volume(tmp_path)
    made.run("mkfs", "--size", "256M", "--label", "Volume 1")
    yield made
    made.check()


def test_a_new_volume_is_empty_and_named(volume):
    info = json.loads(volume.run("info", "--json"))
    assert info["label"] == "Volume 1" and info["bytes"] == 256 * MIB and info["inodes"] == 1
    assert os.stat(volume.path).st_blocks * 512 < 16 * MIB, "mkfs wrote the whole file"
    assert volume.names() == []
    assert b"Volume 1" in volume.run("info") and b"Volume 1" in volume.run("df")


def test_files_go_in_and_come_out(volume):
    data = os.urandom(5 * MIB + 17)
    (volume.folder / "source").write_bytes(data)
    volume.run("mkdir", "a")
    volume.run("mkdir", "/a/b c")
    volume.run("put", "source", "/a/b c/")
    volume.run("put", "-", "a/piped", data=data)
    volume.run("get", "a/b c/source", "target")
    assert (volume.folder / "target").read_bytes() == data
    assert volume.run("get", "/a/piped", "-") == data
    assert volume.names("a") == ["b c", "piped"]
    assert volume.run("ls", "a").decode().splitlines()[1].endswith(" b c")


def test_put_replaces_a_file_as_a_whole(volume):
    volume.run("put", "-", "f", data=b"old" * 9999)
    volume.run("put", "-", "f", data=b"new")
    assert volume.run("get", "f", "-") == b"new"
    volume.fails("put", "f", "cannot be read", arguments=("missing", "f"))
    assert volume.run("get", "f", "-") == b"new" and volume.names() == ["f"]


def test_holes_stay_holes(volume):
    with open(volume.folder / "sparse", "wb") as file:
        file.truncate(1 << 33)
        file.seek(1 << 32)
        file.write(b"in the middle")
    volume.run("put", "sparse", "/")
    entry, = json.loads(volume.run("ls", "--json"))
    assert entry["size"] == 1 << 33 and entry["allocated_bytes"] <= 64 << 10
    volume.run("get", "sparse", "back")
    back = os.stat(volume.folder / "back")
    assert back.st_size == 1 << 33 and back.st_blocks * 512 <= 64 << 10
    with open(volume.folder / "back", "rb") as file:
        file.seek(1 << 32)
        assert file.read(14) == b"in the middle\0"


def test_a_clone_shares_blocks_and_differs_after_a_write(volume):
    volume.run("put", "-", "one", data=b"x" * 20 * MIB)
    before = json.loads(volume.run("df", "--json"))["free_bytes"]
    volume.run("cp", "one", "two")
    after = json.loads(volume.run("df", "--json"))["free_bytes"]
    assert before - after < MIB
    volume.run("rm", "one")
    assert volume.run("get", "two", "-") == b"x" * 20 * MIB


def test_move_and_remove(volume):
    volume.run("mkdir", "d")
    volume.run("put", "-", "f", data=b"f")
    volume.run("mv", "f", "d")
    volume.run("mv", "d/f", "d/g")
    assert volume.names("d") == ["g"]
    volume.fails("mv", "below itself", arguments=("d", "d/e"))
    volume.fails("rm", "d: ", "has entries", arguments=("d",))
    free = json.loads(volume.run("df", "--json"))["free_bytes"]
    volume.run("rm", "-r", "d")
    assert volume.names() == [] and json.loads(volume.run("df", "--json"))["free_bytes"] > free


def test_errors_name_object_cause_and_cure(volume):
    volume.run("put", "-", "f", data=b"f")
    volume.fails("rm", "gone: ", "not there", "`ls`", arguments=("gone",))
    volume.fails("mkdir", "f: ", "there already", arguments=("f",))
    volume.fails("mkdir", "f/g: ", arguments=("f/g",))
    volume.fails("mkdir", "gone/d: ", "not there", arguments=("gone/d",))
    volume.fails("mkdir", "not one", arguments=("a\tb",))
    volume.fails("mkfs", volume.path, 'the volume "Volume 1"', "--force")
    volume.fails("get", "a directory", arguments=("/", "target"))
    with open(volume.folder / "large", "wb") as file:
        file.write(b"\1" * 300 * MIB)
    volume.fails("put", "the volume is full", "`df`", arguments=("large", "/"))
    assert volume.names() == ["f"], "what a put that failed has written is still there"


def test_what_is_no_volume_is_refused_by_name(tmp_path):
    volume = Volume(tmp_path)
    volume.fails("ls", volume.path, "No such file", "mkfs --size")
    (tmp_path / "volume.img").write_bytes(b"something" * MIB * 8)
    volume.fails("ls", volume.path, "no volume")
    volume.fails("mkfs", volume.path, "data that is no volume", "--force")
    volume.run("mkfs", "--force")
    volume.check()
    (tmp_path / "volume.img").write_bytes(b"")
    volume.fails("mkfs", volume.path, "64 MiB")
    volume.path = str(tmp_path)
    volume.fails("ls", volume.path)


def test_damage_is_found_and_said(volume):
    with open(volume.path, "r+b") as file:
        file.seek(19 * 4096 + 40)  # free blocks, in the volume root
        good = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([good[0] ^ 1]))
    volume.fails("fsck", "block 19", status=8)
    with open(volume.path, "r+b") as file:
        file.seek(19 * 4096 + 40)
        file.write(good)


@pytest.mark.parametrize("arguments, words", [
    ([], "usage"), (["nonsense"], "no such command"), (["ls"], "usage"), (["ls", "--force", "v"], "--force"),
    (["mkfs", "--size", "7", "v"], "64M"), (["mv", "v", "a"], "usage")],
    ids=["nothing", "command", "volume", "option", "size", "argument"])
def test_wrong_usage_exits_with_2(arguments, words):
    result = subprocess.run([TOOL, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and words in result.stderr and not result.stdout
