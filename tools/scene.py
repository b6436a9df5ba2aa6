# SPDX-License-Identifier: MIT
"""What `make run` puts around a node: an iSCSI target with a volume on its unit, a VM on that volume (its vm.conf, a kernel, and
a disk with Debian), and the image that the node boots from.

    with Scene("build") as scene:          # where build/debian.img and the rest are
        scene.prepare()                    # seconds where the volume is there already, else half a minute
        scene.image                        # for a Machine
        scene.target.kill()                # and start(): the restart of a target

All of it is in BUILD/scene: lun.img, the file behind the unit, is kept from run to run, with all that the guest has written;
`filled` beside it says that its volume was made to the end. One program at a time uses it, which is held by a lock on the
file `lock`, where its process id stands.
"""
import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import mkesp  # noqa: E402
from tgt import TargetError, Tgt  # noqa: E402

TARGET = "iqn.2026-11.example:demo"
LUN_BYTES = 4 << 30
TOOLS = os.path.dirname(os.path.abspath(__file__))


class SceneError(Exception):
    """Something of the scene could not be made; the text is for the user."""


def user_of(directory):
    """The process id of the program that uses the scene in this directory, or None."""
    try:
        with open(os.path.join(directory, "lock"), encoding="ascii") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return int(lock.read().split()[0])
    except (OSError, ValueError, IndexError):
        return None


def has_open(pid, path):
    """Whether the process has the file open: a process id may be meant in another container."""
    try:
        wanted = os.stat(path)
        return any(os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), wanted) for name in os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return False


def tell_restart(build):
    """Has the program that uses the scene restart its target. Returns its process id."""
    pid = user_of(os.path.join(build, "scene"))
    if pid is None:
        raise SceneError(f"no node runs with a target in {build}/scene: start one by `make run` in another terminal")
    if not has_open(pid, os.path.join(build, "scene", "lock")):
        raise SceneError(f"{build}/scene: process {pid} uses it, but here that is another process, or another user's: use Ctrl-a t "
                         "in the node's terminal")
    os.kill(pid, signal.SIGUSR1)
    return pid


class Scene:
    """build: the build directory. vm: {name in the VM's directory on the volume: file here}; its usual files where it is left
    out."""

    def __init__(self, build, vm=None, lun_bytes=LUN_BYTES):
        self.build = os.path.abspath(build)
        self.directory = os.path.join(self.build, "scene")
        self.vm = vm or {"disk0.img": os.path.join(self.build, "debian.img"),
                         "vmlinuz": os.path.join(self.build, "demo", "vmlinuz"),
                         "initrd.img": os.path.join(self.build, "debian-initrd"),
                         "vm.conf": os.path.join(TOOLS, "demo-vm.conf")}
        self.lun_bytes = lun_bytes
        self.lun = os.path.join(self.directory, "lun.img")
        self.image = os.path.join(self.directory, "node.img")
        self.target = self.lock = self.temporary = None

    def __enter__(self):
        os.makedirs(self.directory, exist_ok=True)
        self.lock = open(os.path.join(self.directory, "lock"), "a+", encoding="ascii")
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.lock.close()
            raise SceneError(f"{self.directory}: process {user_of(self.directory)} uses it: end that run first, or say "
                             "`make run BUILD=DIRECTORY` for one of its own") from None
        self.lock.truncate(0)
        self.lock.write(f"{os.getpid()}\n")
        self.lock.flush()
        self.temporary = tempfile.mkdtemp(prefix="tasuki-tgt-")  # a socket's path must be short
        self.target = Tgt(self.temporary, self.lun, TARGET)
        return self

    def __exit__(self, *_):
        self.target.kill()
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.lock.close()

    def url(self):
        return f"iscsi://127.0.0.1:{self.target.port}/{TARGET}/1"

    def is_filled(self):
        return os.path.exists(os.path.join(self.directory, "filled")) and os.path.exists(self.lun)

    def is_older(self):
        """Whether the VM was made of other files than those that are there now."""
        with open(os.path.join(self.directory, "filled"), encoding="ascii") as file:
            return file.read() != self.identity()

    def identity(self):
        files = [os.stat(path) for _, path in sorted(self.vm.items())]
        return "".join(f"{file.st_size} {file.st_mtime_ns}\n" for file in files)

    def forget(self):
        """Removes the volume, with all that is on it: prepare() makes a new one."""
        for name in ("filled", "lun.img"):
            if os.path.exists(os.path.join(self.directory, name)):
                os.unlink(os.path.join(self.directory, name))

    def tool(self, command, *arguments):
        """tasuki-csv on the unit, over iSCSI as on any target."""
        line = [os.path.join(self.build, "tasuki-csv"), command, self.url(), *arguments]
        done = subprocess.run(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise SceneError(f"{' '.join(line)}:\n{done.stdout.strip()}")

    def prepare(self, say=lambda text: None):
        """Starts the target, makes and fills the volume where there is none, and writes the node's image. What takes long
        is told to `say` beforehand."""
        try:
            is_new = not self.is_filled()
            if is_new:
                self.forget()
                with open(self.lun, "wb") as file:
                    file.truncate(self.lun_bytes)
            self.target.start()
            if is_new:
                say("Making a volume on the target's unit, and putting the VM with Debian's disk on it ...")
                identity = self.identity()
                self.tool("mkfs", "--label", "Volume1")
                self.tool("mkdir", "/demo")
                for name, path in self.vm.items():
                    self.tool("put", path, f"/demo/{name}")
                with open(os.path.join(self.directory, "filled"), "w", encoding="ascii") as file:
                    file.write(identity)
            elif self.is_older():
                say(f"{self.lun} has the VM of earlier runs, made of other files than those of {self.build} now: "
                    "`make run FRESH=1` makes it anew.")
            with open(os.path.join(TOOLS, "demo.conf"), encoding="utf-8") as file:
                conf = file.read().replace("@PORTAL@", f"10.0.2.2:{self.target.port}").replace("@TARGET@", TARGET)
            mkesp.write_image(self.image, {"EFI/BOOT/BOOTX64.EFI": os.path.join(self.build, "BOOTX64.EFI"),
                                           "tasuki/tasuki.conf": conf.encode()})
        except (TargetError, OSError, ValueError, subprocess.SubprocessError) as error:
            raise SceneError(f"{self.directory}: {error}") from error
