#!/usr/bin/python3
# SPDX-License-Identifier: MIT
r"""Makes a bootable disk image: an MBR with one FAT32 partition that holds the given files.

    mkesp.py IMAGE [--mib N] DESTINATION=SOURCE ...

DESTINATION is a path inside the image with '/' or '\' between its parts; SOURCE is a file of this machine. The same
contents give the same bytes: serial number and dates are fixed, nothing of the machine gets in. The image boots by
UEFI from a disk or, copied whole, from a USB stick. As a module: write_image().

On-disk format: "Microsoft Extensible Firmware Initiative FAT32 File System Specification" 1.03.
"""
import os
import struct
import sys

SECTOR = 512
PARTITION_START = 2048  # in sectors: 1 MiB, as every partitioning tool aligns
RESERVED_SECTORS = 32
FAT_COUNT = 2
MIN_CLUSTERS = 65536  # fewer than 65525 would be FAT16 by definition; mind broken drivers near the limit
END_OF_CHAIN = 0x0FFFFFFF
DATE = (2020 - 1980) << 9 | 1 << 5 | 1
SERIAL = 0x5441534B
CHUNK = 1 << 20


class Node:
    """A directory (children is a dict) or a file (source is a path or bytes)."""

    def __init__(self, source=None):
        self.children = None if source is not None else {}
        self.source = source
        self.size = 0
        self.cluster = 0
        if isinstance(source, bytes):
            self.size = len(source)
        elif source is not None:
            self.size = os.path.getsize(source)


def make_tree(files):
    root = Node()
    for destination, source in sorted(files.items()):
        parts = [part for part in destination.replace("\\", "/").split("/") if part]
        if not parts:
            raise ValueError(f"{destination!r}: not a path inside the image")
        at = root
        for part in parts[:-1]:
            at = at.children.setdefault(part, Node())
            if at.children is None:
                raise ValueError(f"{destination!r}: {part!r} is a file")
        if any(parts[-1].lower() == name.lower() for name in at.children):
            raise ValueError(f"{destination!r}: twice in the image")
        at.children[parts[-1]] = Node(source)
    return root


def is_short(name):
    stem, dot, extension = name.partition(".")
    allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_"
    return (1 <= len(stem) <= 8 and len(extension) <= 3 and (not dot or extension)
            and all(c in allowed for c in stem + extension))


def short_name(name, taken):
    """The 8.3 name, padded to 11 bytes; unique in its directory."""
    if is_short(name):
        stem, _, extension = name.partition(".")
        result = (stem.ljust(8) + extension.ljust(3)).encode()
    else:
        stem, dot, extension = name.rpartition(".")
        if not dot:
            stem, extension = name, ""
        keep = [c if c.isascii() and c.isalnum() else "_" for c in stem.upper()]
        end = "".join(c if c.isascii() and c.isalnum() else "_" for c in extension.upper())[:3]
        for number in range(1, 1000000):
            tail = f"~{number}"
            result = ("".join(keep)[:8 - len(tail)].ljust(1, "_") + tail).ljust(8).encode() + end.ljust(3).encode()
            if result not in taken:
                break
    taken.add(result)
    return result


def long_entries(name, short):
    """The VFAT entries that carry the long name, last part first."""
    checksum = 0
    for byte in short:
        checksum = ((checksum >> 1) + ((checksum & 1) << 7) + byte) & 0xFF
    units = name.encode("utf-16-le")
    if len(units) // 2 > 255:
        raise ValueError(f"{name!r}: longer than 255 characters")
    if len(units) % 26:
        units += b"\0\0"
    units += b"\xff" * (-len(units) % 26)
    parts = [units[i:i + 26] for i in range(0, len(units), 26)]
    result = b""
    for number in range(len(parts), 0, -1):
        part = parts[number - 1]
        order = number | (0x40 if number == len(parts) else 0)
        result += struct.pack("<B10sBBB12sH4s", order, part[:10], 0x0F, 0, checksum, part[10:22], 0, part[22:])
    return result


def entry(short, attributes, cluster, size):
    return struct.pack("<11sBBBHHHHHHHI", short, attributes, 0, 0, 0, DATE, DATE, cluster >> 16, 0, DATE,
                       cluster & 0xFFFF, size)


def directory_bytes(node, parent_cluster, is_root):
    result = b""
    if is_root:
        result += entry(b"TASUKI     ", 0x08, 0, 0)
    else:
        result += entry(b".          ", 0x10, node.cluster, 0) + entry(b"..         ", 0x10, parent_cluster, 0)
    taken = set()
    for name, child in sorted(node.children.items()):
        short = short_name(name, taken)
        if not is_short(name):
            result += long_entries(name, short)
        if child.children is None:
            result += entry(short, 0x20, child.cluster, child.size)
        else:
            result += entry(short, 0x10, child.cluster, 0)
    return result


