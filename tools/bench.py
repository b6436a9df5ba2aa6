#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Measures what things cost, in Tasuki and in Linux KVM on the same emulated machines.

    bench.py [--build DIR] [--cpu amd|intel|both] [--no-kvm] [--only PART ...]

Writes DIR/bench.csv (name,unit,tasuki,kvm; a name ends in _svm or _vmx) and prints a table with the aims. SVM is QEMU with
-icount, VMX is Bochs with sync=none: in both the time stamp counter counts executed instructions, so a figure does not
depend on this machine or its load. docs/build.md says what the rows mean.

KVM's side is slow and changes only with its own inputs: what it said is kept in DIR/bench-cache by their checksum.
"""
import argparse
import csv
import glob
import hashlib
import json
import os
import re
import stat
import subprocess
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import bench_storage  # noqa: E402
import mkdemo  # noqa: E402
import mkesp  # noqa: E402
from machine import Machine, MachineError, Timeout  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ICOUNT = ["-icount", "shift=0,sleep=off", "-rtc", "base=2020-01-01,clock=vm", "-seed", "1"]
PROMPT = r"tasuki:\w+> "
ENGINES = {"amd": ["wp", "ad"], "intel": ["wp", "ad", "pml"]}
VENDOR = {"amd": "svm", "intel": "vmx"}
TIMEOUT = 1200  # of a step, in seconds of this machine's time, which others may share
LOOP_ROWS = ["cpuid_exit", "hypercall", "rdmsr", "out_uart", "out_pic", "doorbell"]
# What is aimed at, and what KVM's figure is for engines that it does not have on that machine.
AIMS = {
    "cpuid_exit_svm": 250, "cpuid_exit_vmx": 150, "dirty_first_write_wp_svm": 200, "dirty_first_write_wp_vmx": 200,
    "dirty_first_write_ad_svm": 1, "dirty_first_write_ad_vmx": 1, "dirty_first_write_pml_vmx": 82,
    "first_guest_instruction_svm": 50e6, "first_guest_instruction_vmx": 50e6,
    "held_16_cpus_64_gib": 32 << 20,
}
for _engine in ("wp", "ad", "pml"):
    for _vendor in ("svm", "vmx"):
        AIMS[f"harvest_dense_{_engine}_{_vendor}"] = AIMS[f"harvest_sparse_{_engine}_{_vendor}"] = 20

# Aims that are a part of what KVM takes in the same run.
RATIOS = {"debian_user_space_svm": 0.6, "debian_user_space_uncounted_svm": 0.6}
UNCOUNTED = {"accel": "tcg,thread=multi", "extra": []}  # options of machine(): QEMU as anybody starts it

NODE = "[node]\nname = node\n"
BENCH_VM = NODE + """[vm bench]
memory = 128M
vcpus = 1
kernel = \\tasuki\\images\\bench.elf
cmdline = keys=1
start = manual
"""
DEBIAN_VM = NODE + """[vm debian]
memory = 256M
vcpus = 1
kernel = \\tasuki\\images\\vmlinuz
initrd = \\tasuki\\images\\initrd.img
cmdline = console=ttyS0
start = auto
"""


KVM_DEBIAN_INIT = mkdemo.INIT_BEGIN + """/usr/bin/qemu-system-x86_64 -accel kvm -cpu host -machine q35 -m 256 -nodefaults -display none -serial stdio \\
    -kernel /vmlinuz -initrd /initrd.img -append console=ttyS0
