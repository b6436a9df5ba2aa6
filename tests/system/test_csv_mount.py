# SPDX-License-Identifier: MIT
"""A volume under a directory by FUSE: what POSIX promises to those that use it, and what is left after kill -9.

Each promise is one test, in a directory of its own of one mount. What the format does not have (hard and symbolic
links, devices, access times) is tested for its refusal. Skipped, with the reason, where FUSE cannot be used.
"""
import ctypes
import errno
import json
import mmap
import os
import signal
import stat
import subprocess
import sys

import pytest

from csv_volume import MIB, SECONDS, Volume, fuse_problem, unmount, wait_for

pytestmark = pytest.mark.vendor("none")
KEEP_SIZE, PUNCH_HOLE, ZERO_RANGE, COLLAPSE_RANGE = 1, 2, 16, 8
NOREPLACE, EXCHANGE = 1, 2
libc = ctypes.CDLL(None, use_errno=True)


class Mount(Volume):
    def __init__(self, folder, name=None, size="512M"):
        super().__init__(folder, name)
        self.directory = folder / "mounted"
        self.directory.mkdir()
        self.run("mkfs", f"--size={size}")

    def mount(self, *options):
        self.run("mount", *options, self.directory)

    def unmount(self):
        unmount(self.directory)

    def process(self):
        """The process that serves the mount."""
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if words[:1] and words[0].endswith(b"/tasuki-csv") and self.name.encode() in words:
                return int(pid)
        raise AssertionError("nobody serves the mount")


@pytest.fixture(scope="module")
def usable(tmp_path_factory):
    reason = fuse_problem(tmp_path_factory.mktemp("fuse"))
    if reason:
        pytest.skip(reason)


@pytest.fixture(scope="module")
def mounted(usable, tmp_path_factory):
    """Used by all promises."""
    mount = Mount(tmp_path_factory.mktemp("mount"))
    mount.mount(*(["--allow-other"] if os.getuid() == 0 else []))
    yield mount
    try:
        mount.unmount()
    except subprocess.CalledProcessError:  # a test that failed has left something open
        unmount(mount.directory, lazily=True)
        raise
    mount.check()
    assert mount.transactions() == 0


@pytest.fixture
def d(mounted):
    """A directory for the test, which is the current one meanwhile."""
    path = mounted.directory / str(len(os.listdir(mounted.directory)))
    path.mkdir()
    before = os.getcwd()
    os.chdir(path)
    yield path
    os.chdir(before)


@pytest.fixture
def mount(usable, tmp_path):
    """One of its own, not yet mounted."""
    made = Mount(tmp_path)
    yield made
    made.end()
    if os.path.ismount(made.directory):
        unmount(made.directory, lazily=True)


def fails(number, function, *arguments, **named):
    with pytest.raises(OSError) as caught:
        function(*arguments, **named)
    assert caught.value.errno in (number if isinstance(number, tuple) else (number,)), caught.value


def write(name, data=b"", mode="wb"):
    with open(name, mode) as file:
        file.write(data)


def read(name):
    with open(name, "rb") as file:
        return file.read()


def rename(old, new, flags):
    if libc.renameat2(-100, os.fsencode(old), -100, os.fsencode(new), flags):
        raise OSError(ctypes.get_errno(), "renameat2")


def fallocate(file, mode, offset, count):
    if libc.fallocate(file.fileno(), mode, ctypes.c_long(offset), ctypes.c_long(count)):
        raise OSError(ctypes.get_errno(), "fallocate")


def times(path):
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ctime_ns


# ---- Names ----