class Image:
    def __init__(self, file, root, mib):
        self.file = file
        self.root = root
        content = self.measure(root)
        self.total_sectors = (mib or self.default_mib(content)) * 2048
        self.sectors = self.total_sectors - PARTITION_START
        # The smallest clusters waste least; large volumes get larger ones, so that the table stays small.
        self.cluster_sectors = 1
        while self.sectors // self.cluster_sectors > 16 * MIN_CLUSTERS:
            self.cluster_sectors *= 2
        self.layout()
        self.fat = [0x0FFFFFF8, END_OF_CHAIN]

    @staticmethod
    def default_mib(content):
        return max(64, -(-content // (1 << 20)) + 16 + content // (32 << 20))

    def measure(self, node):
        """Bytes of content, with each file rounded up to what any cluster size may take."""
        if node.children is None:
            return -(-node.size // 4096) * 4096
        return 4096 * (1 + len(node.children) // 16) + sum(self.measure(child) for child in node.children.values())

    def layout(self):
        self.fat_sectors = -(-(self.sectors // self.cluster_sectors + 2) * 4 // SECTOR)
        self.data_start = PARTITION_START + RESERVED_SECTORS + FAT_COUNT * self.fat_sectors
        self.clusters = (self.total_sectors - self.data_start) // self.cluster_sectors
        if self.clusters < MIN_CLUSTERS:
            raise ValueError(f"{self.total_sectors // 2048} MiB is too small for FAT32: use 64 or more")

    def allocate(self, size):
        """A chain of clusters for `size` bytes; its first one."""
        count = -(-size // (SECTOR * self.cluster_sectors))
        if not count:
            return 0
        first = len(self.fat)
        if first + count > self.clusters + 2:
            raise ValueError(f"the files do not fit into {self.total_sectors // 2048} MiB: give more with --mib")
        self.fat += range(first + 1, first + count)
        self.fat.append(END_OF_CHAIN)
        return first

    def allocate_tree(self, node, is_root):
        node.cluster = self.allocate(max(1, len(directory_bytes(node, 0, is_root))))
        for _, child in sorted(node.children.items()):
            if child.children is None:
                child.cluster = self.allocate(child.size)
            else:
                self.allocate_tree(child, False)

    def seek_cluster(self, cluster):
        self.file.seek((self.data_start + (cluster - 2) * self.cluster_sectors) * SECTOR)

    def write_tree(self, node, parent_cluster, is_root):
        self.seek_cluster(node.cluster)
        self.file.write(directory_bytes(node, parent_cluster, is_root))
        for _, child in sorted(node.children.items()):
            if child.children is not None:
                self.write_tree(child, 0 if is_root else node.cluster, False)
            elif child.size:
                self.seek_cluster(child.cluster)
                self.write_content(child)

    def write_content(self, node):
        if isinstance(node.source, bytes):
            self.file.write(node.source)
            return
        with open(node.source, "rb") as source:
            left = node.size
            while left:
                chunk = source.read(min(CHUNK, left))
                if not chunk:
                    raise ValueError(f"{node.source}: became shorter while it was read")
                if chunk.count(0) == len(chunk):
                    self.file.seek(len(chunk), os.SEEK_CUR)
                else:
                    self.file.write(chunk)
                left -= len(chunk)

    def write_mbr(self):
        mbr = bytearray(SECTOR)
        struct.pack_into("<I", mbr, 440, SERIAL)
        # Bootable, type 0xEF (EFI system partition); the CHS fields say "beyond what CHS can say".
        struct.pack_into("<B3sB3sII", mbr, 446, 0x80, b"\xfe\xff\xff", 0xEF, b"\xfe\xff\xff", PARTITION_START,
                         self.sectors)
        mbr[510:] = b"\x55\xaa"
        self.file.write(mbr)

    def write_boot_sectors(self):
        boot = bytearray(SECTOR)
        struct.pack_into("<3s8sHBHBHHBHHHII", boot, 0, b"\xeb\x58\x90", b"TASUKI  ", SECTOR, self.cluster_sectors,
                         RESERVED_SECTORS, FAT_COUNT, 0, 0, 0xF8, 0, 63, 255, PARTITION_START, self.sectors)
        struct.pack_into("<IHHIHH12xBBBI11s8s", boot, 36, self.fat_sectors, 0, 0, self.root.cluster, 1, 6, 0x80, 0,
                         0x29, SERIAL, b"TASUKI     ", b"FAT32   ")
        boot[510:] = b"\x55\xaa"
        info = bytearray(SECTOR)
        struct.pack_into("<I480xIII12xI", info, 0, 0x41615252, 0x61417272, self.clusters + 2 - len(self.fat),
                         len(self.fat), 0xAA550000)
        for copy in (0, 6):
            self.file.seek((PARTITION_START + copy) * SECTOR)
            self.file.write(boot + info)

    def write(self):
        self.file.truncate(self.total_sectors * SECTOR)
        self.allocate_tree(self.root, True)
        self.write_mbr()
        self.write_boot_sectors()
        table = struct.pack(f"<{len(self.fat)}I", *self.fat)
        for copy in range(FAT_COUNT):
            self.file.seek((PARTITION_START + RESERVED_SECTORS + copy * self.fat_sectors) * SECTOR)
            self.file.write(table)
        self.write_tree(self.root, 0, True)


def write_image(path, files, mib=None):
    """Writes the image at `path`. files: {path inside: path of a file here, or bytes}. mib: size; None: what it takes,
    64 at least. Raises ValueError or OSError with a text for the admin; the image then does not exist."""
    temporary = f"{path}.{os.getpid()}.part"
    try:
        with open(temporary, "wb") as file:
            Image(file, make_tree(files), mib).write()
        os.replace(temporary, path)
    except BaseException:
        if os.path.exists(temporary):
            os.unlink(temporary)
        raise


def main(arguments):
    mib, files, image = None, {}, None
    while arguments:
        argument = arguments.pop(0)
        if argument == "--mib" and arguments:
            mib = int(arguments.pop(0))
        elif image is None and not argument.startswith("-"):
            image = argument
        elif "=" in argument:
            destination, _, source = argument.partition("=")
            files[destination] = source
        else:
            sys.exit(__doc__)
    if image is None:
        sys.exit(__doc__)
    try:
        write_image(image, files, mib)
    except (ValueError, OSError) as error:
        sys.exit(f"mkesp.py: {image}: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
