#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Makes the table of function names of hv/kernel/ksyms.c.

    ksyms.py ELF > ksyms.S       a table of ELF's functions, as assembler text
    ksyms.py > ksyms.S           an empty table, for the first link
    ksyms.py --check ELF ELF     fails unless both have the same functions at the same addresses
"""
import subprocess
import sys


def functions(elf):
    """[(address, name)] of the functions, ascending, one name for each address, and the start of the text."""
    text_start, found = None, {}
    for line in subprocess.run(["nm", elf], check=True, capture_output=True, text=True).stdout.splitlines():
        fields = line.split()
        if len(fields) != 3:
            continue
        address, kind, name = int(fields[0], 16), fields[1], fields[2]
        if name == "__text_start":
            text_start = address
        elif kind in "tTwW" and not name.startswith("__text_"):
            # Of several names, the global one, then the first of the alphabet: the same in every build.
            key = (kind not in "TW", name)
            if address not in found or key < found[address]:
                found[address] = key
    if text_start is None:
        sys.exit(f"ksyms.py: {elf}: no symbol __text_start: was it linked with linker.ld?")
    return sorted((address, key[1]) for address, key in found.items()), text_start


def table(elf):
    names, starts, offset = [], [], 0
    listed, text_start = functions(elf) if elf else ([], 0)
    offsets = []
    for address, name in listed:
        starts.append(address - text_start)
        offsets.append(offset)
        names.append(name)
        offset += len(name) + 1
    lines = ['        .section .ksyms, "a"', "        .balign 8", "        .globl ksym_table", "ksym_table:"]
    for number in [len(names)] + starts + offsets:
        lines.append(f"        .long {number}")
    lines += [f'        .asciz "{name}"' for name in names]
    lines.append('        .section .note.GNU-stack, "", @progbits')
    return "\n".join(lines) + "\n"


def main(arguments):
    if arguments[:1] == ["--check"] and len(arguments) == 3:
        if functions(arguments[1]) != functions(arguments[2]):
            sys.exit(f"ksyms.py: functions moved between {arguments[1]} and {arguments[2]}: the names would be wrong")
    elif len(arguments) <= 1:
        sys.stdout.write(table(arguments[0] if arguments else None))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
