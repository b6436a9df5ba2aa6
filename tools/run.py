#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Starts a machine with Tasuki and gives the terminal to its serial port.

    run.py [--cpu amd|intel] [--smp N] [--memory MIB] [--log FILE] IMAGE

Every key goes to the machine, Ctrl-C too. Ctrl-a is kept: Ctrl-a x ends the machine, Ctrl-a a sends a Ctrl-a. `node
poweroff` in the shell is the orderly way out. The terminal is put back as it was however this program ends.
"""
import argparse
import atexit
import os
import re
import select
import signal
import sys
import termios
import threading
import tty

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from machine import Machine, MachineError  # noqa: E402

ESCAPE = b"\x01"
# What UEFI firmware sends to move and clear: it would wipe from the terminal what the user has just been told.
CONTROL_SEQUENCE = re.compile(rb"\x1b\[[0-9;=?]*[A-Za-z]")
CONTROL_BEGINNING = re.compile(rb"\x1b(\[[0-9;=?]*)?$")


class Terminal:
    """The terminal in raw mode, if it is one. restore() may be called any number of times."""

    def __init__(self):
        self.saved = termios.tcgetattr(0) if os.isatty(0) else None

    def raw(self):
        if self.saved:
            atexit.register(self.restore)
            tty.setraw(0)

    def restore(self):
        if self.saved:
            termios.tcsetattr(0, termios.TCSAFLUSH, self.saved)
            self.saved = None


def split_escapes(data, pending):
    """What of the typed bytes goes to the machine, whether an escape is half typed, and whether to leave."""
    out = b""
    for byte in (data[i:i + 1] for i in range(len(data))):
        if pending:
            pending = False
            if byte in (b"x", b"X"):
                return out, False, True
            out += ESCAPE if byte in (b"a", ESCAPE) else ESCAPE + byte
        elif byte == ESCAPE:
            pending = True
        else:
            out += byte
    return out, pending, False


class FirmwareFilter:
    """Takes control sequences out of what the serial port says, until Tasuki speaks: from then on they are wanted."""

    def __init__(self):
        self.kept = b""  # the beginning of a sequence whose rest has not come
        self.passing = False

    def __call__(self, data):
        if self.passing:
            return data
        data, self.kept = self.kept + data, b""
        start = data.find(b"Tasuki")
        if start >= 0:
            self.passing = True
            return CONTROL_SEQUENCE.sub(b"", data[:start]) + data[start:]
        data = CONTROL_SEQUENCE.sub(b"", data)
        beginning = CONTROL_BEGINNING.search(data)
        if beginning:
            data, self.kept = data[:beginning.start()], data[beginning.start():]
        return data


def bridge(machine):
    """Until the machine ends or the user leaves. True if the user left."""
    ended, wake = os.pipe()
    shown = 0
    filtered = FirmwareFilter()

    def show():
        nonlocal shown
        while True:
            with machine._changed:
                while len(machine.output) == shown and not machine._ended:
                    machine._changed.wait()
                data, done = machine.output[shown:], machine._ended
                shown = len(machine.output)
            data = filtered(data)
            while data:
                data = data[os.write(1, data):]
            if done:
                os.close(wake)
                return

    threading.Thread(target=show, daemon=True).start()
    pending, inputs = False, [0, ended]
    while True:
        ready, _, _ = select.select(inputs, [], [])
        if ended in ready:
            return False
        data = os.read(0, 4096)
        if not data:
            inputs.remove(0)  # end of a script's input: the machine goes on until it powers itself off
            continue
        out, pending, leave = split_escapes(data, pending)
        try:
            machine.send(out)
        except OSError:
            return False
        if leave:
            return True


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cpu", choices=["amd", "intel"], default="amd")
    parser.add_argument("--smp", type=int, help="CPUs")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--log", help="file for what the serial port says")
    parser.add_argument("image")
    options = parser.parse_args()

    # Turn a polite end into an ordinary exit, so that the machine and the terminal are cleaned up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    terminal = Terminal()
    machine = Machine(cpu=options.cpu, image=options.image, smp=options.smp, memory=options.memory, log=options.log,
                      cards=[{"model": "e1000"}])
    emulator = ("QEMU, which emulates AMD's SVM" if options.cpu == "amd" else
                "Bochs, which emulates Intel's VMX; it is slow: half a minute to the prompt, two for the guest")
    print(f"Starting a node in {emulator}.\n"
          "To end it: `node poweroff`, or Ctrl-a x at any time. All other keys go to the node.\n", flush=True)
    try:
        machine.start()
        terminal.raw()
        left = bridge(machine)
    except MachineError as error:
        terminal.restore()
        sys.exit(f"run.py: {error}")
    except KeyboardInterrupt:
        left = True
    finally:
        terminal.restore()
        machine.kill()
    print("\nThe node was switched off, as by pulling its plug." if left else "\nThe node is off.", flush=True)


if __name__ == "__main__":
    main()
