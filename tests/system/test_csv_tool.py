# SPDX-License-Identifier: MIT
"""tasuki-csv on a file: every command but mount, and what it says when something is wrong. No machine is booted."""
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess

import pytest

import node
from csv_volume import MIB, TOOL, Volume, on_another_host

pytestmark = pytest.mark.vendor("none")


@pytest.fixture
def volume(tmp_path):
    made = Volume(tmp_path)
    made.run("mkfs", "--size=256M", "--label=Volume 1")
    yield made
    made.end()
    made.check()


def test_a_new_volume_is_empty_and_named(volume):
    info = json.loads(volume.run("info", "--json"))
    assert info["label"] == "Volume 1" and info["bytes"] == 256 * MIB and info["inodes"] == 1
    assert os.stat(volume.name).st_blocks * 512 < 16 * MIB, "mkfs wrote the whole file"
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


def test_what_is_piped_gets_holes_too(volume):
    data = bytes(9 * MIB) + b"x" + bytes(30 * MIB) + b"y" * 70000 + bytes(3 * MIB + 1)
    volume.run("put", "-", "f", data=data)
    volume.run("put", "-", "empty", data=b"")
    entries = {entry["name"]: entry for entry in json.loads(volume.run("ls", "--json"))}
    assert entries["f"]["size"] == len(data) and entries["f"]["allocated_bytes"] <= 256 << 10
    assert entries["empty"]["size"] == 0
    assert volume.run("get", "f", "-") == data


def test_get_writes_zeros_where_a_hole_would_show_what_was_there(tmp_path, volume, loop):
    with open(loop, "wb") as file:
        file.write(b"old" * MIB)
    volume.run("put", "-", "f", data=bytes(MIB) + b"new" + bytes(MIB))
    volume.run("get", "f", loop)
    with open(loop, "rb") as file:
        assert file.read(2 * MIB + 3) == bytes(MIB) + b"new" + bytes(MIB)
    volume.run("rm", "f")


def test_a_clone_shares_blocks_and_differs_after_a_write(volume):
    volume.run("put", "-", "one", data=b"x" * 20 * MIB)
    before = volume.free()
    volume.run("cp", "one", "two")
    assert before - volume.free() < MIB
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
    free = volume.free()
    volume.run("rm", "--recursive", "d")
    assert volume.names() == [] and volume.free() > free


def test_names_cannot_play_with_the_terminal(volume):
    volume.run("mkfs", "--force", "--label=a \"quoted\" \u00fc label")
    assert json.loads(volume.run("info", "--json"))["label"] == "a \"quoted\" \u00fc label"
    volume.fails("mkfs", "--label", "control characters", arguments=("--force", "--label=a\033[2J"))
    volume.run("mkfs", "--force", "--label=a \u009b2J label")
    assert re.search(rb"^label +a \?+2J label$", volume.run("info"), re.M)
    assert re.fullmatch(r"a \?+2J label", json.loads(volume.run("info", "--json"))["label"])


def test_errors_name_object_cause_and_cure(volume):
    volume.run("put", "-", "f", data=b"f")
    volume.fails("rm", "gone: ", "not there", "`ls`", arguments=("gone",))
    volume.fails("mkdir", "f: ", "there already", arguments=("f",))
    volume.fails("mkdir", "f/g: ", arguments=("f/g",))
    volume.fails("mkdir", "gone/d: ", "not there", arguments=("gone/d",))
    volume.fails("mkdir", "not one", arguments=("a\tb",))
    volume.fails("mkfs", volume.name, 'the volume "Volume 1"', "--force")
    volume.fails("get", "a directory", arguments=("/", "target"))
    with open(volume.folder / "large", "wb") as file:
        file.write(b"\1" * 300 * MIB)
    volume.fails("put", "the volume is full", "`df`", arguments=("large", "/"))
    assert volume.names() == ["f"], "what a put that failed has written is still there"


