#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Starts a machine with Tasuki and gives the terminal to its serial port.

    run.py [--cpu amd|intel] [--build DIR] [--fresh] [--smp N] [--memory MIB] [--log FILE] [IMAGE]
    run.py [--build DIR] --restart-target

Without IMAGE it is the demo: a node whose VM, a Debian, is on a volume, on a real iSCSI target that
this program starts (scene.py) and ends. --fresh makes that volume anew. With IMAGE there is only the machine.

Every key goes to the machine, Ctrl-C too. Ctrl-a is kept: Ctrl-a x ends the machine, Ctrl-a t kills the target and starts
it again after some seconds, Ctrl-a a sends a Ctrl-a. `node poweroff` in the shell is the orderly way out. From elsewhere
--restart-target does what Ctrl-a t does. The terminal is put back as it was however this program ends.
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
import time
import tty

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import scene as scenes  # noqa: E402
from machine import Machine, MachineError  # noqa: E402

ESCAPE = b"\x01"
AWAY_SECONDS = 5  # of a target that is restarted
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
    """What of the typed bytes goes to the machine, whether an escape is half typed, and the commands: x to leave, t for the
    target. What follows an x is not looked at."""
    out, commands = b"", b""
    for byte in (data[i:i + 1] for i in range(len(data))):
        if pending:
            pending = False
            if byte in (b"x", b"X"):
                return out, False, commands + b"x"
            if byte in (b"t", b"T"):
                commands += b"t"
                continue
            out += ESCAPE if byte in (b"a", ESCAPE) else ESCAPE + byte
        elif byte == ESCAPE:
            pending = True
        else:
            out += byte
    return out, pending, commands


class Restart:
    """Kills the target when it is asked to, and starts it again after a while; says so between the machine's own words.
    Asked by ask(), from the terminal or a signal; all else is done where due() is called, in the main thread, whose child
    the target is."""

    def __init__(self, target, say):
        self.target, self.say = target, say
        self.wanted = False
        self.back = None  # when it starts again

    def ask(self):
        self.wanted = self.target is not None

    def due(self):
        """Does what is due. The seconds until there may be more, or None."""
        now = time.monotonic()
        if self.wanted and self.back is None:
            self.say(f"the target, process {self.target.process.pid}, is killed; it starts again in {AWAY_SECONDS} s")
            self.target.kill()
            self.back = now + AWAY_SECONDS
        self.wanted = False
        if self.back is not None and now >= self.back:
            self.back = None
            self.target.start()
            self.say(f"the target is back, process {self.target.process.pid}")
        return None if self.back is None else max(0.0, self.back - time.monotonic())


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


def write_all(data):
    while data:
        data = data[os.write(1, data):]


def bridge(machine, target=None):
    """Until the machine ends or the user leaves. True if the user left."""
    ended, wake = os.pipe()
    asked, ask = os.pipe()
    shown = 0
    filtered = FirmwareFilter()
    restart = Restart(target, lambda text: write_all(f"\r\n[run: {text}]\r\n".encode()))

    def show():
        nonlocal shown
        while True:
            with machine._changed:
                while len(machine.output) == shown and not machine._ended:
                    machine._changed.wait()
                data, done = machine.output[shown:], machine._ended
                shown = len(machine.output)
            write_all(filtered(data))
            if done:
                os.close(wake)
                return

    def on_signal(*_):
        restart.ask()
        os.write(ask, b"t")

    signal.signal(signal.SIGUSR1, on_signal)
    threading.Thread(target=show, daemon=True).start()
    pending, inputs = False, [0, ended, asked]
    while True:
        ready, _, _ = select.select(inputs, [], [], restart.due())
        if ended in ready:
            return False
        if asked in ready:
            os.read(asked, 64)
        if 0 not in ready:
            continue
        data = os.read(0, 4096)
        if not data:
            inputs.remove(0)  # end of a script's input: the machine goes on until it powers itself off
            continue
        out, pending, commands = split_escapes(data, pending)
        try:
            machine.send(out)
        except OSError:
            return False
        if b"x" in commands:
            return True
        if commands:
            restart.ask()


def introduce(options, scene):
    print("Starting a node in " + ("QEMU, which emulates AMD's SVM." if options.cpu == "amd" else
          "Bochs, which emulates Intel's VMX; it is slow: half a minute to the prompt, two for the guest."))
    if scene:
        print(f"Its volume is on a real iSCSI target: tgtd, process {scene.target.process.pid}, port {scene.target.port}, file "
              f"{os.path.relpath(scene.lun)},\nwhich is kept for the next run; `make run FRESH=1` makes it anew.\n"
              f"Ctrl-a t kills the target and starts it again after {AWAY_SECONDS} s; so does, in another terminal, "
              "`make target-restart`.")
    print("To end it: `node poweroff`, or Ctrl-a x at any time. All other keys go to the node.\n", flush=True)


def run(options, terminal, scene):
    """True if the user left."""
    if scene:
        if options.fresh:
            scene.forget()
        scene.prepare(lambda text: print(text, flush=True))
    machine = Machine(cpu=options.cpu, image=scene.image if scene else options.image, smp=options.smp, memory=options.memory,
                      log=options.log, cards=[{"model": "e1000"}])
    introduce(options, scene)
    try:
        machine.start()
        terminal.raw()
        return bridge(machine, scene.target if scene else None)
    except KeyboardInterrupt:
        return True
    finally:
        terminal.restore()
        machine.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cpu", choices=["amd", "intel"], default="amd")
    parser.add_argument("--build", default="build", help="the build directory, for the demo")
    parser.add_argument("--fresh", action="store_true", help="make the demo's volume anew")
    parser.add_argument("--restart-target", action="store_true", help="restart the target of the demo that runs")
    parser.add_argument("--smp", type=int, help="CPUs")
    parser.add_argument("--memory", type=int, default=2048, help="MiB")
    parser.add_argument("--log", help="file for what the serial port says")
    parser.add_argument("image", nargs="?")
    options = parser.parse_args()

    # Turn a polite end into an ordinary exit, so that the machine and the terminal are cleaned up.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: sys.exit(128 + n))
    terminal = Terminal()
    try:
        if options.restart_target:
            pid = scenes.tell_restart(options.build)
            print(f"The target is killed, and starts again in {AWAY_SECONDS} s: the terminal of process {pid} shows it.")
            return
        if options.image:
            left = run(options, terminal, None)
        else:
            with scenes.Scene(options.build) as scene:
                left = run(options, terminal, scene)
    except (MachineError, scenes.SceneError, scenes.TargetError, OSError) as error:
        terminal.restore()
        sys.exit(f"run.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
    print("\nThe node was switched off, as by pulling its plug." if left else "\nThe node is off.", flush=True)


if __name__ == "__main__":
    main()
