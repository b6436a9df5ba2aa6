# SPDX-License-Identifier: MIT
"""Debian's tgt as an iSCSI target at the loopback, in the foreground, with a file behind its logical unit 1. For
`make run` (scene.py) and the system tests (tests/system/target.py).

A Tgt is a process of its own, beside any other tgtd on the machine: it has its own port, control socket and log. It is
ended by its process id, and dies with the thread that started it.
"""
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machine import die_with_parent  # noqa: E402


class TargetError(Exception):
    """The target could not be started, or does not answer."""


def free_port():
    """A TCP port of the loopback that nobody has at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def control_number():
    """For tgtd's -C, by which several of them tell their shared names apart."""
    return str(os.getpid() % 30000 + free_port() % 1000)


class Tgt:
    """directory: for its control socket and log; disk: the file of unit 1; digests: whether it can do CRC-32C. Not started
    before start(); kill() takes what only its own memory held, start() brings it back on the same port."""

    def __init__(self, directory, disk, name, digests=True):
        self.directory, self.disk, self.name, self.digests = directory, disk, name, digests
        self.control = control_number()
        self.port = free_port()
        self.process = None

    def path(self, name):
        return os.path.join(self.directory, name)

    def environment(self):
        return {**os.environ, "TGT_IPC_SOCKET": self.path("ipc"), "PATH": os.environ["PATH"] + ":/usr/sbin"}

    def admin(self, *arguments, check=True):
        """One tgtadm; TargetError where it fails, unless not `check`."""
        done = subprocess.run(["tgtadm", "-C", self.control, "--lld", "iscsi", *arguments], env=self.environment(),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=30)
        if check and done.returncode:
            raise TargetError(f"tgtadm {' '.join(arguments)}: {done.stdout.strip()}")
        return done

    def start(self):
        """Returns when it serves the unit."""
        command = ["tgtd", "-f", "-C", self.control, "--iscsi", f"portal=127.0.0.1:{self.port}"]
        with open(self.path("tgtd.log"), "ab") as log:
            try:
                self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                env=self.environment(), preexec_fn=die_with_parent, start_new_session=True)
            except FileNotFoundError:
                raise TargetError("tgtd is not installed: `make setup` installs it (Debian package tgt)") from None
        deadline = time.monotonic() + 20
        while self.admin("--op", "show", "--mode", "system", check=False).returncode:
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise TargetError(f"tgtd does not answer on port {self.port}; it said: {self.log()}")
            time.sleep(0.05)
        self.admin("--op", "new", "--mode", "target", "--tid", "1", "-T", self.name)
        self.admin("--op", "new", "--mode", "logicalunit", "--tid", "1", "--lun", "1", "-b", self.disk)
        if self.digests:
            for key in ("HeaderDigest", "DataDigest"):
                self.admin("--op", "update", "--mode", "target", "--tid", "1", "-n", key, "-v", "CRC32C,None")
        self.prepare()
        self.admin("--op", "bind", "--mode", "target", "--tid", "1", "-I", "ALL")

    def prepare(self):
        """What else the target needs before it takes initiators."""

    def log(self):
        with open(self.path("tgtd.log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def kill(self):
        """At once: what it had in its own memory is lost with it."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