def test_what_is_no_volume_is_refused_by_name(tmp_path):
    volume = Volume(tmp_path)
    volume.fails("ls", volume.name, "No such file", "mkfs --size")
    (tmp_path / "volume.img").write_bytes(b"something" * MIB * 8)
    volume.fails("ls", volume.name, "no volume")
    volume.fails("mkfs", volume.name, "data that is no volume", "--force")
    volume.run("mkfs", "--force")
    volume.check()
    (tmp_path / "volume.img").write_bytes(b"")
    volume.fails("mkfs", volume.name, "64 MiB")
    volume.name = str(tmp_path)
    volume.fails("ls", volume.name)


def test_damage_is_found_and_said(volume):
    volume.run("mkdir", "d")
    for i in range(20):
        volume.run("put", "-", f"d/{i}", data=b"x" * 5000)
    first = json.loads(volume.run("ls", "--json", "d/0"))[0]["inode"]
    with open(volume.name, "r+b") as file:
        file.seek(first * 4096 + 100)
        good = file.read(4)
        file.seek(first * 4096 + 100)
        file.write(b"\xff" * 4)
    listed = json.loads(volume.run("ls", "--json", "d", status=1, quiet=False))
    assert len(listed) == 19, "the first is damaged, and it is an array of the others"
    with open(volume.name, "r+b") as file:
        file.seek(first * 4096 + 100)
        file.write(good)
    inode = json.loads(volume.run("ls", "--json", "d/7"))[0]["inode"]
    with open(volume.name, "r+b") as file:
        file.seek(inode * 4096 + 100)  # in the inode
        good = file.read(4)
        file.seek(inode * 4096 + 100)
        file.write(b"\xff" * 4)
    said = volume.run("fsck", status=4, quiet=False).decode()
    assert f"{inode}" in said and said.endswith(": DAMAGED\n")
    volume.fails("get", "d/7", "damaged", "`fsck`", arguments=("d/7", "-"))
    listed = [entry["name"] for entry in json.loads(volume.run("ls", "--json", "d", status=1, quiet=False))]
    assert listed == sorted(str(i) for i in range(20) if i != 7), "the other entries are listed"
    volume.fails("ls", "d: 7: its inode", f"{inode} cannot be read", "fsck --repair", arguments=("d",), quiet=False)
    with open(volume.name, "r+b") as file:
        file.seek(inode * 4096 + 100)
        file.write(good)
    volume.check()
    with open(volume.name, "r+b") as file:
        file.seek(19 * 4096 + 40)  # free blocks, in the volume root
        good = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([good[0] ^ 1]))
    volume.fails("fsck", "block 19", status=4)
    volume.fails("ls", "block 19", status=1)
    with open(volume.name, "r+b") as file:
        file.seek(19 * 4096 + 40)
        file.write(good)


def test_damage_is_repaired_and_told(volume):
    volume.run("mkdir", "/a")
    volume.run("put", "-", "/a/file", data=b"bytes" * 10000)
    for block, words in (19, "volume root is made anew"), (1, "group 0 is damaged"):
        with open(volume.name, "r+b") as file:
            file.seek(block * 4096)
            file.write(b"junk" * 1024)
        told = volume.run("fsck", "--repair", status=1, quiet=False).decode()
        assert words in told and told.endswith(" 0 lost, 0 in /lost+found: sound\n")
        volume.check()
        assert volume.run("get", "/a/file", "-") == b"bytes" * 10000
    assert "0 things mended" in volume.run("fsck", "--repair").decode()


def test_a_volume_grows_with_its_disk(volume):
    volume.run("put", "-", "f", data=b"data" * MIB)
    assert b"256.0 MiB, as large as its disk already" in volume.run("grow")
    os.truncate(volume.name, 2 << 30)
    assert b": from 256.0 MiB to 2.0 GiB" in volume.run("grow")
    volume.check()
    assert volume.free() > 1900 * MIB and volume.run("get", "f", "-") == b"data" * MIB
    (volume.folder / "large").write_bytes(b"\1" * 400 * MIB)
    volume.run("put", "large", "/")


@pytest.mark.parametrize("arguments, words", [
    ([], "usage"), (["nonsense"], "no such command"), (["ls"], "usage"), (["ls", "--force", "v"], "--force"),
    (["mkfs", "--size", "7", "v"], "64M"), (["mv", "v", "a"], "usage")],
    ids=["nothing", "command", "volume", "option", "size", "argument"])
