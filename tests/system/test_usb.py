# SPDX-License-Identifier: MIT
"""The tool that makes sticks: what it puts on them, what it asks, and that it never writes to a disk that is in use."""
import importlib.machinery
import importlib.util
import os
import re
import subprocess

import pytest
from node import BUILD, TOP

pytestmark = pytest.mark.vendor("none")
TOOL = os.path.join(TOP, "tools", "tasuki-usb")
EFI = os.path.join(BUILD, "BOOTX64.EFI")
CONF = "[node]\nname = alpha\n"


@pytest.fixture
def usb():
    """The tool as a module, so that it can be shown another /sys."""
    loader = importlib.machinery.SourceFileLoader("tasuki_usb", TOOL)
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("tasuki_usb", loader))
    loader.exec_module(module)
    return module


@pytest.fixture
def conf(tmp_path):
    path = tmp_path / "alpha.conf"
    path.write_text(CONF)
    return path


def tool(*arguments, status=0, answers=""):
    done = subprocess.run([TOOL, "--efi", EFI, *map(str, arguments)], input=answers, capture_output=True, text=True, timeout=60)
    assert done.returncode == status, (arguments, done.returncode, done.stdout, done.stderr)
    return done.stderr if status else done.stdout


def on_image(image, path):
    return subprocess.run(["mcopy", "-i", f"{image}@@1M", f"::{path}", "-"], check=True, capture_output=True).stdout


def refused(usb, *words, arguments=(), call=None):
    with pytest.raises(usb.Refusal) as failure:
        (call or (lambda: usb.run(["--efi", EFI, *map(str, arguments)])))()
    for word in words:
        assert word in str(failure.value), failure.value


class FakeDisk:
    """A /sys and a /proc with one disk, sdx (8:128), with a partition."""

    def __init__(self, usb, folder, bus="usb1/1-1", megabytes=4096):
        self.folder = folder
        usb.SYS, usb.PROC = str(folder / "sys"), str(folder / "proc")
        self.disk = folder / "sys" / "devices" / bus / "block" / "sdx"
        for path, content in (("dev", "8:128"), ("size", megabytes * 2048), ("ro", 0), ("device/vendor", "Acme"),
                              ("device/model", "Stick"), ("sdx1/dev", "8:129"), ("sdx1/partition", 1)):
            self.write(self.disk / path, content)
        (self.disk / "holders").mkdir()
        (self.disk / "sdx1" / "holders").mkdir()
        (folder / "sys" / "dev" / "block").mkdir(parents=True)
        for number, path in (("8:128", self.disk), ("8:129", self.disk / "sdx1")):
            (folder / "sys" / "dev" / "block" / number).symlink_to(path)
        self.write(folder / "proc" / "self" / "mountinfo", "22 1 254:1 / / rw - ext4 /dev/vda1 rw")
        self.write(folder / "proc" / "swaps", "Filename Type Size Used Priority\n/dev/vdb partition 1 0 -2")

    def write(self, path, content):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")


def test_an_image_has_what_was_given(tmp_path, conf):
    more = tmp_path / "kernel"
    more.write_bytes(os.urandom(5000))
    conf.write_text(CONF + "[vm a]\nkernel = \\tasuki\\images\\k   # this one\ndisk = /ClusterStorage/Volume1/a/b\n"
                    "disk = storage:san\n")
    image = tmp_path / "stick.img"
    tool("--config", conf, "--add", f"tasuki/images/k={more}", image)
    assert on_image(image, "/tasuki/tasuki.conf") == conf.read_bytes()
    assert on_image(image, "/tasuki/images/k") == more.read_bytes()
    with open(EFI, "rb") as file:
        assert on_image(image, "/EFI/BOOT/BOOTX64.EFI") == file.read()
    first = image.read_bytes()
    assert "--force" in tool("--config", conf, image, status=1)
    tool("--config", conf, "--add", f"tasuki/images/k={more}", "--force", image)
    assert image.read_bytes() == first


def test_what_is_asked(tmp_path):
    image = tmp_path / "stick.img"
    answers = ["no name", "beta", "com9", "com2", "10.0.0.11", "10.0.0.11/24", "10.0.0.1", "san", "10.0.0.5:3260", "LUN",
               "iqn.2026-11.example:lun", "-1", "7", "", "", "Volume2"]
    said = tool(image, answers="\n".join(answers) + "\n")
    assert said.count("Needed is") == 6
    assert on_image(image, "/tasuki/tasuki.conf").decode() == """# docs/configuration.md describes every key.

[node]
name = beta
serial = com2

[network lan]
address = 10.0.0.11/24
gateway = 10.0.0.1

[storage san]
portal = 10.0.0.5:3260
target = iqn.2026-11.example:lun
lun = 7
initiator = iqn.2026-11.tasuki:beta
volume = Volume2
"""
    assert "nothing was written" in tool(tmp_path / "other.img", answers="beta\n", status=1)
    assert not (tmp_path / "other.img").exists()


def test_a_secret_is_asked_for_apart(usb, capsys):
    answers = iter(["", "", "", "10.0.0.5", "iqn.2026-11.example:lun", "", "", "user", ""])
    secrets = iter(["short", "a-secret-of-ours"])
    text = usb.ask_configuration(lambda text: next(answers), lambda text: next(secrets))
    assert "chap = user a-secret-of-ours\n" in text
    assert "secret" not in capsys.readouterr().out


