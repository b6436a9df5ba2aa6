#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""The storage part of `make bench`: a guest's disk on an iSCSI target, under Tasuki and under Linux KVM, QEMU and open-iscsi.

Both are the same emulated machine (QEMU's AMD, two cards), one after the other, with the same target, the same guest and the same
load (tests/peer/load.c). What a request costs the host's side is counted by a plugin of QEMU's (tests/peer/count_plugin.c): all
instructions of all CPUs, but for those of the guest itself. On Bochs' Intel machine, Tasuki alone, tests/peer/count_trace.c
counts them by the debugger's trace. docs/build.md says what the rows mean.
"""
import glob
import os
import random
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tools"), os.path.join(ROOT, "tests", "system")]
import fetch  # noqa: E402
import mkdemo  # noqa: E402
import mkesp  # noqa: E402
from machine import Machine, MachineError  # noqa: E402
from target import INITIATOR, NAME, Target  # noqa: E402

TIMEOUT = 1200  # of a machine's whole run, in seconds of this machine's time, which others may share
FAILED = re.compile(rb"load: failed|Kernel panic")
PROMPT = r"tasuki:\w+> "
UNIT_MIB = 256
FILE_MIB = 192
VOLUME_MIB = 384  # that file, and the one of many extents twice
EXTENTS = 10000
# Rows: name, read or write, bytes, requests at once, how many.
DISK_ROWS = [
    ("read_4k_1", "read", 4096, 1, 1500), ("read_4k_32", "read", 4096, 32, 4000),
    ("write_4k_1", "write", 4096, 1, 1500), ("write_4k_32", "write", 4096, 32, 4000),
    ("read_1m", "read", 1 << 20, 4, 100), ("write_1m", "write", 1 << 20, 4, 100),
]
SMALL_ROWS = [row for row in DISK_ROWS if row[2] == 4096]
TRACED_COUNT = {"4k_1": 64, "4k_32": 128, "1m": 4}  # of each row on Bochs, by the end of its name: a trace is slow
# The guest's disks: the raw unit, a file of one piece on a volume, one of many extents there.
UNIT, VOLUME, MANY = "unit", "volume", "volume_10k"
DISKS = {UNIT: "storage:san", VOLUME: "/ClusterStorage/Volume1/disk.img", MANY: "/ClusterStorage/Volume1/extents.img"}
TCP_MIB = 24
TCP_KINDS = ["send", "receive"]
TCP_ROWS = [f"tcp_{kind}" for kind in TCP_KINDS]
CARDS = [{"model": "virtio-net-pci"}, {"model": "virtio-net-pci"}]  # the storage's, the guests'

# Rows that are held against others: the least or the most that is aimed at, as a part of what a row has in a column.
AIMS = {
    "unit_read_4k_1_cost_svm": ("most", 0.25, "unit_read_4k_1_cost_svm", "kvm"),
    "unit_read_4k_32_cost_svm": ("most", 0.25, "unit_read_4k_32_cost_svm", "kvm"),
    "unit_read_1m_svm": ("least", 1.5, "unit_read_1m_svm", "kvm"),
    "unit_write_1m_svm": ("least", 1.5, "unit_write_1m_svm", "kvm"),
}
for _row in SMALL_ROWS:
    for _what in (VOLUME, MANY):
        AIMS[f"{_what}_{_row[0]}_svm"] = ("least", 0.98, f"{UNIT}_{_row[0]}_svm", "tasuki")
        for _vendor in ("svm", "vmx"):
            AIMS[f"{_what}_{_row[0]}_cost_{_vendor}"] = ("most", 1.02, f"{UNIT}_{_row[0]}_cost_{_vendor}", "tasuki")

GUEST_INIT = mkdemo.INIT_BEGIN + """{commands}
echo load: end
while :; do sleep 1000; done
"""
HOST_INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /run /var/lib /etc/iscsi
for module in $(cat /modules/order); do
    insmod /modules/$module.ko 2>/dev/null
done
udhcpc -q -n -t 20 -i eth0
/sbin/iscsistart -i {initiator} -t {target} -g 1 -a 10.0.2.2 -p {port} \\
    --param node.conn[0].iscsi.HeaderDigest=CRC32C --param node.conn[0].iscsi.DataDigest=CRC32C
until [ -b /dev/sda ]; do sleep 0.1; done
ip link add br0 type bridge
ip link set eth1 master br0 up
ip link set br0 up
/usr/bin/qemu-system-x86_64 -accel kvm -cpu host -machine q35 -m 192 -nodefaults -display none -serial stdio \\
    -object iothread,id=io -drive if=none,id=disk,file=/dev/sda,format=raw,cache=none,aio=native \\
    -device virtio-blk-pci,drive=disk,iothread=io -netdev tap,id=net,ifname=tap0,script=/etc/qemu-ifup,downscript=no,vhost=on \\
    -device virtio-net-pci,netdev=net,romfile= -kernel /vmlinuz -initrd /initrd.img -append console=ttyS0
poweroff -f
"""
QEMU_IFUP = "#!/bin/sh\nexport PATH=/bin\nip link set $1 master br0 up\n"
HOST_MODULES = ("kvm-amd", "virtio_pci", "virtio_net", "crc32c-intel", "iscsi_tcp", "sd_mod", "tun", "bridge", "vhost_net")
TASUKI_CONF = """[node]
name = node

[network san]
address = dhcp

{storage}
[vm bench]
memory = 192M
kernel = \\tasuki\\images\\vmlinuz
initrd = \\tasuki\\images\\initrd.img
cmdline = console=ttyS0
{disks}
start = auto
"""
LAN_CONF = """network = lan

[network lan]
card = 52:54:00:12:34:57
"""

MOUNT_CONF = """[node]
name = node

[network san]
address = dhcp

{storage}
"""


class Peer:
    """The other end of a guest's connections, at the loopback (10.0.2.2 on the emulator's network): one takes all and answers
    with a byte, one gives without end."""

    def __init__(self):
        self.listeners = [socket.create_server(("127.0.0.1", 0)) for _ in TCP_ROWS]
        self.ports = [listener.getsockname()[1] for listener in self.listeners]
        for listener, serve in zip(self.listeners, (self.take, self.give)):
            threading.Thread(target=self.accept, args=(listener, serve), daemon=True).start()

    def accept(self, listener, serve):
        try:
            while True:
                connection, _ = listener.accept()
                with connection:
                    serve(connection)
        except OSError:
            pass

    def take(self, connection):
        while connection.recv(1 << 18):
            pass
        connection.sendall(b"!")

    def give(self, connection):
        try:
            while True:
                connection.sendall(bytes(1 << 18))
        except OSError:
            pass

    def close(self):
        for listener in self.listeners:
            listener.close()


class StorageBench:
    """put(name, unit, tasuki=, kvm=) takes a row, as Bench's."""

    def __init__(self, build, put):
        self.build, self.put = build, put
        self.directory = os.path.join(build, "bench")
        self.plugin, self.trace, self.load = self.path("count_plugin.so"), self.path("count_trace.so"), self.path("load")
        os.makedirs(self.directory, exist_ok=True)
        library = ["-shared", "-fPIC", "-fvisibility=hidden"]
        compile_c(self.plugin, [os.path.join(ROOT, "tests/peer/count_plugin.c")], *library)
        compile_c(self.trace, [os.path.join(ROOT, "tests/peer/count_trace.c")], *library[:2])
        compile_c(self.load, [os.path.join(ROOT, "tests/peer/load.c")], "-static")
        _, _, self.package = mkdemo.fetch_kernel(os.path.join("build", "packages"))

    def path(self, *names):
        return os.path.join(os.path.abspath(self.directory), *names)

    def guest_initrd(self, rows, peer):
        """The guest that runs the load, whose rows are as loads() makes them; the file's name."""
        commands = [f"load disk {device} {name} {kind} {size} {depth} {count} {2 * i}{' sequential' if size > 4096 else ''}"
                    for i, (name, device, kind, size, depth, count) in enumerate(rows)]
        if peer:
            commands.append("udhcpc -q -n -t 20 -i eth0 >/dev/null")
            commands += [f"load {kind} 10.0.2.2 {port} {name} {TCP_MIB << 20} {2 * (len(rows) + i)}"
                         for i, (kind, name, port) in enumerate(zip(TCP_KINDS, TCP_ROWS, peer.ports))]
        with open(self.load, "rb") as file:
            mkdemo.write_initrd(self.path("load.initrd"), self.package, GUEST_INIT.format(commands="\n".join(commands)),
                                {"bin/load": file.read()})
        return self.path("load.initrd")

    def run(self, cpu, image, log, rows, peer=None, profile=None, kvm=False):
        """{name: (requests in a second, instructions of the host's side for each)}, with the rows of TCP in MiB."""
        marks = self.path(log + ".marks")
        open(marks, "w", encoding="ascii").close()  # none of an earlier run's; and it is there before it is written to
        names = [row[0] for row in rows] + (TCP_ROWS if peer else [])
        options = (self.plugin_options(marks, profile) if cpu == "amd" else self.trace_options(marks, len(names)))
        with Machine(cpu=cpu, image=image, log=self.path(log + ".log"), **options) as machine:
            if not kvm:
                machine.expect(PROMPT, timeout=TIMEOUT)
            # A console that is open is looked at by the shell now and then. So it is opened when all is over, or takes too long.
            wait_for_mark(marks, 2 * len(names) - 1, machine)
            if not kvm:
                machine.sendline("vm console bench")
            if FAILED.fullmatch(machine.expect(r"load: end", FAILED.pattern, timeout=60)[0]):
                raise MachineError(f"the load failed: {machine.tail(500)}")
            text = machine.output.decode(errors="replace")
        done = {name: int(count) for name, count in re.findall(r"load: (\w+) (\d+) \d+\s", text)}
        with open(marks, encoding="ascii") as file:
            seen = {int(line.split()[0]): [int(word) for word in line.split()[1:]] for line in file}
        found = {}
        for i, name in enumerate(names):
            if name in done and 2 * i + 1 in seen:
                before, after = seen[2 * i], seen[2 * i + 1]
                seconds, instructions = (after[0] - before[0]) / 1e9, sum(after[1::2]) - sum(before[1::2])
                found[name] = (done[name] / seconds, instructions / done[name])
        return found

    def plugin_options(self, marks, profile):
        plugin = f"file={self.plugin},out={marks}" + (f",profile={profile}" if profile else "")
        return {"smp": 2, "cards": CARDS, "extra": ["-plugin", plugin]}

    def trace_options(self, marks, count):
        """Bochs stops at each mark, and traces from each first to each second one."""
        symbols = subprocess.run(["nm", os.path.join(self.build, "tasuki.elf")], check=True, capture_output=True, text=True).stdout
        entry = re.search(r"^(\w+) T vmx_exit_entry$", symbols, re.M).group(1)
        return {"smp": 1, "memory": 1024, "cards": [{}], "extra": ["magic_break: enabled=1"],
                "debugger": ["c", "trace on", "c", "trace off"] * count,
                "environment": {"LD_PRELOAD": self.trace, "TASUKI_MARKS": marks, "TASUKI_EXIT": entry}}

    def tasuki(self, cpu, storages, rows, peer=None, log="storage", profile=None):
        """Storages: their sections of the configuration. The guest has all of DISKS where there is one for the volume."""
        initrd = self.guest_initrd(rows, peer)
        disks = [f"disk = {disk}" for disk in DISKS.values() if len(storages) > 1 or disk == DISKS[UNIT]]
        conf = TASUKI_CONF.format(storage="\n".join(storages), disks="\n".join(disks)) + (LAN_CONF if peer else "")
        mkesp.write_image(self.path("storage.img"), {
            "EFI/BOOT/BOOTX64.EFI": os.path.join(self.build, "BOOTX64.EFI"), "tasuki/tasuki.conf": conf.encode(),
            "tasuki/images/vmlinuz": os.path.join(self.build, "demo/vmlinuz"), "tasuki/images/initrd.img": initrd})
        return self.run(cpu, self.path("storage.img"), log, rows, peer, profile)

    def kvm(self, target, rows, peer=None, log="storage-kvm", profile=None):
        from bench import efi_program, qemu_files
        add = {"etc/qemu-ifup": QEMU_IFUP.encode(), **self.open_iscsi()}
        for inside, name in (("vmlinuz", os.path.join(self.build, "demo/vmlinuz")), ("initrd.img", self.guest_initrd(rows, peer)),
                             *((name.lstrip("/"), name) for name in qemu_files())):
            with open(name, "rb") as file:
                add[inside] = file.read()
        init = HOST_INIT.format(initiator=INITIATOR, target=NAME, port=target.port)
        mkdemo.write_initrd(self.path("storage-kvm.initrd"), self.package, init, add, modules=HOST_MODULES)
        efi_program(os.path.join(ROOT, "tests/peer/efi_start.c"), self.path("efi_start.efi"))
        mkesp.write_image(self.path("storage-kvm.img"), {
            "EFI/BOOT/BOOTX64.EFI": self.path("efi_start.efi"), "vmlinuz.efi": os.path.join(self.build, "demo/vmlinuz"),
            "initrd.img": self.path("storage-kvm.initrd")})
        return self.run("amd", self.path("storage-kvm.img"), log, rows, peer, profile, kvm=True)

    def open_iscsi(self):
        """{path: bytes} of iscsistart, which logs in once and leaves the session to the kernel, and of its libraries."""
        found = {}
        with tempfile.TemporaryDirectory() as directory:
            for name in ("open-iscsi", "libopeniscsiusr"):
                _, _, paths = fetch.fetch(name, os.path.join("build", "packages"))
                subprocess.run(["dpkg-deb", "-x", paths[0], directory], check=True)
            libraries = os.path.join(directory, "usr/lib/x86_64-linux-gnu")
            program = os.path.join(directory, "sbin/iscsistart")
            text = subprocess.run(["ldd", program], check=True, capture_output=True, text=True,
                                  env={**os.environ, "LD_LIBRARY_PATH": libraries}).stdout
            for name in [program, *re.findall(r"(/\S+) \(0x", text)]:
                inside = name[len(directory):] if name.startswith(directory) else name
                with open(name, "rb") as file:
                    found[inside.lstrip("/")] = file.read()
        return found

    # ---- What `make bench` runs ----

    def measure(self, cpu, with_kvm):
        """The raw unit and files on a volume under Tasuki, in one run, and on AMD the raw unit under KVM."""
        peer = Peer() if cpu == "amd" else None
        try:
            with Target(size=UNIT_MIB << 20) as target, Target(size=VOLUME_MIB << 20, name=NAME + "-volume") as shared:
                fill(target.disk, UNIT_MIB)
                self.make_volume(shared.disk)
                storages = [target.configuration("san"), shared.configuration("shared", volume="Volume1")]
                rows = loads({UNIT: DISK_ROWS, VOLUME: DISK_ROWS if cpu == "amd" else SMALL_ROWS, MANY: SMALL_ROWS}, cpu == "intel")
                self.rows(self.tasuki(cpu, storages, rows, peer), "tasuki", cpu)
                if with_kvm and cpu == "amd":
                    self.rows(self.kvm(target, loads({UNIT: DISK_ROWS}), peer), "kvm", cpu)
        finally:
            if peer:
                peer.close()

    def rows(self, found, column, cpu):
        """On Bochs there are no rates: neither its own clock nor the world's measures anything there."""
        for name, (rate, instructions) in found.items():
            unit = "requests/s" if "4k" in name else "MiB/s"
            if cpu == "amd":
                self.put(f"{name}_svm", unit, **{column: round(rate, 1)})
            unit = "instructions" if "4k" in name else "instructions/MiB"
            self.put(f"{name}_cost_{'svm' if cpu == 'amd' else 'vmx'}", unit, **{column: round(instructions)})

    def make_volume(self, disk):
        """A file that lies in one piece, and one of many extents."""
        tool, image, program = os.path.join(self.build, "tasuki-csv"), self.path("file.img"), self.path("csv_extents")
        compile_core(program, "csv_extents.c")
        fill(image, FILE_MIB)
        for command in ([tool, "mkfs", disk], [tool, "put", disk, image, "/disk.img"], [program, disk, "extents.img", str(EXTENTS)]):
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        os.unlink(image)

    def metadata(self):
        """The volume's core by itself, on a disk in memory: by the clock of this computer."""
        program = self.path("csv_bench")
        compile_core(program, "csv_bench.c")
        volume = self.path("100k.img")
        text = subprocess.run([program, volume], check=True, capture_output=True, text=True).stdout
        for name, count, ns in re.findall(r"csv: (\w+) (\d+) (\d+)\n", text):
            if name == "mount_100k":
                self.put("csv_mount_100k_files", "microseconds", tasuki=round(int(ns) / 1000))
            elif name == "replay":
                self.put("csv_replay", "microseconds/transaction", tasuki=round(int(ns) / 1000 / int(count), 1))
            else:
                self.put(f"csv_{name}", "operations/s", tasuki=round(int(count) * 1e9 / int(ns)))
        self.mount(volume)

    def mount(self, volume):
        """A node mounts the volume with 100,000 files from a target: from the login to the mount, by its log."""
        with Target(size=0) as target:
            os.replace(volume, target.disk)
            target.kill()
            target.start()
            conf = MOUNT_CONF.format(storage=target.configuration("san", volume="Volume1"))
            mkesp.write_image(self.path("mount.img"), {
                "EFI/BOOT/BOOTX64.EFI": os.path.join(self.build, "BOOTX64.EFI"), "tasuki/tasuki.conf": conf.encode()})
            with Machine(cpu="amd", image=self.path("mount.img"), log=self.path("mount.log"), cards=CARDS[:1]) as machine:
                begin, end = (float(machine.expect(rf"\[ *([0-9.]+)\] [^\n]*{what}", timeout=120).group(1))
                              for what in ("storage san: logged in", "volume Volume1: mounted"))
        self.put("csv_mount_100k_files_node_svm", "milliseconds", tasuki=round((end - begin) * 1000, 1))


def loads(disks, traced=False):
    """Rows of the guest's load: name, device, read or write, bytes, requests at once, how many. A trace has fewer of them. The
    same row of all disks comes one after the other, so that what else the computer does meets all of them alike."""
    found = []
    for row in DISK_ROWS:
        name, kind, size, depth, count = row
        for what in (what for what, rows in disks.items() if row in rows):
            device = "/dev/vd" + "abc"[list(DISKS).index(what)]
            found.append((f"{what}_{name}", device, kind, size, depth, TRACED_COUNT[name.split("_", 1)[1]] if traced else count))
    return found


def compile_c(output, sources, *options):
    subprocess.run(["gcc", "-std=gnu17", "-O2", "-Wall", "-Wextra", "-Werror", *options, "-o", output, *sources], check=True)


def compile_core(output, source):
    """A program of tests/peer with the volume's core."""
    sources = [os.path.join(ROOT, "tests/peer", source), *sorted(glob.glob(os.path.join(ROOT, "csv/*.c"))),
               *[os.path.join(ROOT, "hv/kernel", name) for name in ("text.c", "status.c", "crc32c.c")]]
    compile_c(output, sources, "-Wno-format-truncation", "-D_GNU_SOURCE", "-fno-strict-aliasing", f"-I{ROOT}/hv", f"-I{ROOT}")


def wait_for_mark(path, last, machine):
    """Until the plugin has written that mark down, or the machine is gone, or says that the load failed."""
    deadline = time.monotonic() + TIMEOUT
    while time.monotonic() < deadline and machine.process.poll() is None and not FAILED.search(machine.output):
        with open(path, encoding="ascii") as file:
            if any(line.split()[0] == str(last) for line in file):
                return
        time.sleep(0.5)


def fill(path, mib):
    """A file without holes: a target reads those faster."""
    block = random.Random(1).randbytes(1 << 20)
    with open(path, "wb") as file:
        for i in range(mib):
            file.write(i.to_bytes(8, "little") + block[8:])
