# SPDX-License-Identifier: MIT
"""A booted node for the system tests: its image, its shell, its VMs' consoles.

    with Node("amd", "guests", vms={"apic": {"kernel": guest("apic")}}) as node:
        node.shell("vm list")                   # text
        node.shell_json("vm show apic")         # the object that --json prints
        report = node.run_guest("apic")         # start, console, wait for the end

A value of a VM's key `kernel`, `initrd` or `disk` is a file here; it is put into the image under its own name. All
waiting has a bound. What the machine said is in LOGS/NAME-CPU.log; of a second node of that name, in
LOGS/NAME-CPU-2.log.
"""
import json
import os
import re
import sys
import time

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(TOP, "tools"))
import machine as machines  # noqa: E402
import mkesp  # noqa: E402

BUILD = os.path.join(TOP, os.environ.get("TASUKI_BUILD", "build"))
LOGS = os.environ.get("TASUKI_LOGS", os.path.join(BUILD, "logs"))
# Bochs does everything slower, and other work may share the machine's CPUs.
PATIENCE = {"amd": 1, "intel": 3}
ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")
EMPTY_LINE = rb"tasuki:[\w.-]+> \x1b\[K\r\x1b\[\d+C"
# A line of the log may come at any time, also within a command's output.
LOG_LINE = re.compile(r"\[ *\d+\.\d{6}\] (?:error|warning): [^\n]*\n")
FILES = ("kernel", "initrd", "disk")
FAST = 200_000_000  # for Node's `ips`


def guest(name):
    """The file of a small guest."""
    return os.path.join(BUILD, "guests", f"{name}.elf")


VMLINUZ = os.path.join(BUILD, "demo", "vmlinuz")
INITRD = os.path.join(BUILD, "demo", "initrd.img")


class ShellError(AssertionError):
    """A command failed; `error` is the object that --json printed."""

    def __init__(self, command, error):
        super().__init__(f"{command}: {error}")
        self.error = error


class Report:
    """What a small guest told."""

    def __init__(self, text):
        self.text = text
        self.ok = re.findall(r"^ok (.*)$", text, re.M)
        self.failures = re.findall(r"^fail (.*)$", text, re.M)
        self.notes = re.findall(r"^note (.*)$", text, re.M)
        done = re.search(r"^done (\d+) passed (\d+) failed$", text, re.M)
        self.done = bool(done)
        self.passed, self.failed = (int(done[1]), int(done[2])) if done else (0, 1)

    def check(self):
        assert self.done, f"the guest did not finish:\n{self.text[-3000:]}"
        assert not self.failures and not self.failed, "\n".join(self.failures) or self.text[-3000:]
        assert self.passed, f"the guest tested nothing:\n{self.text[-3000:]}"


def configuration(vms, node=None):
    """(text of tasuki.conf, {path in the image: file here})."""
    lines, files = ["[node]"], {}
    for key, value in {"name": "node", "log": "error", **(node or {})}.items():
        lines.append(f"{key} = {value}")
    for name, settings in vms.items():
        lines += ["", f"[vm {name}]"]
        for key, value in settings.items():
            for one in value if isinstance(value, list) else [value]:
                if key in FILES and os.path.sep in str(one):
                    inside = f"tasuki/images/{os.path.basename(one)}"
                    files[inside] = one
                    one = "\\" + inside.replace("/", "\\")
                lines.append(f"{key} = {one}")
    return "\n".join(lines) + "\n", files