def test_wrong_usage_exits_with_2(arguments, words):
    result = subprocess.run([TOOL, *arguments], capture_output=True, text=True, timeout=60)
    assert result.returncode == 2 and words in result.stderr and not result.stdout


# ---- Whoever else is there ----

def test_a_volume_in_use_is_refused_and_its_user_named(volume):
    put = volume.start("put", "-", "f", stdin=subprocess.PIPE)
    put.stdin.write(b"x" * 5 * MIB)  # more than a pipe holds, so it is at work now
    put.stdin.flush()
    for command in ("ls", "fsck", "mkfs"):
        volume.fails(command, f"locked by tasuki-csv (process {put.pid})", status=8 if command == "fsck" else 1)
    put.stdin.close()
    assert put.wait(60) == 0
    assert volume.names() == ["f"]


def test_a_volume_that_is_a_disk_of_qemu_is_refused(volume):
    with open(volume.name, "r+b") as file:  # QEMU holds such locks of single bytes on its images
        fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0))  # F_OFD_SETLK
        volume.fails("mkdir", "locked by", str(os.getpid()), arguments=("d",))
    volume.run("mkdir", "d")


def test_another_hosts_mount_is_refused_by_name(volume):
    killed = volume.start("put", "-", "f", stdin=subprocess.PIPE)
    killed.stdin.write(b"x" * 8 * MIB)
    killed.stdin.flush()
    assert volume_is_mounted(volume)
    killed.kill()
    killed.wait()
    there = on_another_host()
    if there:
        host = os.uname().nodename
        volume.fails("mkdir", "the host tool on", host, "--take-over", arguments=("d",), before=there)
        volume.run("mkdir", "--take-over", "d", before=there)
        volume.run("mkdir", "e")
    else:
        volume.run("mkdir", "d")
    assert "d" in volume.names()
    if not there:
        pytest.skip("unshare --uts cannot be used here: this host's own way back was tested alone")


def volume_is_mounted(volume):
    """What the mount records say (docs/csv-format.md, section 4)."""
    with open(volume.name, "rb") as file:
        file.seek(17 * 4096)
        records = file.read(8192)
    newest = max((records[:4096], records[4096:]), key=lambda record: struct.unpack_from("<Q", record, 24))
    return struct.unpack_from("<I", newest, 32)[0] == 1


def test_a_put_that_is_killed_leaves_the_old_file(volume):
    volume.run("put", "-", "f", data=b"old")
    for count in (1, 9, 30):
        killed = volume.start("put", "-", "f", stdin=subprocess.PIPE)
        killed.stdin.write(b"x" * count * MIB)  # more than the pipe holds: most of it was taken
        killed.stdin.flush()
        killed.kill()
        killed.wait()
        volume.check()
        assert volume.run("get", "f", "-") == b"old"
        volume.run("mkdir", f"d{count}")  # replays
        volume.check()
        assert volume.transactions() == 0
        assert [name for name in volume.names() if not name.startswith((".tasuki-csv-", "d"))] == ["f"]