def test_open_makes_a_file_only_once_with_excl(d):
    os.close(os.open("f", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    fails(errno.EEXIST, os.open, "f", os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    os.close(os.open("f", os.O_CREAT | os.O_WRONLY))
    fails(errno.ENOENT, os.open, "g", os.O_RDONLY)
    fails(errno.ENOENT, os.open, "no/f", os.O_CREAT | os.O_WRONLY)
    fails(errno.ENOTDIR, os.open, "f/g", os.O_CREAT | os.O_WRONLY)
    fails(errno.EISDIR, os.open, ".", os.O_WRONLY)


@pytest.mark.parametrize("name", ["a", "ä" * 127, "x" * 255, " leading", "trailing ", "new-\u65b0\U0001f600", "a\\b", "'\"`$*?",
                                  "-rf", "..."], ids=["short", "umlauts", "longest", "blank", "blanks", "wide", "backslash", "quotes", "dash", "dots"])
def test_any_utf8_name_is_kept_as_it_is(d, name):
    write(name, b"here")
    assert os.listdir() == [name] and read(name) == b"here"
    os.unlink(name)
    assert os.listdir() == []


def test_names_that_are_none_are_refused(d):
    fails(errno.ENAMETOOLONG, write, "x" * 256)
    fails(errno.ENAMETOOLONG, os.mkdir, "ä" * 128)
    fails(errno.ENAMETOOLONG, os.stat, "x" * 256)
    for name in (b"\xff", b"a\nb", b"\xed\xa0\x80", b"\x7f"):
        fails(errno.EILSEQ, os.open, name, os.O_CREAT | os.O_WRONLY)
        fails(errno.EILSEQ, os.mkdir, name)
    assert os.listdir() == []


def test_case_counts(d):
    write("a", b"1")
    write("A", b"2")
    assert (read("a"), read("A")) == (b"1", b"2")


def test_mkdir_and_rmdir(d):
    os.mkdir("d")
    fails(errno.EEXIST, os.mkdir, "d")
    fails(errno.ENOENT, os.mkdir, "no/d")
    write("d/f")
    fails(errno.EEXIST, os.mkdir, "d/f")
    fails(errno.ENOTDIR, os.mkdir, "d/f/g")
    fails(errno.ENOTEMPTY, os.rmdir, "d")
    fails(errno.ENOTDIR, os.rmdir, "d/f")
    fails(errno.EINVAL, os.rmdir, "d/.")
    fails((errno.ENOTEMPTY, errno.EINVAL), os.rmdir, "d/..")
    os.unlink("d/f")
    os.rmdir("d")
    fails(errno.ENOENT, os.rmdir, "d")
    fails(errno.ENOENT, os.stat, "d")


def test_unlink(d):
    write("f")
    os.mkdir("d")
    fails((errno.EISDIR, errno.EPERM), os.unlink, "d")
    fails(errno.ENOENT, os.unlink, "g")
    fails(errno.ENOTDIR, os.unlink, "f/g")
    os.unlink("f")
    fails(errno.ENOENT, os.stat, "f")
    assert os.listdir() == ["d"]


def test_changes_of_a_directory_set_its_times(d):
    os.mkdir("in")

    def sets_times(change):
        os.utime("in", ns=(0, 0))
        before = times("in")
        change()
        assert times("in")[0] > before[0] and times("in")[1] >= before[1]

    sets_times(lambda: write("in/f"))
    sets_times(lambda: os.rename("in/f", "in/g"))
    sets_times(lambda: os.unlink("in/g"))
    sets_times(lambda: os.mkdir("in/d"))
    sets_times(lambda: os.rename("in/d", "out"))
    sets_times(lambda: os.rename("out", "in/d"))
    sets_times(lambda: os.rmdir("in/d"))


# ---- Renaming ----

def test_rename_replaces_a_file(d):
    write("old", b"old")
    write("new", b"new")
    with open("old", "rb") as file:
        os.rename("new", "old")
        assert file.read() == b"old", "who had it open reads another file"
    assert read("old") == b"new" and os.listdir() == ["old"]


def test_rename_keeps_the_file(d):
    write("a", b"data")
    before = os.stat("a")
    os.mkdir("d")
    with open("a", "ab") as file:
        os.rename("a", "d/b")
        file.write(b" more")
    after = os.stat("d/b")
    assert (before.st_ino, before.st_mode) == (after.st_ino, after.st_mode) and read("d/b") == b"data more"
    os.rename("d/b", "d/b")
    assert read("d/b") == b"data more"
    fails(errno.ENOENT, os.rename, "a", "b")
    fails(errno.ENOENT, os.rename, "d/b", "no/b")


def test_rename_of_directories(d):
    os.makedirs("a/b/c")
    os.makedirs("empty")
    os.makedirs("full/x")
    write("f")
    fails(errno.EINVAL, os.rename, "a", "a/b/d")
    fails(errno.ENOTEMPTY, os.rename, "a", "full")
    fails(errno.ENOTDIR, os.rename, "a", "f")
    fails(errno.EISDIR, os.rename, "f", "empty")
    os.rename("a", "empty")
    assert os.path.isdir("empty/b/c") and not os.path.exists("a")
    os.rename("empty/b", "full/b")
    assert os.path.samefile("full/b/..", "full") and os.listdir("empty") == []


def test_rename_flags(d):
    write("a", b"a")
    write("b", b"b")
    fails(errno.EEXIST, rename, "a", "b", NOREPLACE)
    fails(errno.EINVAL, rename, "a", "b", EXCHANGE)
    rename("a", "c", NOREPLACE)
    assert sorted(os.listdir()) == ["b", "c"] and read("c") == b"a"


# ---- Open files ----

def test_an_unlinked_file_lives_as_long_as_it_is_open(d):
    free = os.statvfs(".").f_bfree
    with open("f", "w+b") as file:
        file.write(b"x" * 8 * MIB)
        file.flush()
        os.unlink("f")
        assert os.listdir() == [] and os.fstat(file.fileno()).st_nlink == 0
        write("f", b"another")
        file.seek(MIB)
        assert file.read(3) == b"xxx"
        file.seek(0)
        file.write(b"still")
        file.truncate(5)
        file.seek(0)
        assert file.read() == b"still"
        os.fchmod(file.fileno(), 0o600)
    assert read("f") == b"another"
    os.unlink("f")
    wait_for(lambda: os.statvfs(".").f_bfree >= free - 16, "the blocks to be free")


def test_a_removed_directory_that_is_open_is_empty(d):
    os.mkdir("d")
    fd = os.open("d", os.O_RDONLY)
    os.rmdir("d")
    os.mkdir("e")
    write("e/f")
    assert os.listdir(fd) == []
    fails(errno.ENOENT, os.open, "g", os.O_CREAT | os.O_WRONLY, dir_fd=fd)
    assert os.fstat(fd).st_nlink == 0 and stat.S_ISDIR(os.fstat(fd).st_mode)
    os.close(fd)


def test_a_number_that_is_used_again_is_another_file(d):
    """Descriptors that keep no file open (O_PATH) show what was there, never what has come to its place."""
    for i in range(30):
        write("f", b"old")
        fd = os.open("f", os.O_PATH)
        os.unlink("f")
        os.mkdir("f")
        assert stat.S_ISREG(os.fstat(fd).st_mode) and os.fstat(fd).st_nlink == 0
        fails(errno.ENOENT, os.open, f"/proc/self/fd/{fd}", os.O_RDONLY)
        fails(errno.ENOENT, os.chmod, f"/proc/self/fd/{fd}", 0)
        os.close(fd)
        os.rmdir("f")


# ---- Bytes ----

def test_what_is_written_is_read(d):
    data = os.urandom(3 * MIB + 123)
    with open("f", "w+b", buffering=0) as file:
        for at in range(0, len(data), 65537):
            file.write(data[at:at + 65537])
        assert os.pread(file.fileno(), len(data), 0) == data
        for at, count in ((4095, 2), (0, 1), (len(data) - 1, 1), (8192, 4096), (12345, 99999)):
            assert os.pread(file.fileno(), count, at) == data[at:at + count]
            os.pwrite(file.fileno(), b"\0" * count, at)
            data = data[:at] + b"\0" * count + data[at + count:]
        assert os.pread(file.fileno(), 10, len(data)) == b"" and os.pread(file.fileno(), 10, len(data) - 3) == data[-3:]
    assert read("f") == data


def test_what_was_not_written_is_zeros(d):
    with open("f", "w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"\xff" * 10000, 0)
        os.ftruncate(file.fileno(), 5000)
        os.ftruncate(file.fileno(), 20000)
        assert os.pread(file.fileno(), 99999, 0) == b"\xff" * 5000 + b"\0" * 15000
        os.pwrite(file.fileno(), b"end", 30000)
        assert os.pread(file.fileno(), 99999, 20000) == b"\0" * 10000 + b"end"
        os.ftruncate(file.fileno(), 4097)
        os.pwrite(file.fileno(), b"x", 8191)
        assert os.pread(file.fileno(), 99999, 4090) == b"\xff" * 7 + b"\0" * 4094 + b"x"


def test_truncate(d):
    write("f", b"x" * 9000)
    os.truncate("f", 100)
    assert read("f") == b"x" * 100
    before = times("f")
    os.truncate("f", 100)
    os.truncate("f", 1 << 40)
    assert os.stat("f").st_size == 1 << 40 and os.stat("f").st_blocks * 512 <= 8192 and times("f") > before
    os.truncate("f", 0)
    assert os.stat("f").st_blocks == 0
    fails(errno.EINVAL, os.truncate, "f", -1)
    fails(errno.EISDIR, os.truncate, ".", 1)
    fails(errno.ENOENT, os.truncate, "g", 1)
    write("f", b"short")
    with open("f", "wb"):
        pass
    assert os.stat("f").st_size == 0


def test_append_appends(d):
    write("f", b"begin")
    with open("f", "ab", buffering=0) as one, open("f", "ab", buffering=0) as two:
        for i in range(50):
            (one if i % 2 else two).write(b"%02d" % i)
        os.lseek(one.fileno(), 0, os.SEEK_SET)
        one.write(b"end")
    assert read("f") == b"begin" + b"".join(b"%02d" % i for i in range(50)) + b"end"


def test_sizes_have_their_limit(d):
    with open("f", "w+b", buffering=0) as file:
        os.pwrite(file.fileno(), b"last", (1 << 46) - 4)
        assert os.fstat(file.fileno()).st_size == 1 << 46
        assert os.pread(file.fileno(), 10, (1 << 46) - 5) == b"\0last"
        fails(errno.EFBIG, os.pwrite, file.fileno(), b"x", 1 << 46)
        fails(errno.EFBIG, os.ftruncate, file.fileno(), (1 << 46) + 1)
        assert os.fstat(file.fileno()).st_size == 1 << 46


def test_holes_are_found(d):
    with open("f", "w+b", buffering=0) as file:
        fd = file.fileno()
        os.pwrite(fd, b"x" * 8192, MIB)
        os.ftruncate(fd, 4 * MIB)
        assert os.lseek(fd, 0, os.SEEK_DATA) == MIB and os.lseek(fd, MIB + 5, os.SEEK_DATA) == MIB + 5
        assert os.lseek(fd, MIB, os.SEEK_HOLE) == MIB + 8192 and os.lseek(fd, 7, os.SEEK_HOLE) == 7
        fails(errno.ENXIO, os.lseek, fd, 2 * MIB, os.SEEK_DATA)
        fails(errno.ENXIO, os.lseek, fd, 4 * MIB, os.SEEK_HOLE)
        os.pwrite(fd, b"x", 4 * MIB - 1)
        assert os.lseek(fd, 4 * MIB - 1, os.SEEK_HOLE) == 4 * MIB, "there is a hole at the end of each file"
        assert os.lseek(fd, -5, os.SEEK_END) == 4 * MIB - 5


def test_fallocate(d):
    with open("f", "w+b", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, 5 * MIB)
        status = os.fstat(file.fileno())
        assert status.st_size == 5 * MIB and status.st_blocks * 512 == 5 * MIB
        assert os.pread(file.fileno(), 5 * MIB, 0) == bytes(5 * MIB)
        os.pwrite(file.fileno(), b"x" * MIB, MIB // 2)
        fallocate(file, PUNCH_HOLE | KEEP_SIZE, MIB, MIB)
        assert os.fstat(file.fileno()).st_blocks * 512 == 4 * MIB
        assert os.pread(file.fileno(), MIB, MIB // 2) == b"x" * (MIB // 2) + bytes(MIB // 2)
        fallocate(file, PUNCH_HOLE | KEEP_SIZE, MIB - 10, 5)
        assert os.pread(file.fileno(), 12, MIB - 11) == b"x" + bytes(5) + b"x" * 5 + b"\0"
        fallocate(file, PUNCH_HOLE | KEEP_SIZE, 4 * MIB, 9 * MIB)
        fallocate(file, ZERO_RANGE, MIB // 2, MIB)
        assert os.pread(file.fileno(), MIB, MIB // 2) == bytes(MIB)
        assert os.fstat(file.fileno()).st_size == 5 * MIB and os.fstat(file.fileno()).st_blocks * 512 == 7 * MIB // 2
        for change in (lambda: os.pwrite(file.fileno(), b"x", 0), lambda: fallocate(file, PUNCH_HOLE | KEEP_SIZE, 0, MIB)):
            before = os.fstat(file.fileno()).st_mtime_ns
            change()
            assert os.fstat(file.fileno()).st_mtime_ns > before, "a saved VM's disk that is changed in place is to be told"
        fallocate(file, KEEP_SIZE, 0, 5 * MIB)
        assert os.fstat(file.fileno()).st_blocks * 512 == 5 * MIB
        fails(errno.EOPNOTSUPP, fallocate, file, KEEP_SIZE, 5 * MIB, 4096)
        fails(errno.EOPNOTSUPP, fallocate, file, COLLAPSE_RANGE, 0, 4096)
        fails(errno.ENOSPC, os.posix_fallocate, file.fileno(), 0, 1 << 40)
        assert os.fstat(file.fileno()).st_size == 5 * MIB


def test_a_mapping_shared_writes_the_file(d):
    write("f", b"x" * 10000)
    with open("f", "r+b") as file, mmap.mmap(file.fileno(), 10000) as memory:
        memory[5000:5005] = b"hello"
        memory.flush()
        assert os.pread(file.fileno(), 7, 4999) == b"xhellox"
        os.pwrite(file.fileno(), b"W", 0)
        assert memory[0:1] == b"W"
    assert read("f")[5000:5005] == b"hello"


def test_a_full_volume_says_so_and_goes_on(d):
    kept = b"kept" * 1000
    write("kept", kept)
    with open("f", "wb", buffering=0) as file:
        with pytest.raises(OSError) as caught:
            while True:
                file.write(bytes(4 * MIB))
        assert caught.value.errno == errno.ENOSPC
    assert os.statvfs(".").f_bavail * 4096 < 8 * MIB and read("kept") == kept
    os.unlink("f")
    wait_for(lambda: os.statvfs(".").f_bavail * 4096 > 100 * MIB, "the blocks to be free")
    write("after", b"after")
    assert read("after") == b"after"


# ---- Attributes ----

def test_modes_are_kept(d):
    mask = os.umask(0o027)
    try:
        os.close(os.open("f", os.O_CREAT | os.O_WRONLY, 0o666))
        os.mkdir("d", 0o777)
    finally:
        os.umask(mask)
    assert stat.S_IMODE(os.stat("f").st_mode) == 0o640 and stat.S_IMODE(os.stat("d").st_mode) == 0o750
    before = times("f")[1]
    for mode in (0, 0o777, 0o4755, 0o1644):
        os.chmod("f", mode)
        assert os.stat("f").st_mode == stat.S_IFREG | mode
    assert times("f")[1] > before
    os.chmod("d", 0o1777)
    assert os.stat("d").st_mode == stat.S_IFDIR | 0o1777


def test_times_are_kept_to_the_nanosecond(d):
    write("f")
    for when in (1, 1234567890123456789, -1500000000, 4102444800999999999):
        os.utime("f", ns=(5, when))
        assert os.stat("f").st_mtime_ns == when
    os.utime("f", (10**11, 10**11))
    assert os.stat("f").st_mtime_ns == 2**63 - 1, "as late as can be"
    before = times("f")
    write("f", b"more", "ab")
    assert times("f")[0] != before[0] and times("f")[1] >= before[1]
    os.utime("f")
    os.utime("f", ns=(7, 8))
    assert os.stat("f").st_mtime_ns == 8


def as_user(number, code):
    """Runs Python code as another user; what it raises is its exit status."""
    return subprocess.run([sys.executable, "-c", f"import os\nos.setgroups([])\nos.setgid({number})\nos.setuid({number})\n"
                           f"try:\n    {code}\nexcept OSError as error:\n    raise SystemExit(error.errno)"],
                          timeout=SECONDS, cwd="/").returncode


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be other users")
def test_permissions_are_enforced(mounted, d):
    for part in [*mounted.directory.parents, mounted.directory]:
        if not stat.S_IMODE(os.stat(part).st_mode) & 1:
            os.chmod(part, os.stat(part).st_mode | 0o011)  # pytest's directories are for their owner alone
    write("secret", b"x")
    os.chmod("secret", 0o600)
    write("shared", b"x")
    os.chmod("shared", 0o666)
    os.chmod(".", 0o755)
    assert as_user(1234, f"open({str(d / 'secret')!r})") == errno.EACCES
    assert as_user(1234, f"open({str(d / 'shared')!r}, 'a').write('y')") == 0
    assert as_user(1234, f"open({str(d / 'new')!r}, 'w')") == errno.EACCES
    assert as_user(1234, f"os.chmod({str(d / 'shared')!r}, 0)") == errno.EPERM
    os.chmod(".", 0o1777)
    assert as_user(1234, f"open({str(d / 'own')!r}, 'w')") == 0
    assert (os.stat("own").st_uid, os.stat("own").st_gid) == (1234, 1234)
    assert as_user(1235, f"os.unlink({str(d / 'own')!r})") in (errno.EPERM, errno.EACCES), "the sticky bit"
    assert as_user(1234, f"os.unlink({str(d / 'own')!r})") == 0
    assert read("shared") == b"xy"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_owners_are_kept_and_groups_inherited(d):
    write("f")
    os.chown("f", 12, 34)
    os.chown("f", -1, 56)
    assert (os.stat("f").st_uid, os.stat("f").st_gid) == (12, 56)
    os.chmod("f", 0o6755)
    os.chown("f", 13, -1)
    assert not os.stat("f").st_mode & 0o6000, "a new owner takes the set-user-ID bits away"
    os.mkdir("d")
    os.chown("d", 0, 77)
    os.chmod("d", 0o2775)
    os.mkdir("d/e")
    write("d/f")
    assert os.stat("d/e").st_gid == os.stat("d/f").st_gid == 77
    assert os.stat("d/e").st_mode & stat.S_ISGID and not os.stat("d/f").st_mode & stat.S_ISGID


def test_statvfs(d):
    status = os.statvfs(".")
    assert status.f_namemax == 255 and status.f_bsize == 4096 and status.f_blocks * 4096 == 512 * MIB
    write("f", b"x" * 10 * MIB)
    assert status.f_bfree - os.statvfs(".").f_bfree >= 10 * MIB // 4096


# ---- Listing ----

def test_a_large_directory_is_listed_whole_while_it_changes(d):
    for i in range(1000):
        write(f"stays {i}")
        write(f"goes {i}")
    seen = []
    with os.scandir(".") as entries:
        for count, entry in enumerate(entries):
            seen.append(entry.name)
            assert entry.is_file() and entry.inode() > 0
            if count < 1000:
                os.unlink(f"goes {count}")
                write(f"comes {count}")
    stays = [name for name in seen if name.startswith("stays")]
    assert sorted(stays) == sorted(f"stays {i}" for i in range(1000)), "each is listed, and once"
    assert len(seen) == len(set(seen))
    for name in os.listdir():
        os.unlink(name)
    assert os.listdir() == []


def test_a_place_in_a_listing_can_be_returned_to(d):
    for i in range(500):
        write(f"file {i}")
    libc.fdopendir.restype = libc.readdir.restype = ctypes.c_void_p
    libc.telldir.restype = ctypes.c_long
    stream = ctypes.c_void_p(libc.fdopendir(os.open(".", os.O_RDONLY)))
    places, names = [], []
    while True:
        place = libc.telldir(stream)
        entry = libc.readdir(stream)
        if not entry:
            break
        places.append(place)
        names.append(ctypes.string_at(entry + 19))
    assert len(names) == 502 and all(0 <= place for place in places)
    for index in (0, 1, 2, 250, 501):
        libc.seekdir(stream, ctypes.c_long(places[index]))
        rest = []
        while entry := libc.readdir(stream):
            rest.append(ctypes.string_at(entry + 19))
        assert rest == names[index:]
    libc.closedir(stream)


def test_numbers_and_types_agree(d):
    os.mkdir("d")
    write("f")
    listed = {entry.name: (entry.inode(), entry.is_dir()) for entry in os.scandir(".")}
    assert listed == {name: (os.stat(name).st_ino, name == "d") for name in ("d", "f")}
    assert os.stat("d/..").st_ino == os.stat(".").st_ino


# ---- Refusals ----

def test_what_the_format_has_not_is_refused(d):
    write("f")
    fails(errno.EPERM, os.link, "f", "g")
    fails(errno.EPERM, os.symlink, "f", "g")
    fails(errno.EPERM, os.mkfifo, "g")
    if os.getuid() == 0:
        fails(errno.EPERM, os.mknod, "g", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    fails(errno.EOPNOTSUPP, os.setxattr, "f", "user.a", b"b")
    assert os.listdir() == ["f"] and os.stat("f").st_nlink == 1


# ---- The program ----

def test_fsync_makes_durable_and_an_unmount_too(mount):
    mount.mount()
    write(mount.directory / "f", b"data")
    mount.fails("ls", f"locked by tasuki-csv (process {mount.process()})", "fusermount3 -u")
    mount.unmount()
    assert mount.run("get", "f", "-") == b"data"
    assert mount.transactions() == 0
    mount.check()


def test_changes_become_durable_without_fsync(mount):
    mount.mount()
    write(mount.directory / "f", b"data")
    process = mount.process()

    def on_disk():
        with open(mount.name, "rb") as file:  # a commit block of the journal (docs/csv-format.md, section 12)
            file.seek(1056 * 4096)
            return b"TCJC" in file.read(16 * MIB)

    wait_for(on_disk, "a commit")
    os.kill(process, signal.SIGKILL)
    unmount(mount.directory, lazily=True)
    assert mount.run("get", "f", "-") == b"data"


def test_in_the_foreground_until_a_signal(mount):
    process = mount.start("mount", "--foreground", mount.directory)
    wait_for(lambda: os.path.ismount(mount.directory), "the mount")
    write(mount.directory / "f", b"data")
    process.send_signal(signal.SIGTERM)
    assert process.wait(SECONDS) == 0 and not os.path.ismount(mount.directory)
    assert mount.run("get", "f", "-") == b"data" and mount.transactions() == 0


def test_read_only_changes_nothing(mount):
    mount.run("put", "-", "f", data=b"data")
    with open(mount.name, "rb") as file:
        before = file.read()
    mount.mount("--read-only")
    assert read(mount.directory / "f") == b"data"
    fails(errno.EROFS, write, mount.directory / "g")
    fails(errno.EROFS, os.unlink, mount.directory / "f")
    assert mount.names() == ["f"], "others may read meanwhile"
    mount.unmount()
    with open(mount.name, "rb") as file:
        assert file.read() == before


def test_a_mount_that_cannot_be_says_why(mount, tmp_path):
    write(tmp_path / "file")
    mount.fails("mount", "file: no directory", arguments=("file",))
    mount.fails("mount", "missing: no directory", arguments=("missing",))
    mount.run("mkfs", "--force")
    with open(mount.name, "r+b") as file:
        file.truncate(65 * MIB)
    mount.fails("mount", "the LUN was cut", arguments=(mount.directory,))


@pytest.mark.parametrize("count", [1, 17, 150])
def test_kill_9_in_the_midst_of_writes_loses_nothing_that_was_synced(mount, count):
    """After `count` synced files the server is killed, while a second writer goes on without syncing."""
    mount.mount()
    process = mount.process()
    busy = subprocess.Popen(["sh", "-c", "mkdir busy; i=0; while i=$((i+1)); do head -c 300000 /dev/urandom >busy/$((i%9)) && "
                             "mv busy/$((i%9)) busy/m$((i%7)) || exit; done"], cwd=mount.directory, stderr=subprocess.DEVNULL)
    synced = {}
    for i in range(count):
        data = os.urandom(1 + i * 977 % 40000)
        with open(mount.directory / f"file {i % 40}", "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        synced[f"file {i % 40}"] = data
    os.kill(process, signal.SIGKILL)
    busy.wait(SECONDS)
    fails((errno.ENOTCONN, errno.ECONNABORTED), os.stat, mount.directory / "file 0")
    unmount(mount.directory, lazily=True)
    mount.check()  # with what the journal says
    mount.mount()  # replays
    for name, data in synced.items():
        assert read(mount.directory / name) == data
    mount.unmount()
    mount.check()
    assert mount.transactions() == 0


def test_a_damaged_inode_hides_no_other(usable, tmp_path):
    mount = Mount(tmp_path, size="64M")
    mount.run("mkdir", "d")
    for i in range(20):
        mount.run("put", "-", f"d/{i}", data=b"x")
    inode = json.loads(mount.run("ls", "--json", "d/7"))[0]["inode"]
    with open(mount.name, "r+b") as file:
        file.seek(inode * 4096 + 100)
        file.write(b"\xff" * 4)
    mount.mount()
    try:
        folder = mount.directory / "d"
        assert sorted(os.listdir(folder)) == sorted(str(i) for i in range(20))
        with pytest.raises(OSError) as raised:
            os.stat(folder / "7")
        assert raised.value.errno == errno.EIO
        assert all((folder / str(i)).read_bytes() == b"x" for i in range(20) if i != 7)
    finally:
        mount.unmount()
    mount.run("fsck", "--repair", status=1, quiet=False)  # 1: it has mended something
    mount.check()
    assert sorted(mount.names("d")) == sorted(str(i) for i in range(20) if i != 7)
