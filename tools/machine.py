#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""A machine to boot Tasuki on: QEMU emulates AMD's virtualization, Bochs emulates Intel's.

    with Machine(cpu="amd", image="build/esp.img") as machine:
        machine.expect(r"tasuki:\\w+> ", timeout=60)
        machine.sendline("node show")

The machine's first serial port is a socket to this program. Everything that it says is kept in `machine.output` and, where
a log is named, in that file. The disk image is never changed: QEMU writes to a throw-away overlay, Bochs to a copy.

A machine dies with this program, however that ends: the kernel kills the emulator (PR_SET_PDEATHSIG), and its files are in
a temporary directory.
"""
import ctypes
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

OVMF_CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
OVMF_VARS = "/usr/share/OVMF/OVMF_VARS_4M.fd"
OVMF_WHOLE = "/usr/share/ovmf/OVMF.fd"  # code and variables in one, for Bochs
BOCHS_VGA = "/usr/share/bochs/VGABIOS-lgpl-latest"
PR_SET_PDEATHSIG = 1


class MachineError(Exception):
    """The emulator could not be started, or ended when it should not."""


class Timeout(AssertionError):
    """What was expected did not come. The text ends with what the machine said last."""


def die_with_parent():
    """Runs in the child before exec. A session of its own keeps the terminal's Ctrl-C from the emulator."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def listens(pid, port):
    """Whether the process is the one that listens on the TCP port (Linux: proc(5), /proc/PID/net/tcp and fd)."""
    try:
        with open(f"/proc/{pid}/net/tcp", encoding="ascii") as file:
            rows = [line.split() for line in file.readlines()[1:]]
        # Local address and port, state (0A: LISTEN), inode of the socket.
        inodes = {row[9] for row in rows if row[1].endswith(f":{port:04X}") and row[3] == "0A"}
        held = {os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")}
    except OSError:  # the process ends, or closes a file, at this moment
        return False
    return any(f"socket:[{inode}]" in held for inode in inodes)


class Machine:
    """One emulated machine. Not started before start() or `with`.

    cpu      "amd" (QEMU, SVM) or "intel" (Bochs, VMX)
    image    disk image to boot from
    smp      CPUs. Three in QEMU, since its boot CPU gets no guests (docs/platform.md), and two in Bochs
    threads  of them on each core
    memory   MiB
    log      file for the serial output; its directory is made
    extra    more arguments: QEMU's command line, or lines of Bochs' configuration
    qmp      QEMU only: a control socket, for qmp()
    model    QEMU's -cpu or Bochs' CPU model, instead of the usual one
    accel    QEMU's -accel
    firmware False: no UEFI firmware and no disk is attached (for -kernel in extra)
    clock    Bochs' clock: none (as fast as it goes; RDTSC counts instructions) or realtime
    cards    network cards, a dictionary each: `model` (QEMU: e1000, e1000e, virtio-net-pci; Bochs has an e1000 alone),
             `mac`, and `to`: "user" (the emulator's own small network, 10.0.2.0/24 with DHCP), or a pair of ports: frames go
             as UDP datagrams from the first to the second at 127.0.0.1, and come from there (Bochs: to the next port)
    debugger commands for Bochs' debugger, each given when the one before is done ("c": when the machine has stopped)
    environment  more of Bochs' environment, a dictionary
    ips      Bochs' instructions in a second of its clock: with its default of 4 million a guest only serves its timer
    """

    def __init__(self, cpu="amd", image=None, smp=None, threads=1, memory=2048, log=None, extra=(), qmp=False, model=None,
                 accel="tcg,thread=multi", firmware=True, clock="none", ips=200_000_000, cards=(),
                 debugger=(), environment=None):
        if cpu not in ("amd", "intel"):
            raise ValueError(f"cpu {cpu!r}: amd or intel")
        smp = smp or {"amd": 3, "intel": 2}[cpu]
        if smp % threads:
            raise ValueError(f"{smp} CPUs are not cores of {threads} threads")
        self.cpu, self.image, self.smp, self.threads, self.memory = cpu, image, smp, threads, memory
        self.extra, self.want_qmp, self.accel, self.firmware, self.clock = list(extra), qmp, accel, firmware, clock
        self.ips = ips
        self.debugger, self.environment = list(debugger), dict(environment or {})
        self.cards = [{"model": "e1000", "mac": f"52:54:00:12:34:{0x56 + i:02x}", "to": "user", **card}
                      for i, card in enumerate(cards)]
        self.model = model or ("max" if cpu == "amd" else "corei7_skylake_x")
        self.log_path = log
        self.output = b""  # all that the serial port said
        self.position = 0  # in output: where the next expect() begins
        self.process = self.serial = self.directory = None
        self._log = self._reader = self._qmp = self._messages = None
        self._changed = threading.Condition()
        self._ended = False

    # ---- Life ----

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.kill()

    def start(self):
        if self.firmware and not os.path.exists(self.image or ""):
            raise MachineError(f"{self.image}: there is no such image; `make` builds build/esp.img")
        self.directory = tempfile.mkdtemp(prefix="tasuki-")
        try:
            if self.log_path:
                os.makedirs(os.path.dirname(os.path.abspath(self.log_path)), exist_ok=True)
                self._log = open(self.log_path, "wb")
            self._messages = open(self.path("emulator.log"), "wb")
            (self.start_qemu if self.cpu == "amd" else self.start_bochs)()
        except BaseException:
            self.kill()
            raise
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def path(self, name):
        return os.path.join(self.directory, name)

    def launch(self, command, stdout, **environment):
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=self._messages,
                                            cwd=self.directory, preexec_fn=die_with_parent, start_new_session=True,
                                            env={**os.environ, **environment})
        except FileNotFoundError:
            raise MachineError(f"{command[0]} is not installed: `make setup` installs it") from None

    def accept(self, listener, what, timeout=30):
        """The emulator's connection; MachineError with its own words where it ends instead."""
        deadline = time.monotonic() + timeout
        listener.settimeout(0.2)
        while True:
            try:
                connection, _ = listener.accept()
                connection.settimeout(None)
                return connection
            except socket.timeout:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    raise MachineError(f"{what} did not start: {self.messages()}") from None
            finally:
                if self.process.poll() is not None:
                    listener.close()

    def messages(self):
        """The last words of the emulator itself."""
        with open(self.path("emulator.log"), "rb") as file:
            return file.read()[-2000:].decode(errors="replace").strip() or "it said nothing"

    def start_qemu(self):
        serial = socket.socket(socket.AF_UNIX)
        serial.bind(self.path("serial"))
        serial.listen(1)
        command = ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-machine", "q35", "-accel", self.accel,
                   "-cpu", self.model, "-smp", self.qemu_smp(), "-m", str(self.memory), "-display", "none", "-vga", "std",
                   "-chardev", f"socket,id=com1,path={self.path('serial')}", "-serial", "chardev:com1"]
        if self.firmware:
            shutil.copyfile(OVMF_VARS, self.path("vars.fd"))
            command += ["-drive", f"if=pflash,format=raw,readonly=on,file={OVMF_CODE}",
                        "-drive", f"if=pflash,format=raw,file={self.path('vars.fd')}",
                        "-drive", f"if=none,id=boot,format=raw,snapshot=on,file={os.path.abspath(self.image)}",
                        "-device", "ide-hd,drive=boot,bootindex=1"]
        for i, card in enumerate(self.cards):
            address = "inet,local.host=127.0.0.1,local.port={},remote.type=inet,remote.host=127.0.0.1,remote.port={}"
            net = "user" if card["to"] == "user" else "dgram,local.type=" + address.format(*card["to"])
            command += ["-netdev", f"{net},id=net{i}", "-device", f"{card['model']},netdev=net{i},mac={card['mac']},id=card{i}"]
        control = None
        if self.want_qmp:
            control = socket.socket(socket.AF_UNIX)
            control.bind(self.path("qmp"))
            control.listen(1)
            command += ["-chardev", f"socket,id=qmp,path={self.path('qmp')}", "-mon", "chardev=qmp,mode=control"]
        self.launch(command + self.extra, self._messages, TMPDIR=self.directory)
        self.serial = self.accept(serial, "QEMU")
        serial.close()
        if control:
            self._qmp = self.accept(control, "QEMU").makefile("rw", encoding="utf-8")
            control.close()
            self._qmp.readline()
            self.qmp("qmp_capabilities")

    def qemu_smp(self):
        if self.threads == 1:
            return str(self.smp)
        return f"{self.smp},sockets=1,cores={self.smp // self.threads},threads={self.threads}"

    def start_bochs(self):
        subprocess.run(["cp", "--sparse=always", self.image, self.path("disk.img")], check=True)
        # Packages, cores of each, threads of each.
        count = self.smp if self.threads == 1 else f"1:{self.smp // self.threads}:{self.threads}"
        # Bochs listens, on a port that must be free. Another program, perhaps another Bochs, may be quicker to take it;
        # then this one ends, and is started again with another port.
        for _ in range(5):
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                port = probe.getsockname()[1]
            lines = [
                "display_library: term", "config_interface: textconfig", f"clock: sync={self.clock}",
                "info: action=ignore", "error: action=ignore", "debug: action=ignore", "panic: action=fatal",
                "log: /dev/null", "sound: waveoutdrv=dummy, waveindrv=dummy, midioutdrv=dummy",
                # With its plugin there is a card, whether a line asks for one or not.
                f"plugin_ctrl: unmapped=1, biosdev=1, serial=1, e1000={int(bool(self.cards))}",
                f"cpu: model={self.model}, count={count}, ips={self.ips}, reset_on_triple_fault=1, "
                "ignore_bad_msrs=1",
                f"megs: {self.memory}", f"romimage: file={OVMF_WHOLE}", f"vgaromimage: file={BOCHS_VGA}",
                "ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14",
                f"ata0-master: type=disk, mode=flat, path={self.path('disk.img')}", "boot: disk",
                f"com1: enabled=1, mode=socket-server, dev=127.0.0.1:{port}",
            ]
            for i, card in enumerate(self.cards):
                mode = "slirp" if card["to"] == "user" else f"socket, ethdev={card['to'][0]}"
                lines.append(f"e1000: card={i}, enabled=1, mac={card['mac']}, ethmod={mode}")
            with open(self.path("bochsrc"), "w", encoding="utf-8") as file:
                file.write("\n".join(lines + self.extra) + "\n")
            with open(self.path("debugger"), "w", encoding="utf-8") as file:
                file.write("".join(f"{command}\n" for command in [*self.debugger, "c"]))
            self.launch(["bochs", "-q", "-f", self.path("bochsrc"), "-rc", self.path("debugger")], subprocess.DEVNULL,
                        TERM="vt100", **self.environment)
            if self.connect_bochs(port):
                return
            self.end_process()
            if os.path.exists(self.path("disk.img.lock")):
                os.unlink(self.path("disk.img.lock"))
        raise MachineError(f"Bochs did not start: {self.messages()}")

    def connect_bochs(self, port):
        """False where Bochs does not come to listen. Nobody else's port is connected to."""
        deadline = time.monotonic() + 30
        while self.process.poll() is None and time.monotonic() < deadline:
            if not listens(self.process.pid, port):
                time.sleep(0.05)
                continue
            try:
                self.serial = socket.create_connection(("127.0.0.1", port), timeout=1)
                self.serial.settimeout(None)
                self.serial.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return True
            except OSError:
                time.sleep(0.05)
        return False

    def _read(self):
        while True:
            try:
                data = self.serial.recv(65536)
            except OSError:
                data = b""
            with self._changed:
                if data:
                    self.output += data
                    if self._log:
                        self._log.write(data)
                        self._log.flush()
                else:
                    self._ended = True
                self._changed.notify_all()
            if not data:
                return

    def end_process(self):
        if self.process and self.process.poll() is None:
            self.process.kill()  # Bochs ignores SIGTERM
        if self.process:
            self.process.wait()

    def kill(self):
        """Ends the machine and removes its files. May be called at any time, also twice."""
        self.end_process()
        if self.serial:
            try:
                self.serial.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        if self._reader:
            self._reader.join(timeout=10)
            self._reader = None
        for file in (self.serial, self._qmp, self._log, self._messages):
            if file:
                file.close()
        self.serial = self._qmp = self._log = self._messages = None
        if self.directory:
            shutil.rmtree(self.directory, ignore_errors=True)
            self.directory = None

    def wait(self, timeout):
        """Waits for the machine to power itself off; the emulator's exit status. Timeout where it does not."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise Timeout(f"the machine is still on after {timeout} s; it said last:\n{self.tail()}") from None

    # ---- Talking ----

    def send(self, data):
        """Sends bytes, or text as UTF-8, as they are."""
        self.serial.sendall(data.encode() if isinstance(data, str) else data)

    def sendline(self, text=""):
        """Sends a line as a terminal does, with a carriage return."""
        self.send(text + "\r")

    def tail(self, count=2000):
        return self.output[-count:].decode(errors="replace")

    def expect(self, *patterns, timeout=60):
        """Waits until one of the regular expressions (text or bytes) matches what was said after the last match. Returns
        the match object of bytes; match.pattern_index is not there, so with several use match.re. The earliest match
        counts. Timeout after `timeout` seconds, or at once when the machine is gone."""
        compiled = [re.compile(p.encode() if isinstance(p, str) else p, re.S | re.M) for p in patterns]
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                began = time.monotonic()
                matches = [m for m in (c.search(self.output, self.position) for c in compiled) if m]
                spent = time.monotonic() - began
                if matches:
                    match = min(matches, key=lambda m: (m.start(), m.end()))
                    self.position = match.end()
                    return match
                left = deadline - time.monotonic()
                if left <= 0 or self._ended:
                    why = "the machine ended" if self._ended else f"not within {timeout} s"
                    raise Timeout(f"expected {' or '.join(map(repr, patterns))}: {why}; it said last:\n{self.tail()}")
                self._changed.wait(left)
                # A long search for each few bytes that come would keep the reader, and thus the machine, from going on.
                while spent > 0:
                    began = time.monotonic()
                    self._changed.wait(spent)
                    spent -= time.monotonic() - began

    def qmp(self, command, **arguments):
        """One command to QEMU's monitor; its return value."""
        self._qmp.write(json.dumps({"execute": command, "arguments": arguments}) + "\n")
        self._qmp.flush()
        while True:
            line = self._qmp.readline()
            if not line:
                raise MachineError(f"QMP {command}: QEMU is gone")
            answer = json.loads(line)
            if "return" in answer:
                return answer["return"]
            if "error" in answer:
                raise MachineError(f"QMP {command}: {answer['error']['desc']}")
