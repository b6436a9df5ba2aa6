# SPDX-License-Identifier: MIT
"""What `make run` does: a target with a volume that is kept from run to run, a VM on it, the restart of the target, and that
nothing of it is left behind."""
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time

import pytest
from node import BUILD, INITRD, TOP, VMLINUZ

sys.path.insert(0, os.path.join(TOP, "tools"))
import run  # noqa: E402
import scene as scenes  # noqa: E402


@pytest.fixture
def build(tmp_path):
    """A build directory with a small guest in place of Debian: its disk has 1 MiB of content."""
    (tmp_path / "demo").mkdir()
    for name, path in (("BOOTX64.EFI", os.path.join(BUILD, "BOOTX64.EFI")), ("tasuki-csv", os.path.join(BUILD, "tasuki-csv")),
                       ("demo/vmlinuz", VMLINUZ), ("debian-initrd", INITRD)):
        (tmp_path / name).symlink_to(os.path.abspath(path))
    (tmp_path / "debian.img").write_bytes(os.urandom(1 << 20))
    os.truncate(tmp_path / "debian.img", 64 << 20)
    return tmp_path


def content(scene, folder):
    (folder / "got").unlink(missing_ok=True)
    scene.tool("get", "/demo/disk0.img", str(folder / "got"))
    return (folder / "got").read_bytes()


@pytest.mark.vendor("none")
def test_the_volume_is_made_once(build, tmp_path):
    said = []
    with scenes.Scene(build) as scene:
        scene.prepare(said.append)
        assert len(said) == 1 and "Making a volume" in said[0]
        process = scene.target.process
        assert content(scene, tmp_path) == (build / "debian.img").read_bytes()
        scene.tool("fsck")
        scene.tool("put", str(tmp_path / "got"), "/demo/another")
    assert process.poll() is not None, "the target goes on"
    with scenes.Scene(build) as scene:
        scene.prepare(said.append)
        assert len(said) == 1
        scene.tool("rm", "/demo/another")  # it is there
    (build / "debian.img").write_bytes(b"another one" * 1000)
    with scenes.Scene(build) as scene:
        scene.prepare(said.append)
        assert len(said) == 2 and "FRESH=1" in said[1]
        assert len(content(scene, tmp_path)) == 64 << 20, "what the guest has written was thrown away"
    with scenes.Scene(build) as scene:
        scene.forget()
        scene.prepare(said.append)
        assert content(scene, tmp_path) == (build / "debian.img").read_bytes()


@pytest.mark.vendor("none")
def test_a_volume_that_was_not_filled_is_begun_again(build, tmp_path):
    with scenes.Scene(build) as scene:
        scene.vm = {**scene.vm, "vm.conf": str(tmp_path / "nowhere")}
        with pytest.raises(scenes.SceneError, match="nowhere"):
            scene.prepare()
    with scenes.Scene(build) as scene:
        scene.prepare()
        assert content(scene, tmp_path) == (build / "debian.img").read_bytes()


@pytest.mark.vendor("none")
def test_one_at_a_time(build):
    with pytest.raises(scenes.SceneError, match="no node runs"):
        scenes.tell_restart(build)
    with scenes.Scene(build):
        assert scenes.user_of(build / "scene") == os.getpid()
        assert scenes.has_open(os.getpid(), build / "scene" / "lock")
        (build / "scene" / "lock").write_text(f"{os.getppid()}\n")  # as if of another container
        with pytest.raises(scenes.SceneError, match="Ctrl-a t"):
            scenes.tell_restart(build)
        (build / "scene" / "lock").write_text(f"{os.getpid()}\n")
        with pytest.raises(scenes.SceneError, match=f"process {os.getpid()} uses it"):
            with scenes.Scene(build):
                pass
    assert scenes.user_of(build / "scene") is None


@pytest.mark.vendor("none")
def test_the_target_dies_with_its_run(build):
    """However that ends; and the next run has the volume."""
    code = (f"import sys, time; sys.path.insert(0, {os.path.join(TOP, 'tools')!r}); import scene\n"
            f"with scene.Scene({str(build)!r}) as s: s.prepare(); print(s.target.process.pid, flush=True); time.sleep(100)")
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        target = int(process.stdout.readline())
        process.kill()
    deadline = time.monotonic() + 20
    while os.path.exists(f"/proc/{target}/exe"):
        assert time.monotonic() < deadline, "the target goes on"
        time.sleep(0.05)
    with scenes.Scene(build) as scene:
        scene.prepare(pytest.fail)


