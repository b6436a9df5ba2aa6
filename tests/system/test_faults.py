# SPDX-License-Identifier: MIT
"""What an instruction that faults does: the CPUs' answers against the instruction emulator's, case by case.

Each case of tests/guests/faults is carried out by the emulator in a Linux program (tests/unit/test_fault_cases.c) and
natively by a small guest in a VM, on both vendors' emulated CPUs. The guest gets the emulator's answers as its module
and tells where it saw something else.

Neither CPU is right about everything. QEMU's leaves out whole kinds of checks, so Bochs judges those cases; what
each is excused from is listed with the reason. A case that both are excused from is decided by the manual.
"""
import os
import re
import subprocess

import pytest
from machine import Machine
from node import BUILD, LOGS, TOP, Report, guest

MODIFIES = "(add-to|sbb-imm8|inc|not|neg|shl|shld|xchg|xadd|cmpxchg|cmpxchg8b|cmpxchg16b|bts|btr-imm)"

# Regular expressions on whole names, and why the CPU is no judge of these cases.
QEMU = {
    r"(compat(32|16)(-user)?|real|v86)/"
    r"(limit|limit-ss|expand-down-(32|16)|address32|override-es|stack|stack-down|fetch-limit|branch-limit|bits)/.*":
        "segment limits are not checked",
    r"compat32-user/stack-mem/.*": "segment limits are not checked",
    r"(compat(32|16)|real|v86)/string/.*-limit": "segment limits are not checked",
    r"compat32-user/align/.*/and-limit.*": "segment limits are not checked",
    r"compat32/type/.*": "segment types are not checked",
    r"compat32(-user)?/string/.*/target-(null|read-only)": "segment types are not checked",
    r"long-user/(align|stack-align)/.*": "there is no #AC",
    r"long/(canonical-ss|stack-canonical|stack-mem-canonical)/.*": "a non-canonical stack address is #GP, not #SS",
    r"long/canonical-override/.*/ds": "a non-canonical stack address is #GP, not #SS",
    r"long/canonical/.*/low\+1": "only the first byte's address is looked at",
    rf"[^/]*/(page|canonical|bits|stepped|align)/{MODIFIES}\d*(/.*)?":
        "what reads and then writes faults as a read, unless it is carried out as one atomic operation",
    r".*/(page|fetch)/.*/reserved(-second|-\d)?": "the error code of a reserved bit lacks P",
    r"long-user/branch-canonical/.*": "a branch to a non-canonical address faults behind the branch",
    r".*/undefined/lock-(mov-store|load|bt|xchg-reg|shl|movs|push)": "LOCK is allowed with too much",
    r".*/undefined/lock-bts-reg": "its translator aborts; left out",
    r".*/undefined/(c7|8f)-reg1": "ModRM.reg is not looked at",
    r".*/length/16/at-page-end": "a sixteenth byte is fetched before the length is judged",
    r"long/load/ss/null-other-rpl": "a null SS may have any RPL",
}
BOCHS = {
    r"long-user/align/.*/and-absent\+1": "#AC comes before #PF",
    r"compat32/(stack|stack-down)/push-sreg/.*": "a selector is pushed as 16 bits; SDM vol. 2B, PUSH, allows both",
    r"compat32(-user)?/load-memory/pop-ds": "a selector is popped as 16 bits",
    r"(compat32|compat16|long-user)/branch-(limit|canonical)/call-reg/.*": "CALL pushes before it judges its target",
    r"long/stack-mem-canonical/call-mem/(fine|stack)": "CALL pushes before it judges its target",
}
# What no CPU here decides: SDM vol. 3A, table 6-2 (a page fault before #AC), and vol. 2A, CALL (the target is judged
# before the stack); a selector in 32 bits is what AMD's manual says (APM vol. 3, PUSH).
BY_THE_MANUAL = (r"long-user/align/.*/and-absent\+1", r"compat32/(stack|stack-down)/push-sreg/.*",
                 r"(compat32|compat16|long-user)/branch-(limit|canonical)/call-reg/.*",
                 r"long/stack-mem-canonical/call-mem/(fine|stack)")