def test_files_that_are_wrong(usb, tmp_path, conf):
    image = tmp_path / "stick.img"
    refused(usb, "/nowhere", "check the path", arguments=("--config", "/nowhere", image))
    refused(usb, "--add x", "PATH=FILE", arguments=("--config", conf, "--add", "x", image))
    refused(usb, "/nowhere", "no such file", arguments=("--config", conf, "--add", "x=/nowhere", image))
    refused(usb, "BOOT", "`make`", arguments=("--efi", "/nowhere/BOOTX64.EFI", "--config", conf, image))
    conf.write_bytes(b"[node]\nname = \xff\n")
    refused(usb, "line 2", "UTF-8", arguments=("--config", conf, image))
    conf.write_text(CONF + "[vm a]\n# kernel = \\not\\this\ninitrd = \\tasuki\\images\\i\n")
    refused(usb, "line 5", "--add tasuki/images/i=FILE", arguments=("--config", conf, image))
    conf.write_text(CONF)
    refused(usb, "no such device", "lsblk", arguments=("--config", conf, "/dev/nobodys-stick"))
    refused(usb, "/dev/null", "neither", arguments=("--config", conf, "/dev/null"))
    refused(usb, "neither", arguments=("--config", conf, tmp_path))
    assert os.listdir(tmp_path) == ["alpha.conf"]


def test_a_disk_that_must_not_be_written(usb, tmp_path):
    fake = FakeDisk(usb, tmp_path)
    needed = 64 << 20

    def check(number="8:128", fixed=False):
        usb.Disk("/dev/sdx", number).check(needed, fixed)

    check()
    refused(usb, "part of the disk sdx", "name /dev/sdx", call=lambda: check("8:129"))
    refused(usb, "8:130", call=lambda: check("8:130"))
    mounts, swaps = tmp_path / "proc" / "self" / "mountinfo", tmp_path / "proc" / "swaps"
    for number, name in (("8:128", "sdx"), ("8:129", "sdx1")):
        fake.write(mounts, f"22 1 254:1 / / rw - ext4 /dev/vda1 rw\n30 22 {number} / /media/stick rw - vfat /dev/{name} rw")
        refused(usb, f"{name} is mounted on /media/stick", "unmount", call=lambda: check(fixed=True))
    fake.write(mounts, "22 1 8:12 / / rw - ext4 /dev/vda1 rw")
    check()
    fake.write(swaps, "Filename Type Size Used Priority\n/dev/sdx1 partition 1 0 -2")
    refused(usb, "sdx1 is swap", call=check)
    fake.write(swaps, "Filename Type Size Used Priority")
    (fake.disk / "sdx1" / "holders" / "dm-0").mkdir()
    refused(usb, "sdx1 is part of dm-0", call=check)
    (fake.disk / "sdx1" / "holders" / "dm-0").rmdir()
    (fake.disk / "holders" / "md0").mkdir()
    refused(usb, "sdx is part of md0", call=check)
    (fake.disk / "holders" / "md0").rmdir()
    fake.write(fake.disk / "ro", 1)
    refused(usb, "write-protected", call=check)
    fake.write(fake.disk / "ro", 0)
    fake.write(fake.disk / "size", 0)
    refused(usb, "0 MiB", "64 MiB are needed", call=check)


def test_a_disk_on_no_usb(usb, tmp_path):
    FakeDisk(usb, tmp_path, bus="pci0000:00/ata1")
    disk = usb.Disk("/dev/sdx", "8:128")
    refused(usb, "no USB", "Acme Stick", "--fixed", call=lambda: disk.check(1, False))
    disk.check(1, True)


def test_the_name_must_be_typed(usb, tmp_path, capsys):
    FakeDisk(usb, tmp_path)
    disk = usb.Disk("/dev/sdx", "8:128")
    usb.confirm(disk, lambda text: "sdx\n")
    assert "Acme Stick 4.3 GB. All that is on it will be lost." in capsys.readouterr().out
    for answer in ("", "yes", "sdx1", "y"):
        refused(usb, "nothing was written", call=lambda: usb.confirm(disk, lambda text: answer))


def test_what_is_written_and_read_back(usb, tmp_path, monkeypatch):
    image, stick = tmp_path / "image", tmp_path / "stick"
    image.write_bytes(os.urandom(1 << 20) + bytes(1 << 20) + os.urandom(12345))
    stick.write_bytes(b"\xff" * (8 << 20))
    usb.write_device(str(stick), str(image))
    content, written = stick.read_bytes(), image.read_bytes()
    assert content[:len(written)] == written, "zeros of the image were left out"
    assert content[len(written):7 << 20].count(b"\xff") == (7 << 20) - len(written)
    assert not any(content[7 << 20:]), "a copy of a partition table may be there"
    real = os.pread
    monkeypatch.setattr(usb.os, "pread", lambda device, size, at: bytes(size) if at == 2 << 20 else real(device, size, at))
    refused(usb, "MiB 2", "take another", call=lambda: usb.write_device(str(stick), str(image)))


def test_the_page_has_every_option():
    with open(os.path.join(TOP, "docs", "man", "tasuki-usb.1"), encoding="utf-8") as file:
        page = file.read().replace("\\-", "-")
    options = set(re.findall(r"--[a-z]+", tool("--help")))
    assert options >= {"--config", "--add", "--efi", "--fixed", "--force", "--yes"}
    assert not [option for option in options if option not in page]
    done = subprocess.run(["man", "-l", os.path.join(TOP, "docs", "man", "tasuki-usb.1")], capture_output=True, text=True,
                          env={**os.environ, "MANWIDTH": "80"}) if os.path.exists("/usr/bin/man") else None
    assert done is None or not done.stderr
