# SPDX-License-Identifier: MIT
"""A volume and build/tasuki-csv, for the tests of the tool: runs its commands and holds them to what all of them promise."""
import json
import os
import shutil
import subprocess
import time

import node

TOOL = os.path.join(os.path.abspath(node.BUILD), "tasuki-csv")
MIB = 1 << 20
SECONDS = 120  # for anything


class Volume:
    """A volume in a file or elsewhere; the commands run in `folder`."""

    def __init__(self, folder, name=None):
        self.folder = folder
        self.name = name or str(folder / "volume.img")
        self.errors = ""
        self.started = []

    def run(self, command, *arguments, data=None, status=0, before=(), quiet=True):
        """
        Runs a command on the volume and returns its standard output; its exit status must be `status`. Who succeeds
        says nothing on standard error (unless not `quiet`), who fails does. `before`: words in front of the command.
        """
        options = [argument for argument in arguments if str(argument).startswith("--")]
        rest = [str(argument) for argument in arguments if argument not in options]
        result = subprocess.run([*before, TOOL, command, *options, self.name, *rest], input=data, cwd=self.folder,
                                capture_output=True, timeout=SECONDS)
        self.errors = result.stderr.decode()
        assert result.returncode == status, f"{command} {arguments}: {result.returncode}\n{self.errors}"
        assert not quiet or (status == 0) == (self.errors == ""), self.errors
        return result.stdout

    def fails(self, command, *words, arguments=(), status=1, **more):
        """Runs a command that must fail, as one line that has all these words."""
        self.run(command, *arguments, status=status, **more)
        assert self.errors.startswith("tasuki-csv: ") and self.errors.count("\n") == 1, self.errors
        for word in words:
            assert word in self.errors, self.errors

    def names(self, path="/"):
        return [entry["name"] for entry in json.loads(self.run("ls", "--json", path))]

    def free(self):
        return json.loads(self.run("df", "--json"))["free_bytes"]

    def transactions(self):
        """In the journal: those that the next mount replays."""
        return json.loads(self.run("info", "--json"))["journal_transactions"]

    def check(self):
        assert self.run("fsck").decode().endswith(": sound\n")

    def start(self, command, *arguments, **more):
        """A command that goes on, until end() at the latest."""
        process = subprocess.Popen([TOOL, command, self.name, *map(str, arguments)], cwd=self.folder, **more)
        self.started.append(process)
        return process

    def end(self):
        """Of the test: nothing that it has started goes on."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
                process.wait()


def wait_for(condition, what):
    """Until condition() is true; that must not take long."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


def on_another_host(name="stranger"):
    """Words in front of a command that then runs on a host of that name, or None where that cannot be done."""
    words = ["unshare", "--uts", "sh", "-c", f'hostname {name} && exec "$@"', "sh"]
    if os.getuid():
        words[1:1] = ["--user", "--map-root-user"]
    usable = shutil.which("unshare") and not subprocess.run([*words, "true"], capture_output=True).returncode
    return words if usable else None


def fuse_problem(folder):
    """Why FUSE cannot be used here, or None."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"/dev/fuse cannot be opened: {error.strerror}"
    if os.getuid() and not shutil.which("fusermount3"):
        return "not root, and fusermount3 is not there"
    volume = Volume(folder)
    volume.run("mkfs", "--size=64M")
    (folder / "try").mkdir()
    tried = subprocess.run([TOOL, "mount", volume.name, str(folder / "try")], capture_output=True, text=True,
                           timeout=SECONDS)
    if not tried.returncode:
        unmount(folder / "try")
        return None
    if "Operation not permitted" in tried.stderr or "Permission denied" in tried.stderr:
        return f"this user may not mount: {tried.stderr.strip()}"
    raise AssertionError(tried.stderr)


def unmount(directory, lazily=False):
    if os.getuid():
        command = ["fusermount3", "-u", *(["-z"] if lazily else [])]
    else:
        command = ["umount", *(["--lazy"] if lazily else [])]
    subprocess.run([*command, str(directory)], check=True, timeout=SECONDS)
