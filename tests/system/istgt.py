# SPDX-License-Identifier: MIT
"""A third real iSCSI target for the system tests: Debian's istgt, in the foreground, with a configuration, ports and a file of
its own.

    with IstgtTarget(size=64 << 20, chap=2) as target:
        target.configuration("san")

It keeps no reservation when it ends.
"""
import os
import socket
import subprocess
import time

from target import NAME, OURS, THEIRS, Unit, free_port
from machine import die_with_parent  # target.py has put its folder on the path

CONFIGURATION = """
[Global]
  NodeBase "iqn.2026-11.example"
  PidFile {directory}/istgt.pid
  AuthFile {directory}/auth.conf
  MediaDirectory {directory}
  LogFacility local7
  Timeout 30
  NopInInterval 20
  DiscoveryAuthMethod {method}
  DiscoveryAuthGroup AuthGroup1
  MaxSessions 16
  MaxConnections 4
  FirstBurstLength 262144
  MaxBurstLength 1048576
  MaxRecvDataSegmentLength 262144
[UnitControl]
  AuthMethod None
[InitiatorGroup1]
  InitiatorName "ALL"
  Netmask 127.0.0.0/8
{portals}
[LogicalUnit1]
  TargetName "{name}"
  {mappings}
  AuthMethod {method}
  AuthGroup AuthGroup1
  UseDigest Auto
  UnitType Disk
  UnitInquiry "ISTGT" "DISK" "0001" "10000001"
  LUN0 Storage {disk} {size}
"""


class IstgtTarget(Unit):
    """chap: as Target's; it always does digests, if asked to. groups: portal groups, each with a port of its own (`ports`)."""
    prefix = "tasuki-istgt-"
    model = "ISTGT DISK"
    lun = 0  # it has no unit without this one

    def __init__(self, size=64 << 20, chap=0, name=NAME, groups=1):
        super().__init__(size, chap, True, name)
        self.ports = [self.port] + [free_port() for _ in range(groups - 1)]
        self.process = None

    def write(self, name, text):
        with open(os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    def start(self):
        groups = range(1, len(self.ports) + 1)
        self.write("auth.conf", "[AuthGroup1]\n" + (f'  Auth "{OURS[0]}" "{OURS[1]}"' if self.chap else "") +
                   (f' "{THEIRS[0]}" "{THEIRS[1]}"' if self.chap == 2 else "") + "\n")
        self.write("istgt.conf", CONFIGURATION.format(
            directory=self.directory, name=self.name, disk=self.disk, size=os.path.getsize(self.disk),
            method=("None", "CHAP", "CHAP Mutual")[self.chap],
            portals="\n".join(f"[PortalGroup{i}]\n  Portal DA{i} 127.0.0.1:{self.ports[i - 1]}" for i in groups),
            mappings="\n  ".join(f"Mapping PortalGroup{i} InitiatorGroup1" for i in groups)))
        with open(self.path("istgt.log"), "ab") as log:
            self.process = subprocess.Popen(
                ["/usr/sbin/istgt", "-D", "-c", self.path("istgt.conf"), "-p", self.path("istgt.pid")],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent)
        deadline = time.monotonic() + 20
        while True:
            assert self.process.poll() is None, "istgt ended: " + self.log()
            assert time.monotonic() < deadline, "istgt does not listen: " + self.log()
            try:
                for port in self.ports:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                return
            except OSError:
                time.sleep(0.05)

    def log(self):
        with open(self.path("istgt.log"), encoding="utf-8", errors="replace") as file:
            return file.read()[-2000:]

    def kill(self):
        """At once: what it had in its own memory is lost with it."""
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None