@pytest.mark.vendor("none")
def test_keys_that_are_kept():
    assert run.split_escapes(b"ab\x01\x01c\x01ad\x01te", False) == (b"ab\x01c\x01de", False, b"t")
    assert run.split_escapes(b"a\x01", False) == (b"a", True, b"")
    assert run.split_escapes(b"tb", True) == (b"b", False, b"t")
    assert run.split_escapes(b"a\x01xb\x01t", False) == (b"a", False, b"x")
    assert run.split_escapes(b"\x01b", False) == (b"\x01b", False, b"")


class User:
    """Somebody at a terminal."""

    def __init__(self, *command):
        self.master, self.slave = pty.openpty()
        self.before = termios.tcgetattr(self.slave)
        self.said, self.position = b"", 0
        self.process = subprocess.Popen([sys.executable, *command], stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                        cwd=TOP)

    def expect(self, pattern, timeout=60):
        deadline = time.monotonic() + timeout
        while True:
            match = re.compile(pattern.encode()).search(self.said, self.position)
            if match:
                self.position = match.end()
                return match
            left = deadline - time.monotonic()
            assert left > 0 and select.select([self.master], [], [], left)[0], f"no {pattern!r} in {self.said[-2000:]!r}"
            self.said += os.read(self.master, 65536)

    def type(self, text):
        os.write(self.master, text.encode())

    def leave(self):
        """The status, when the program has ended by itself."""
        deadline = time.monotonic() + 60
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.said[-2000:]
            if select.select([self.master], [], [], 0.1)[0]:
                self.said += os.read(self.master, 65536)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"
        return self.process.returncode

    def close(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        os.close(self.master)
        os.close(self.slave)


def test_a_user_at_a_terminal(build):
    """A guest on the volume writes while the target is restarted, by a key and from another terminal; the next run has it."""
    program = os.path.join(TOP, "tools", "run.py")
    user = User(program, "--build", str(build))
    try:
        target = int(user.expect(r"tgtd, process (\d+)")[1])
        user.expect(r"vm demo: running", 90)
        user.type("vm console demo\r")
        user.expect(r"# ", 90)
        for restart in ("key", "command"):
            user.type("i=0; while [ $i -lt 60 ]; do dd if=/dev/urandom of=/tmp/x bs=64k count=1 2>/dev/null; cat /tmp/x >>/tmp/all; "
                      "dd if=/tmp/x of=/dev/vda bs=64k seek=$i conv=fsync 2>/dev/null || echo b''ad; i=$((i + 1)); "
                      "[ $i = 20 ] && echo mid''dle; done; cmp -n $((60 * 65536)) /tmp/all /dev/vda && echo sa''me\r")
            user.expect("middle", 90)
            if restart == "key":
                user.type("\x01t")
            else:
                told = subprocess.run([sys.executable, program, "--build", str(build), "--restart-target"], capture_output=True,
                                      text=True, timeout=30)
                assert told.returncode == 0 and f"process {user.process.pid}" in told.stdout, told
            user.expect(rf"\[run: the target, process {target}, is killed", 30)
            target = int(user.expect(r"\[run: the target is back, process (\d+)\]", 30)[1])
            user.expect("same", 120)
            assert b"bad" not in user.said
            user.type("rm /tmp/all; echo 3 >/proc/sys/vm/drop_caches\r")
        user.type("head -c 4M /dev/vda | md5sum\r")
        written = user.expect(r"([0-9a-f]{32})  -")[1]
        user.type("\x1d")
        user.expect(r"tasuki:node> ")
        user.type("\x01x")
        assert user.leave() == 0 and b"by pulling its plug" in user.said
        with pytest.raises(ProcessLookupError):
            os.kill(target, 0)
    finally:
        user.close()
    user = User(program, "--build", str(build))
    try:
        user.expect(r"vm demo: running", 90)
        user.type("vm console demo\r")
        user.expect(r"# ", 90)
        user.type("head -c 4M /dev/vda | md5sum\r")
        assert user.expect(r"([0-9a-f]{32})  -")[1] == written
        user.type("\x1d")
        user.expect(r"tasuki:node> ")
        user.type("node poweroff\r")
        assert user.leave() == 0 and b"The node is off" in user.said
    finally:
        user.close()