class Node:
    """A machine with Tasuki on it. vms: {name: {key: value}}; conf: the whole text of tasuki.conf instead; files: more
    files for the image; without: files to leave out. Further arguments are Machine's. Boots at once."""
    # A second of Bochs' clock, in instructions. Much of a test's time is its waiting for that clock: for the serial
    # line and for timers. With fewer a guest that is busy with exits does not get on for its own timer's interrupts;
    # what needs more says so (FAST).
    IPS = 50_000_000
    part = None  # of the test that runs (conftest.py): which machine it may boot
    booted = {}  # name of a log: how many nodes have had it

    def __init__(self, cpu, name, vms=None, node=None, conf=None, files=None, without=(), timeout=60, **machine):
        self.cpu, self.name = cpu, name
        self.patience = PATIENCE[cpu]
        if self.part is not None:
            may = {"intel": "intel", "none": "no"}.get(self.part, "amd")
            assert cpu == may, f"the test is to boot {may}'s machine, and boots {cpu}'s: mark it, see conftest.py"
            counts = "-icount" in machine.get("extra", ())
            assert self.part != "counted" or counts, "marked `counted`, and does not count"
        text, content = configuration(vms or {}, node)
        self.conf = conf if conf is not None else text
        content = {"EFI/BOOT/BOOTX64.EFI": os.path.join(BUILD, "BOOTX64.EFI"), **content, **(files or {})}
        if self.conf:
            content["tasuki/tasuki.conf"] = self.conf.encode()
        for path in without:
            content.pop(path, None)
        os.makedirs(os.path.join(BUILD, "system"), exist_ok=True)
        self.image = os.path.join(BUILD, "system", f"{name}-{cpu}-{os.getpid()}.img")
        mkesp.write_image(self.image, content)
        machine.setdefault("ips", self.IPS)
        log = f"{name}-{cpu}"
        count = self.booted[log] = self.booted.get(log, 0) + 1
        log = os.path.join(LOGS, f"{log}-{count}.log" if count > 1 else f"{log}.log")
        self.machine = machines.Machine(cpu=cpu, image=self.image, log=log, **machine)
        self.attached = None
        self.runs = {}  # of small guests, by VM
        self.timeout = timeout
        try:
            self.machine.start()
            self.boot()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is not None:
            print(f"log of {self.name} on {self.cpu}:\n{self.last_log()}")
        self.close()

    def close(self):
        self.machine.kill()
        if os.path.exists(self.image):
            os.unlink(self.image)

    def boot(self):
        """Waits for the shell's prompt."""
        self.machine.expect(EMPTY_LINE, timeout=self.timeout * self.patience)

    def alive(self):
        """The machine runs, and its shell answers."""
        if self.machine.process is None or self.machine.process.poll() is not None:
            return False
        try:
            self.detach()
            self.shell("node show", timeout=20)
            return True
        except (AssertionError, OSError):
            return False

    def last_log(self):
        """The end of the node's own log, for a failed test; or why there is none."""
        try:
            self.detach()
            return self.shell("log show", timeout=20)[-30000:]
        except (AssertionError, OSError) as error:
            return f"the node does not answer: {error}\nthe emulator said: {self.machine.messages()}"

    # ---- The shell ----

    def expect(self, *patterns, timeout=60):
        """Machine.expect, with this machine's patience."""
        return self.machine.expect(*patterns, timeout=timeout * self.patience)

    def shell(self, command, timeout=30):
        """Runs a command; its output."""
        assert self.attached is None, f"the console of {self.attached} is open"
        self.machine.sendline(command)
        # The editor's last picture of the line, then the output, then the prompt of an empty line.
        tail = re.escape(command[-30:].encode())
        match = self.expect(tail + rb"\x1b\[K\r\x1b\[\d+C\r\n(.*?)\r?" + EMPTY_LINE, timeout=timeout)
        return ESCAPES.sub(b"", match[1]).decode(errors="replace").replace("\r\n", "\n")

    def shell_json(self, command, timeout=30):
        """Runs a command with --json; its object. ShellError where it is an error."""
        text = self.shell(command + " --json", timeout)
        try:
            value = json.loads(LOG_LINE.sub("", text))
        except ValueError:
            raise AssertionError(f"{command} --json printed no JSON: {text!r}") from None
        if "error" in value:
            raise ShellError(command, value["error"])
        return value

    def state(self, vm):
        return self.shell_json(f"vm show {vm}")["state"]

    def wait_state(self, vm, *states, timeout=60):
        """Until the VM is in one of the states; which. Every command takes its time, so this is no busy loop."""
        deadline = time.monotonic() + timeout * self.patience
        while (last := self.state(vm)) not in states:
            assert time.monotonic() < deadline, f"vm {vm} is {last}, not {' or '.join(states)}"
        return last

    # ---- Consoles ----

    def attach(self, vm):
        """Opens the console; what it said so far comes first."""
        assert self.attached is None
        self.machine.sendline(f"vm console {vm}")
        self.expect(r"\[console: Ctrl-\] leaves\]\r\n", timeout=30)
        self.attached = vm

    def detach(self):
        if self.attached is not None:
            self.machine.send(b"\x1d")
            self.expect(EMPTY_LINE, timeout=30)
            self.attached = None

    def console(self, vm, *patterns, timeout=60):
        """Opens the console, waits for a pattern, leaves. The match; its .string has all that came."""
        self.attach(vm)
        try:
            return self.expect(*patterns, timeout=timeout)
        finally:
            self.detach()

    def run_guest(self, vm, timeout=60, start=True):
        """Starts a VM with a small guest and reads its console to the end. Its Report. The console shows what earlier
        runs said first, so the runs are counted."""
        run = self.runs[vm] = self.runs.get(vm, 0) + 1
        if start:
            self.shell_json(f"vm start {vm}")
        self.attach(vm)
        begin = self.machine.position
        try:
            self.expect(rf"(?:^done \d+ passed \d+ failed\r\n.*?){{{run}}}", timeout=timeout)
        except machines.Timeout:
            pass
        text = self.machine.output[begin:].decode(errors="replace").replace("\r\n", "\n")
        self.detach()
        return Report(re.split(r"^(?=guest \w+$)", text, flags=re.M)[-1])


class Linux:
    """A shell of the Debian guest, by its console. Each command has a token of its own, since the console shows again
    what was said before, when it is opened. It is opened for each command, but where it is open already."""

    def __init__(self, node, vm):
        self.node, self.vm, self.count = node, vm, 0

    def run(self, command, timeout=60):
        self.count += 1
        begin, end = f"begin-{self.count}", f"end-{self.count}"
        is_open = self.node.attached == self.vm
        if not is_open:
            self.node.attach(self.vm)
        self.node.machine.send(f"echo beg''in-{self.count}; {command}; echo e''nd-{self.count}\r")
        match = self.node.expect(rf"{begin}\r\n(.*?){end}\r\n", timeout=timeout)
        if not is_open:
            self.node.detach()
        return match[1].decode(errors="replace").replace("\r\n", "\n")

    def wait_beyond(self, path, number):
        """Until the first number in a file is greater; all that the file has."""
        self.run(f"until [ $(cut -d' ' -f1 {path}) -gt {number} ]; do sleep 0.1; done")
        return [int(word) for word in self.run(f"cat {path}").split()]
