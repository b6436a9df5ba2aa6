# SPDX-License-Identifier: MIT
"""The log and a panic on the framebuffer, read back from QEMU's picture of the screen by means of the font.

Bochs' firmware gives no framebuffer, so this is QEMU's to show.
"""
import os
import re
import subprocess

import pytest

from node import BUILD, Node

TREE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
WIDTH, HEIGHT = 8, 16


def font():
    """{the pixels of a cell, line by line, as text of '#' and '.': its character}, from the drawing in font.c."""
    with open(os.path.join(TREE, "hv/kernel/font.c"), encoding="utf-8") as file:
        lines = re.findall(r'^ +"([#. ]{71})",$', file.read(), re.M)
    assert len(lines) == 12 * HEIGHT
    cells = {}
    for band in range(12):
        for place in range(8):
            code = 0x20 + band * 8 + place
            rows = [lines[band * HEIGHT + y].split(" ")[place] for y in range(HEIGHT)]
            cells["".join(rows)] = chr(code) if code < 0x7f else "\ufffd"
    return cells


def screen(machine, path, scale):
    """The rows of text on the screen; '?' stands for what is no character."""
    machine.qmp("screendump", filename=path)
    with open(path, "rb") as file:
        kind, size, _, pixels = file.read().split(b"\n", 3)
    assert kind == b"P6"
    columns, lines = map(int, size.split())
    background = pixels[:3]
    cells, rows = font(), []
    for row in range(lines // (HEIGHT * scale)):
        text = ""
        for column in range(columns // (WIDTH * scale)):
            art = ""
            for y in range(HEIGHT):
                start = ((row * HEIGHT + y) * scale * columns + column * WIDTH * scale) * 3
                line = pixels[start:start + WIDTH * scale * 3]
                art += "".join("." if line[x:x + 3] == background else "#" for x in range(0, len(line), 3 * scale))
            text += cells.get(art, "?")
        rows.append(text.rstrip())
    return rows


@pytest.mark.parametrize("pixels, scale", [((1280, 800), 1), ((1920, 1080), 2)])
def test_the_log_is_on_the_screen(tmp_path, pixels, scale):
    card = f"VGA,xres={pixels[0]},yres={pixels[1]},vgamem_mb=32"
    with Node("amd", f"screen{scale}", node={"log": "info"}, qmp=True, extra=["-vga", "none", "-device", card]) as node:
        # What the serial port got before the shell came: all of it, what came before the framebuffer as well.
        said = node.machine.output.replace(b"\r", b"").split(b"This is the shell")[0].decode(errors="replace")
        said = re.findall(r"^\[ *\d+\.\d{6}\] .*$", said, re.M)
        assert len(said) >= 4
        columns = pixels[0] // (WIDTH * scale)
        expected = [line[i:i + columns].rstrip() for line in said for i in range(0, len(line), columns)]
        rows = screen(node.machine, str(tmp_path / "screen.ppm"), scale)
        assert rows[0] == "Tasuki. This screen shows the log; the shell is on the serial port."
        assert rows[2:2 + len(expected)] == expected


def test_a_panic_is_on_the_screen(tmp_path):
    debugger = str(tmp_path / "gdb")
    with Node("amd", "screen-panic", qmp=True, extra=["-gdb", f"unix:{debugger},server=on,wait=off"]) as node:
        # The shell's thread looks at the port all the time. From there it is sent to where no code is.
        subprocess.run(["gdb", "-batch", os.path.join(BUILD, "tasuki.elf"), "-ex", f"target remote {debugger}",
                        "-ex", "hbreak uart_read", "-ex", "continue", "-ex", "delete", "-ex", "set $rip=0x1234",
                        "-ex", "detach"], check=True, timeout=60, stdin=subprocess.DEVNULL, capture_output=True)
        node.expect(r"the node resets in 5 s", timeout=20)
        rows = screen(node.machine, str(tmp_path / "panic.ppm"), 1)
        assert any(re.match(r"PANIC on CPU \d+, thread shell, ", row) for row in rows[:3])
        assert any(re.match(r"rip 0000000000001234  rsp [0-9a-f]{16}", row) for row in rows)
        assert any("thread_main+0x" in row for row in rows)
        assert "the node resets in 5 s ([node] panic = reset)" in rows
        # And it does reset.
        node.machine.expect(r"BdsDxe: starting", timeout=60)
        node.boot()