EXCUSES = {"amd": QEMU, "intel": BOCHS}
SHOWN = 40


@pytest.fixture(scope="module")
def emulated():
    """[(name, code, outcome)] by the instruction emulator."""
    program = os.path.join(BUILD, "tests", "unit", "test_fault_cases")
    if not os.environ.get("TASUKI_PREBUILT"):
        made = subprocess.run(["make", "--no-print-directory", f"BUILD={BUILD}", program], cwd=TOP, capture_output=True,
                              text=True)
        assert not made.returncode, made.stdout[-1000:] + made.stderr[-2000:]
    text = subprocess.run([program, "--print"], check=True, capture_output=True, text=True).stdout
    return re.findall(r"^(\S+) (\[\w*\])\t(.*)$", text, re.M)


def matching(patterns, name):
    return [pattern for pattern in patterns if re.fullmatch(pattern, name)]


def expectations(emulated, excuses, judge):
    """The guest's module."""
    os.makedirs(LOGS, exist_ok=True)
    module = os.path.join(LOGS, f"faults-{judge}.expected")
    with open(module, "w", encoding="ascii") as file:
        for name, _, outcome in emulated:
            file.write(f"{'~' if matching(excuses, name) else ''}{outcome}\n")
    return module


def check(report, emulated, excuses):
    different = []
    for index, told in re.findall(r"^differs (\d+) (.*)$", report.text, re.M):
        name, code, outcome = emulated[int(index)]
        different.append(f"{name} {code}\n    CPU       {told}\n    emulator  {outcome.partition(' ')[2]}")
    more = f"\nand {len(different) - SHOWN} more" if len(different) > SHOWN else ""
    assert not different, f"{len(different)} of {len(emulated)} cases differ:\n" + "\n".join(different[:SHOWN]) + more
    report.check()
    assert f"{len(emulated)} cases" in report.notes
    seen = {pattern for index in re.findall(r"^(?:excused|skipped) (\d+)$", report.text, re.M)
            for pattern in matching(excuses, emulated[int(index)][0])}
    assert not set(excuses) - seen, f"excused for nothing: {sorted(set(excuses) - seen)}"


def test_faults(booted, cpu, emulated):
    module = expectations(emulated, EXCUSES[cpu], cpu)
    vm = {"kernel": guest("faults"), "initrd": module, "memory": "16M",
          "cmdline": "cpu=lax" if cpu == "amd" else "cpu=strict"}
    check(booted.get(cpu, "faults", vms={"faults": vm}).run_guest("faults", timeout=60), emulated, EXCUSES[cpu])


def test_faults_without_a_hypervisor(emulated):
    """INS and OUTS exit from every VM, so there they are the emulator's own answers twice. Here the guest has QEMU's CPU
    to itself. QEMU's -kernel takes a Multiboot kernel as a 32-bit ELF file only."""
    module = expectations(emulated, QEMU, "bare")
    kernel = os.path.join(LOGS, "faults-bare.elf")
    subprocess.run(["objcopy", "-O", "elf32-i386", guest("faults"), kernel], check=True)
    with Machine(cpu="amd", firmware=False, smp=1, memory=64, log=os.path.join(LOGS, "faults-bare.log"),
                 extra=["-kernel", kernel, "-initrd", module, "-append", "faults cpu=lax"]) as machine:
        machine.expect(rb"^done \d+ passed \d+ failed\r\n", timeout=60)
        check(Report(machine.output.decode(errors="replace").replace("\r\n", "\n")), emulated, QEMU)


def test_every_case_has_a_judge(emulated):
    names = [name for name, _, _ in emulated]
    without = [name for name in names if matching(QEMU, name) and matching(BOCHS, name) and
               not matching(BY_THE_MANUAL, name)]
    assert not without, f"no CPU judges {', '.join(without)}"