poweroff
"""


class Bench:
    def __init__(self, build):
        self.build = build
        self.rows = {}  # name: [unit, tasuki, kvm]
        self.ready_count = 0  # how often the bench guest has said that it waits for a key

    def path(self, *names):
        return os.path.join(self.build, "bench", *names)

    def put(self, name, unit, tasuki=None, kvm=None):
        row = self.rows.setdefault(name, [unit, None, None])
        row[1] = row[1] if tasuki is None else tasuki
        row[2] = row[2] if kvm is None else kvm

    def image(self, name, config, *files):
        image = self.path(name)
        contents = {"EFI/BOOT/BOOTX64.EFI": os.path.join(self.build, "BOOTX64.EFI"), "tasuki/tasuki.conf": config.encode()}
        contents.update({f"tasuki/images/{os.path.basename(file)}": os.path.join(self.build, file) for file in files})
        mkesp.write_image(image, contents)
        return image

    def machine(self, cpu, image, log, **options):
        counted = {"accel": "tcg,thread=single", "extra": ICOUNT} if cpu == "amd" else {}
        return Machine(cpu=cpu, image=image, log=self.path(log), **{"smp": 1, "memory": 1024, **counted, **options})

    # ---- Tasuki ----

    def exits_and_memory(self, cpu):
        """The bench guest: the cost of exits, and of memory under each engine of the dirty log."""
        vendor = VENDOR[cpu]
        image = self.image(f"bench-{cpu}.img", BENCH_VM, "guests/bench.elf")
        with self.machine(cpu, image, f"bench-{cpu}.log") as machine:
            machine.expect(PROMPT, timeout=TIMEOUT)
            before = command_json(machine, "memory show")
            machine.sendline("vm start bench")
            machine.expect("running", timeout=TIMEOUT)
            after = command_json(machine, "memory show")
            self.memory_rows(vendor, before, after)
            self.ready_count = 0
            self.guest_until_ready(machine)
            self.guest_until_ready(machine, "e")
            notes = self.guest_until_ready(machine, "t")
            for name in LOOP_ROWS:
                self.put(f"{name}_{vendor}", "instructions", tasuki=notes[name] - notes["loop"])
            self.put(f"first_touch_{vendor}", "instructions/page", tasuki=notes["first_touch"])
            for engine in ENGINES[cpu]:
                self.dirty_rows(machine, vendor, engine, notes["mapped_touch"])

    def guest_until_ready(self, machine, key=""):
        """Sends a key to the guest's console; the guest's notes until it waits for the next."""
        machine.sendline("vm console bench")
        for _ in range(self.ready_count):  # the console begins with a replay of what was said before
            machine.expect("note ready", timeout=TIMEOUT)
        if key:
            machine.send(key)
        machine.expect("note ready", timeout=TIMEOUT)
        self.ready_count += 1
        text = machine.output[:machine.position].decode(errors="replace")
        machine.send("\x1d")
        machine.sendline()
        machine.expect(PROMPT, timeout=TIMEOUT)
        return {name: float(value) for name, value in re.findall(r"note (\w+) ([0-9.]+)\s", text)}

    def dirty_rows(self, machine, vendor, engine, mapped_touch):
        command(machine, f"vm dirty bench start --engine {engine}")
        command_json(machine, "vm dirty bench collect")
        self.guest_until_ready(machine, "d")  # splits the large pages, where the engine waits for a write to do it
        command_json(machine, "vm dirty bench collect")
        cost = self.guest_until_ready(machine, "d")["touch_dense"] - mapped_touch
        dense = command_json(machine, "vm dirty bench collect")
        self.guest_until_ready(machine, "s")
        turn = command_json(machine, "vm dirty bench collect")  # what was written before was dense
        self.guest_until_ready(machine, "s")
        sparse = command_json(machine, "vm dirty bench collect")
        command(machine, "vm dirty bench stop")
        self.put(f"dirty_first_write_{engine}_{vendor}", "instructions/page", tasuki=round(cost, 1))
        for name, result in (("dense", dense), ("sparse", sparse), ("sparse_after_dense", turn)):
            self.put(f"harvest_{name}_{engine}_{vendor}", "instructions/page",
                     tasuki=round(result["ticks"] / max(result["pages"], 1), 1))

    def memory_rows(self, vendor, before, after):
        held = before["tables_bytes"] + owner_bytes(before, "hypervisor") + image_bytes(self.build)
        self.put(f"held_no_vm_{vendor}", "bytes", tasuki=held)
        self.put(f"held_for_a_vm_{vendor}", "bytes",
                 tasuki=owner_bytes(after, "bench") - (128 << 20) + owner_bytes(after, "hypervisor")
                 - owner_bytes(before, "hypervisor"))

    def large_machine(self):
        """16 CPUs and 64 GiB from what one more CPU and one more GiB take."""
        image = self.image("held.img", NODE)
        held = {}
        for smp, gib in ((1, 1), (2, 1), (1, 3)):
            with self.machine("amd", image, f"held-{smp}-{gib}.log", smp=smp, memory=gib * 1024, extra=[],
                              accel="tcg,thread=multi") as machine:
                machine.expect(PROMPT, timeout=TIMEOUT)
                shown = command_json(machine, "memory show")
                held[smp, gib] = shown["tables_bytes"] + owner_bytes(shown, "hypervisor") + image_bytes(self.build)
        cpu, gib = held[2, 1] - held[1, 1], (held[1, 3] - held[1, 1]) / 2
        self.put("held_16_cpus_64_gib", "bytes", tasuki=round(held[1, 1] + 15 * cpu + 63 * gib))

    def debian(self, cpu):
        vendor = VENDOR[cpu]
        image = self.image(f"debian-{cpu}.img", DEBIAN_VM, "demo/vmlinuz", "demo/initrd.img")
        with self.machine(cpu, image, f"debian-{cpu}.log") as machine:
            ticks = machine.expect(r"first guest: entered (\d+) TSC ticks", timeout=TIMEOUT).group(1)
            self.put(f"first_guest_instruction_{vendor}", "instructions", tasuki=int(ticks))
            machine.expect(PROMPT, timeout=TIMEOUT)
            machine.sendline("vm console debian")
            seconds = float(machine.expect(r"user space after ([0-9.]+) s", timeout=TIMEOUT).group(1))
            mhz = int(re.search(rb"TSC at (\d+) kHz", machine.output).group(1)) / 1000
            self.put(f"debian_user_space_{vendor}", "guest seconds", tasuki=seconds)
            self.put(f"debian_user_space_ticks_{vendor}", "M instructions", tasuki=round(seconds * mhz))

    def debian_uncounted(self, cpu):
        """The same by the clock of this machine, one after the other: only their ratio means something."""
        image = self.image(f"debian-{cpu}.img", DEBIAN_VM, "demo/vmlinuz", "demo/initrd.img")
        name = f"debian_user_space_uncounted_{VENDOR[cpu]}"
        with self.machine(cpu, image, f"debian-uncounted-{cpu}.log", **UNCOUNTED) as machine:
            machine.expect(PROMPT, timeout=TIMEOUT)
            machine.sendline("vm console debian")
            seconds = machine.expect(r"user space after ([0-9.]+) s", timeout=TIMEOUT).group(1)
        self.put(name, "guest seconds", tasuki=float(seconds))

    # ---- Storage: bench_storage.py ----

    def storage(self, cpu, with_kvm):
        bench_storage.StorageBench(self.build, self.put).measure(cpu, with_kvm)

    def metadata(self):
        bench_storage.StorageBench(self.build, self.put).metadata()

    # ---- KVM ----

    def kvm(self, cpu):
        vendor = VENDOR[cpu]
        _, _, package = mkdemo.fetch_kernel(os.path.join("build", "packages"))
        sources = [os.path.join(ROOT, "tests/peer", name) for name in ("kvm_bench.c", "efi_start.c")]
        emulator = ["qemu-system-x86_64", "--version"] if cpu == "amd" else ["dpkg-query", "-W", "bochs"]
        version = subprocess.run(emulator, check=True, capture_output=True).stdout
        digest = hashlib.sha256(version + repr(ICOUNT).encode() + KVM_DEBIAN_INIT.encode())
        for file in [*sources, package, os.path.join(self.build, "demo/initrd.img"), "/usr/bin/qemu-system-x86_64"]:
            with open(file, "rb") as data:
                digest.update(data.read())
        kept = os.path.join(self.build, "bench-cache", f"kvm-{vendor}-{digest.hexdigest()[:16]}.json")
        if not os.path.exists(kept):
            values = self.kvm_run(cpu, package, sources)
            values["debian_user_space"] = self.kvm_debian_run(cpu, package)
            os.makedirs(os.path.dirname(kept), exist_ok=True)
            with open(kept, "w", encoding="utf-8") as file:
                json.dump(values, file, indent=1)
        with open(kept, encoding="utf-8") as file:
            self.kvm_rows(cpu, json.load(file))

    def kvm_debian_uncounted(self, cpu):
        _, _, package = mkdemo.fetch_kernel(os.path.join("build", "packages"))
        self.put(f"debian_user_space_uncounted_{VENDOR[cpu]}", "guest seconds", kvm=self.kvm_debian_run(cpu, package, **UNCOUNTED))

    def kvm_run(self, cpu, package, sources):
        program, loader = self.path("kvm_bench"), self.path("efi_start.efi")
        subprocess.run(["gcc", "-std=gnu17", "-O2", "-static", "-Wall", "-Wextra", "-Werror", "-o", program, sources[0]],
                       check=True)
        efi_program(sources[1], loader)
        modules = {mkdemo.plain(os.path.basename(name)[:-3]): data
                   for name, data in mkdemo.unpack(package, "lib/modules/*.ko").items()}
        order = mkdemo.load_order(modules, ["kvm-amd", "kvm-intel"])
        archive = mkdemo.Cpio()
        for directory in ("dev", "modules", "proc"):
            archive.entry(directory, stat.S_IFDIR | 0o755)
        archive.entry("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
        for name in order:
            archive.entry(f"modules/{name}.ko", stat.S_IFREG | 0o644, modules[name])
        archive.entry("modules/order", stat.S_IFREG | 0o644, "".join(f"{name}\n" for name in order).encode())
        with open(program, "rb") as file:
            archive.entry("init", stat.S_IFREG | 0o755, file.read())
        kernel = next(iter(mkdemo.unpack(package, "boot/vmlinuz-*").values()))
        mkesp.write_image(self.path("kvm.img"), {"EFI/BOOT/BOOTX64.EFI": loader, "vmlinuz.efi": kernel,
                                                 "initrd.img": archive.finish()})
        with self.machine(cpu, self.path("kvm.img"), f"kvm-{cpu}.log") as machine:
            machine.expect("bench: end", timeout=2 * TIMEOUT)
            text = machine.output.decode(errors="replace")
        return {name: float(value) for name, value in re.findall(r"bench: (\w+) ([0-9.]+)", text)}

    def kvm_debian_run(self, cpu, package, **options):
        """The Debian guest under KVM, with QEMU as its machine: the guest's clock at its user space."""
        files = {"vmlinuz": "demo/vmlinuz", "initrd.img": "demo/initrd.img"}
        add = {}
        for inside, name in files.items():
            with open(os.path.join(self.build, name), "rb") as file:
                add[inside] = file.read()
        for name in qemu_files():
            with open(name, "rb") as file:
                add[name.lstrip("/")] = file.read()
        initrd, loader = self.path("kvm-debian.initrd"), self.path("efi_start.efi")
        mkdemo.write_initrd(initrd, package, KVM_DEBIAN_INIT, add, modules=("kvm-amd", "kvm-intel"))
        efi_program(os.path.join(ROOT, "tests/peer/efi_start.c"), loader)
        kernel = os.path.join(self.build, "demo/vmlinuz")
        mkesp.write_image(self.path("kvm.img"), {"EFI/BOOT/BOOTX64.EFI": loader, "vmlinuz.efi": kernel, "initrd.img": initrd})
        with self.machine(cpu, self.path("kvm.img"), f"kvm-debian-{cpu}.log", memory=1536, **options) as machine:
            seconds = machine.expect(r"user space after ([0-9.]+) s", timeout=2 * TIMEOUT).group(1)
        return float(seconds)

    def kvm_rows(self, cpu, values):
        vendor, engine = VENDOR[cpu], {"amd": "wp", "intel": "pml"}[cpu]
        for name in LOOP_ROWS:
            self.put(f"{name}_{vendor}", "instructions", kvm=round(values[name] - values["loop"], 1))
        self.put(f"first_touch_{vendor}", "instructions/page", kvm=values["first_touch"])
        self.put(f"dirty_first_write_{engine}_{vendor}", "instructions/page", kvm=values["dirty_first_write"])
        for name in ("harvest_dense", "harvest_sparse"):
            self.put(f"{name}_{engine}_{vendor}", "instructions/page", kvm=values[name])
        self.put(f"first_guest_instruction_{vendor}", "instructions", kvm=int(values["host_user_space"]))
        self.put(f"debian_user_space_{vendor}", "guest seconds", kvm=values["debian_user_space"])
        self.put(f"debian_user_space_ticks_{vendor}", "M instructions",
                 kvm=round(values["debian_user_space"] * values["tsc_mhz"]))

    # ---- What comes out ----

    def write(self):
        with open(os.path.join(self.build, "bench.csv"), "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["name", "unit", "tasuki", "kvm"])
            for name, (unit, tasuki, kvm) in self.rows.items():
                writer.writerow([name, unit, shown(tasuki), shown(kvm)])

    def aim(self, name, kvm):
        """What is aimed at (None: nothing, or what it is measured against is missing), and whether it is the least."""
        if name in bench_storage.AIMS:
            kind, part, row, column = bench_storage.AIMS[name]
            other = self.rows.get(row, [None, None, None])[1 if column == "tasuki" else 2]
            return (None if other is None else part * other), kind == "least"
        return (RATIOS[name] * kvm if name in RATIOS and kvm else AIMS.get(name)), False

    def table(self):
        lines = [("", "unit", "Tasuki", "KVM", "aim", "")]
        for name, (unit, tasuki, kvm) in self.rows.items():
            aim, least = self.aim(name, kvm)
            verdict = ""
            if aim is not None and tasuki is not None:
                met = tasuki >= aim if least else tasuki <= aim + (0.5 if aim >= 10 else 0)
                verdict = "met" if met else "missed"
            lines.append((name, unit, shown(tasuki), shown(kvm), shown(aim), verdict))
        widths = [max(len(line[i]) for line in lines) for i in range(6)]
        for line in lines:
            cells = [text.rjust(width) if 2 <= i <= 4 else text.ljust(width)
                     for i, (text, width) in enumerate(zip(line, widths))]
            print("  ".join(cells).rstrip())


def shown(value):
    if value is None:
        return ""
    return str(int(value)) if float(value).is_integer() else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def command(machine, line):
    machine.sendline(line)
    machine.expect(re.escape(line) + r".*?\n", timeout=TIMEOUT)
    start = machine.position
    machine.expect(PROMPT, timeout=TIMEOUT)
    return machine.output[start:machine.position].decode(errors="replace")


def command_json(machine, line):
    text = command(machine, line + " --json")
    match = re.search(r"^\{.*\}", text, re.M)
    if not match:
        raise Timeout(f"`{line} --json` answered: {text}")
    return json.loads(match.group(0))


def owner_bytes(memory, name):
    return sum(owner["held_bytes"] for owner in memory["owners"] if owner["owner"] == name)


def image_bytes(build):
    """What the hypervisor's own image takes in memory, by its ELF segments."""
    text = subprocess.run(["readelf", "-lW", os.path.join(build, "tasuki.elf")], check=True, capture_output=True,
                          text=True).stdout
    return sum((int(size, 16) + 4095) // 4096 * 4096
               for size in re.findall(r"^\s+LOAD\s+\S+\s+\S+\s+\S+\s+\S+\s+(0x\w+)", text, re.M))


def qemu_files():
    """QEMU, the libraries that it is linked with, and the firmware that it needs for a kernel."""
    program = "/usr/bin/qemu-system-x86_64"
    text = subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout
    share = [os.path.join(directory, name) for directory in ("/usr/share/seabios", "/usr/share/qemu")
             for name in ("bios-256k.bin", "kvmvapic.bin", "linuxboot_dma.bin")]
    return [program, *re.findall(r"(/\S+) \(0x", text), *[name for name in share if os.path.exists(name)]]


def efi_program(source, output):
    """One C file as a UEFI application, by GNU-EFI."""
    base = os.path.splitext(output)[0]
    sections = [".text", ".sdata", ".data", ".rodata", ".dynamic", ".dynsym", ".rel", ".rela", ".rel.*", ".rela.*", ".reloc"]
    for step in (
            ["gcc", "-std=gnu17", "-ffreestanding", "-fpic", "-fshort-wchar", "-mno-red-zone", "-fno-stack-protector", "-O2",
             "-DGNU_EFI_USE_MS_ABI", "-I/usr/include/efi", "-I/usr/include/efi/x86_64", "-c", "-o", base + ".o", source],
            ["ld", "-nostdlib", "-shared", "-Bsymbolic", "-znocombreloc", "-L/usr/lib", "-T", "/usr/lib/elf_x86_64_efi.lds",
             "-o", base + ".so", "/usr/lib/crt0-efi-x86_64.o", base + ".o", "-lefi", "-lgnuefi"],
            ["objcopy", *[word for name in sections for word in ("-j", name)], "--target", "efi-app-x86_64",
             "--subsystem=10", base + ".so", output]):
        subprocess.run(step, check=True)


def main():
    parser = argparse.ArgumentParser(description="Measures Tasuki and KVM on the emulated machines.")
    parser.add_argument("--build", default="build")
    parser.add_argument("--cpu", choices=["amd", "intel", "both"], default="both")
    parser.add_argument("--no-kvm", action="store_true", help="leave the kvm column empty")
    parser.add_argument("--only", nargs="+", metavar="PART", help="of what is measured: exits_and_memory, debian, kvm, "
                        "debian_uncounted, kvm_debian_uncounted, storage, metadata, large_machine")
    options = parser.parse_args()
    bench = Bench(options.build)
    os.makedirs(bench.path(), exist_ok=True)
    failed = []
    cpus = ["amd", "intel"] if options.cpu == "both" else [options.cpu]
    steps = []
    for cpu in cpus:
        steps += [("exits_and_memory", cpu), ("debian", cpu), *([] if options.no_kvm else [("kvm", cpu)])]
        if cpu == "amd":  # Bochs counts as it is
            steps += [("debian_uncounted", cpu), *([] if options.no_kvm else [("kvm_debian_uncounted", cpu)])]
    steps += [("storage", cpu) for cpu in cpus]
    if "amd" in cpus:
        steps.append(("metadata", ""))
    for step, cpu in steps + [("large_machine", "")]:
        if options.only and step not in options.only:
            continue
        print(f"bench: {step.replace('_', ' ')}{', ' + VENDOR[cpu] if cpu else ''}", flush=True)
        try:
            getattr(bench, step)(*([cpu] if cpu else []), *([not options.no_kvm] if step == "storage" else []))
        except (MachineError, Timeout, AssertionError, subprocess.CalledProcessError, KeyError) as error:
            failed.append(f"{step} {cpu}: {type(error).__name__}: {error}")
        bench.write()
    for image in glob.glob(bench.path("*.img")):
        os.unlink(image)
    bench.table()
    for text in failed:
        print(f"bench: {text}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
