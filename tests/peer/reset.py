#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Which ways of resetting a machine its emulator and its firmware come back from, without a hypervisor.

    tests/peer/reset.py --cpu intel [--piix4-off]

Runs efi_reset.c once for each of its means on a machine of its own. --piix4-off has it switch a PIIX4's power management
ports off first, as hv/kernel/reset.c does.
"""
import argparse
import os
import re
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tools"))
import bench  # noqa: E402
import machine as machines  # noqa: E402
import mkesp  # noqa: E402

SOURCE = os.path.join(ROOT, "tests/peer/efi_reset.c")
TIMEOUT = 60


def outcome(cpu, image):
    with machines.Machine(cpu=cpu, image=image, memory=512, smp=1) as machine:
        machine.expect(r"^reset: [\w-]+", timeout=TIMEOUT)
        try:
            said = machine.expect(r"^reset: [\w-]+\r\n", "did nothing", timeout=TIMEOUT).group()
        except machines.Timeout as timeout:
            return "ends the emulator" if "the machine ended" in str(timeout) else "does not come back"
        return "does nothing" if b"nothing" in said else "comes back"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cpu", choices=["amd", "intel"], default="intel")
    parser.add_argument("--piix4-off", action="store_true")
    options = parser.parse_args()
    with open(SOURCE, encoding="utf-8") as file:
        source = file.read()
    with tempfile.TemporaryDirectory() as directory:
        program, image = os.path.join(directory, "reset.efi"), os.path.join(directory, "reset.img")
        for name, number in re.findall(r"^#define RESET_(\w+) (\d+)", source, re.M):
            changed = os.path.join(directory, "reset.c")
            with open(changed, "w", encoding="utf-8") as file:
                file.write(f"#define MEANS {number}\n#define PIIX4_OFF {int(options.piix4_off)}\n" + source)
            bench.efi_program(changed, program)
            mkesp.write_image(image, {"EFI/BOOT/BOOTX64.EFI": program})
            print(f"{name.lower():10} {outcome(options.cpu, image)}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