def test_an_interrupted_put_cleans_up(volume):
    put = volume.start("put", "-", "f", stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    put.stdin.write(b"x" * 5 * MIB)
    put.stdin.flush()
    put.send_signal(signal.SIGINT)
    put.stdin.close()
    assert put.wait(60) == 1 and b"interrupted" in put.stderr.read()
    assert volume.names() == [] and not volume_is_mounted(volume)


@pytest.fixture
def loop(tmp_path):
    """A block device."""
    with open(tmp_path / "disk", "wb") as file:
        file.truncate(256 * MIB)
    made = subprocess.run(["losetup", "--find", "--show", "--sector-size=4096", tmp_path / "disk"], capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"there are no loop devices here: {made.stderr.strip()}")
    yield made.stdout.strip()
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def test_a_block_device_with_sectors_of_4_kib(tmp_path, loop):
    volume = Volume(tmp_path, loop)
    volume.run("mkfs", "--label=device")
    volume.run("put", "-", "f", data=b"data" * 99999)
    assert volume.run("get", "f", "-") == b"data" * 99999
    volume.check()
    holder = os.open(loop, os.O_RDWR | os.O_EXCL)  # as a mount does
    volume.fails("mkdir", loop, "mounted, or part of something else", arguments=("d",))
    os.close(holder)
    volume.run("mkdir", "d")
    on_file = Volume(tmp_path, str(tmp_path / "disk"))
    on_file.check()


# ---- import ----

@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """2 GiB, sparse, with data at its ends, around 1 GiB and in many small pieces."""
    path = tmp_path_factory.mktemp("image") / "disk.raw"
    with open(path, "wb") as file:
        file.truncate(2 << 30)
        for offset in (0, (1 << 30) - 70000, (2 << 30) - 200000):
            file.seek(offset)
            file.write(os.urandom(200000))
        for piece in range(300):
            file.seek((3 << 28) + piece * 300000)
            file.write(os.urandom(5000))
    return path


@pytest.mark.parametrize("kind", ["qcow2", "vmdk", "vhdx", "raw"])
def test_an_image_is_imported_and_exported_equal(volume, image, kind):
    source = image if kind == "raw" else volume.folder / f"my disk.{kind}"
    if kind != "raw":
        subprocess.run(["qemu-img", "convert", "-O", kind, image, source], check=True, timeout=300)
    volume.run("mkdir", "images")
    volume.run("import", f"--format={kind}", source, "images")
    name, = volume.names("images")
    assert name == ("disk.img" if kind == "raw" else "my disk.img")
    entry, = json.loads(volume.run("ls", "--json", "images"))
    assert entry["size"] == 2 << 30 and entry["allocated_bytes"] < 64 * MIB, "it is not sparse any more"
    volume.run("get", f"images/{name}", "back.raw")
    assert os.stat(volume.folder / "back.raw").st_blocks * 512 < 64 * MIB
    subprocess.run(["qemu-img", "compare", "-s", "-f", "raw", "-F", "raw", image, volume.folder / "back.raw"], check=True,
                   timeout=300)


def test_what_cannot_be_imported_is_said_and_leaves_nothing(volume, image):
    volume.run("import", "missing", "x", status=1)
    assert "missing" in self_said(volume)
    volume.run("import", "--format=qcow2", image, "x", status=1)
    assert "disk.raw: qemu-img cannot read it" in self_said(volume)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", image, volume.folder / "i.qcow2"], check=True, timeout=300)
    bad = {"driver": "qcow2", "file": {"driver": "blkdebug", "image": {"driver": "file", "filename": "i.qcow2"},
                                       "inject-error": [{"event": "read_aio", "state": 1, "errno": 5}]}}
    volume.run("import", "json:" + json.dumps(bad), "x", status=1)
    assert "qemu-img could not read all of it" in self_said(volume) and "error while reading" in volume.errors
    (volume.folder / "large").write_bytes(os.urandom(MIB) * 300)
    volume.run("import", "--format=raw", "large", "x", status=1)
    assert "the volume is full" in volume.errors
    assert volume.names() == []


def self_said(volume):
    """What the tool itself said, without qemu-img's lines."""
    return "\n".join(line for line in volume.errors.splitlines() if line.startswith("tasuki-csv: "))


HOSTILE = '''#!/usr/bin/python3
# In the place of qemu-img: measures 1 MiB, and then speaks NBD wrongly.
import re, socket, struct, sys
if sys.argv[1] == "measure":
    print(\'{"required": 4096, "fully-allocated": 1048576}\')
    sys.exit()
wire = socket.socket(fileno=int(re.search(r"server.str=(\\d+)", sys.argv[-1])[1]))

def take(count):
    data = b""
    while len(data) < count:
        try:
            part = wire.recv(count - len(data))
        except ConnectionResetError:
            part = b""
        if not part:
            sys.exit()
        data += part
    return data

def go():
    assert take(18) == b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3)
    wire.sendall(struct.pack(">I", 3))
    wire.sendall(b"IHAVEOPT" + struct.pack(">II", 8, 0))
    assert struct.unpack(">QIII", take(20)) == (0x3e889045565a9, 8, 0x80000001, 0)
    wire.sendall(b"IHAVEOPT" + struct.pack(">III", 7, 6, 0) + bytes(2))
    take(20 + 12 + 20)

def request(command, offset, count, data=b"", magic=0x25609513):
    wire.sendall(struct.pack(">IHHQQI", magic, 0, command, 77, offset, count) + data)

def error():
    magic, error, cookie = struct.unpack(">IIQ", take(16))
    assert (magic, cookie) == (0x67446698, 77)
    return error

'''


@pytest.mark.parametrize("act, good", [
    ("go(); request(1, 4096, 4, b'data'); assert error() == 0; request(0, 4094, 8); assert error() == 0; "
     "assert take(8) == bytes(2) + b'data' + bytes(2); request(4, 4096, 4); assert error() == 0; request(3, 0, 0); "
     "assert error() == 0; request(2, 0, 0)", True),
    ("go(); request(1, 1048575, 2, b'ab'); assert error() == 22; request(2, 0, 0)", False),
    ("go(); request(0, 2**64 - 1, 2); assert error() == 22; request(2, 0, 0)", False),
    ("go(); request(6, 1, 2**32 - 1); assert error() == 22; request(2, 0, 0)", False),
    ("go(); request(9, 0, 0); assert error() == 22; request(2, 0, 0)", False),
    ("go(); request(1, 0, 2**32 - 1); take(1)", False),
    ("go(); request(1, 0, 4, b'data', magic=1); take(1)", False),
    ("go(); request(1, 0, 4096, b'cut')", False),
    ("go(); wire.sendall(bytes(27))", False),
    ("go(); request(1, 0, 4, b'data'); assert error() == 0", False),
    ("wire.sendall(bytes(4) + b'x' * 16); take(1)", False),
    ("wire.sendall(bytes(4) + b'IHAVEOPT' + struct.pack('>II', 7, 2**32 - 1)); take(19)", False),
    ("wire.sendall(bytes(4) + b'IHAVEOPT' + struct.pack('>II', 2, 0)); take(19)", False),
    ("sys.exit(1)", False), ("pass", False)],
    ids=["right", "beyond the end", "wraps", "long zeroes", "command", "long write", "magic", "cut data", "cut request",
         "no farewell", "option magic", "long option", "abort", "fails", "nothing"])
def test_a_hostile_client_of_the_import_gets_nowhere(volume, act, good):
    fake = volume.folder / "bin" / "qemu-img"
    fake.parent.mkdir()
    fake.write_text(HOSTILE + act + "\n")
    fake.chmod(0o755)
    volume.run("import", "source", "x", status=0 if good else 1,
               before=["env", f"PATH={fake.parent}:{os.environ['PATH']}"])
    assert "Assertion" not in volume.errors and "Traceback" not in volume.errors, volume.errors
    assert volume.names() == (["x"] if good else [])
    if good:
        assert volume.run("get", "x", "-") == bytes(MIB)


def test_the_manual_has_every_command_and_option():
    with open(os.path.join(node.TOP, "docs", "man", "tasuki-csv.1"), encoding="utf-8") as file:
        page = file.read()
    said = subprocess.run([TOOL, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
    commands = re.findall(r"^  (\w+) ", said, re.M)
    assert len(commands) >= 13
    described = set(re.findall(r"^\.TP\n\.BR? (\w+)$|^\.TP\n\.BR (\w+) \"", page, re.M))
    assert {a or b for a, b in described if a or b} == set(commands)
    plain = page.replace("\\-", "-")
    for command in commands:
        text = subprocess.run([TOOL, command, "--help"], capture_output=True, text=True, timeout=60, check=True).stdout
        for option in re.findall(r"--[a-z-]+", text):
            assert re.search(rf"^\.BR? .*{option}\b", plain, re.M), f"{command} {option} is not in the manual"


@pytest.mark.parametrize("command", ["put", "import"])
def test_a_terminal_gets_a_progress_bar_that_goes_away(volume, image, command):
    master, terminal = pty.openpty()
    with subprocess.Popen([TOOL, command, volume.name, image, "/"], stderr=terminal, stdout=terminal) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # the terminal's other side is closed
                break
            shown += part
    os.close(master)
    assert process.returncode == 0
    assert re.search(rb"disk\.raw \[#*\.*\] +\d+ %  [\d.]+ [KMG]?i?B  [\d.]+ [KMG]?i?B/s", shown), shown
    assert shown.endswith(b"\r\033[K"), shown
