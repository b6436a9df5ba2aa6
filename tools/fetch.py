#!/usr/bin/python3
# SPDX-License-Identifier: MIT
"""Fetches pinned Debian packages, source or binary, that are used without being installed.

    fetch.py NAME DIRECTORY

NAME is a name of tools/sources.lock, whose lines are

    NAME source|binary PACKAGE VERSION FILE=SHA256 ...

Several lines of one NAME are alternatives, tried in order (a distribution drops old security updates). The files of the
first that can be had are put into DIRECTORY and its package, version and files are printed. A file that is there with the
right checksum is not fetched again.

Trust: APT verifies the archive's signature with the machine's own keys, and the checksum of each file against the signed
index; then this program compares it with the lock. The machine's APT configuration is read (mirror, proxy, keys) and never
changed: lists and caches are in DIRECTORY/.apt.
"""
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys

LOCK = os.path.join(os.path.dirname(os.path.abspath(__file__)), "sources.lock")
RELEASE = "bookworm"  # Debian 12, for which the lock was made


class FetchError(Exception):
    pass


def alternatives(name):
    """[(kind, package, version, {file: sha256})] of a name in the lock."""
    found = []
    with open(LOCK, encoding="utf-8") as lock:
        for line in lock:
            fields = line.split("#")[0].split()
            if fields and fields[0] == name:
                found.append((fields[1], fields[2], fields[3], dict(f.split("=") for f in fields[4:])))
    if not found:
        raise FetchError(f"{name}: not in {LOCK}")
    return found


def sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for chunk in iter(lambda: file.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def present(directory, files):
    return all(os.path.exists(os.path.join(directory, file)) and sha256(os.path.join(directory, file)) == digest
               for file, digest in files.items())


def write_sources(path, kinds):
    """A sources.list with the machine's own entries for Debian 12: kinds are deb, deb-src."""
    listing = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)", "Created-By: Packages"],
        check=True, capture_output=True, text=True).stdout
    entries = sorted({tuple(line.split()) for line in listing.splitlines() if len(line.split()) == 3})
    entries = [entry for entry in entries if entry[1].startswith(RELEASE) and entry[2] == "main"]
    if not entries:
        raise FetchError(f"APT on this machine has no entry for Debian 12 ({RELEASE}): add one for the mirror of your "
                         "choice to /etc/apt/sources.list")
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    option = f"[signed-by={keyring}] " if os.path.exists(keyring) else ""
    with open(path, "w", encoding="utf-8") as sources:
        for entry in entries:
            for kind in kinds:
                sources.write(f"{kind} {option}{' '.join(entry)}\n")


class PrivateApt:
    """apt-get with its lists and caches in a directory of ours, and entries derived from the machine's own."""

    def __init__(self, directory):
        self.base = os.path.join(os.path.abspath(directory), ".apt")
        for part in ("lists/partial", "cache/archives/partial"):
            os.makedirs(os.path.join(self.base, part), exist_ok=True)
        write_sources(os.path.join(self.base, "sources.list"), ["deb", "deb-src"])
        self.run("update")

    def run(self, *arguments, cwd=None):
        result = subprocess.run(
            ["apt-get", "-qq", "-o", f"Dir::Etc::sourcelist={self.base}/sources.list", "-o", "Dir::Etc::sourceparts=-",
             "-o", f"Dir::State::lists={self.base}/lists", "-o", f"Dir::Cache={self.base}/cache",
             "-o", "APT::Get::List-Cleanup=0", "-o", "APT::Sandbox::User=", *arguments],
            cwd=cwd, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if result.returncode:
            raise FetchError((result.stderr or result.stdout).strip())


def fetch(name, directory):
    """(package, version, [paths]) of a name, with its files in the directory. Raises FetchError. Waits for another process
    that fetches into the same directory."""
    os.makedirs(directory, exist_ok=True)
    with open(os.path.join(directory, ".lock"), "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return fetch_locked(name, directory)


def fetch_locked(name, directory):
    choices, problems, apt = alternatives(name), [], None
    for _, package, version, files in choices:
        if present(directory, files):
            return package, version, [os.path.join(directory, file) for file in files]
    for kind, package, version, files in choices:
        print(f"fetching {package} {version} ({kind} package, not installed)", file=sys.stderr, flush=True)
        try:
            apt = apt or PrivateApt(directory)
            work = os.path.join(os.path.abspath(directory), ".apt", "work")
            shutil.rmtree(work, ignore_errors=True)
            os.makedirs(work)
            command = ["source", "--download-only"] if kind == "source" else ["download"]
            apt.run(*command, f"{package}={version}", cwd=work)
            for file, digest in files.items():
                got = os.path.join(work, file)
                if not os.path.exists(got):
                    raise FetchError(f"the archive did not give {file}")
                if sha256(got) != digest:
                    raise FetchError(f"{file} has another checksum than {LOCK} says: it is not used")
            for file in files:
                os.replace(os.path.join(work, file), os.path.join(directory, file))
            return package, version, [os.path.join(directory, file) for file in files]
        except FetchError as error:
            problems.append(f"  {package} {version}: {error}")
    raise FetchError(f"{name} cannot be fetched:\n" + "\n".join(problems) +
                     f"\nCheck the network. If the archive has dropped these versions, put a current one into {LOCK}.")


def main(arguments):
    if len(arguments) != 2:
        sys.exit(__doc__)
    try:
        package, version, paths = fetch(*arguments)
    except (FetchError, OSError, subprocess.CalledProcessError) as error:
        sys.exit(f"fetch.py: {error}")
    print(package, version, *paths)


if __name__ == "__main__":
    main(sys.argv[1:])
