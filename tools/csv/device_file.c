/* SPDX-License-Identifier: MIT */
/*
 * Files and block devices. Who writes holds two locks, which both belong to the open file and so end with it: flock(),
 * which other runs of this tool see, and a lock on all bytes by open file description (fcntl), which QEMU sees, since
 * it takes such locks on the images that it uses. A block device is also opened exclusively, so that one that is
 * mounted or part of something else is refused. Readers hold the same locks, shared.
 *
 * There is no FUA: such a write is a write and a fdatasync(). O_DIRECT is not used; what the page cache holds is as
 * good as the device for everybody on this machine, and the flush makes it durable.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "say.h"

#define LOCK_TICKS 40 /* of 50 ms */

struct file_device {
    struct device device;
    int fd;
    bool is_block;
};

/* A full file system below the file is an error of the disk: it does not mean that the volume is full. */
static enum status failed(struct file_device *f, const char *what, uint64_t offset)
{
    say_error("%s: %s at byte %" PRIu64 " failed: %s", f->device.name, what, offset, strerror(errno));
    return ERR_IO;
}

static enum status file_read(struct csv_disk *disk, uint64_t offset, void *bytes, uint64_t count)
{
    struct file_device *f = disk->context;
    for (uint64_t done = 0; done < count;) {
        ssize_t part = pread(f->fd, (char *)bytes + done, count - done, (off_t)(offset + done));
        if (part < 0 && errno == EINTR)
            continue;
        if (!part)
            errno = EIO; /* it was cut meanwhile */
        if (part <= 0)
            return failed(f, "reading", offset + done);
        done += (uint64_t)part;
    }
    return OK;
}

static enum status file_flush(struct csv_disk *disk)
{
    struct file_device *f = disk->context;
    return fdatasync(f->fd) ? failed(f, "flushing", 0) : OK;
}

static enum status file_write(struct csv_disk *disk, uint64_t offset, const void *bytes, uint64_t count, bool fua)
{
    struct file_device *f = disk->context;
    for (uint64_t done = 0; done < count;) {
        ssize_t part = pwrite(f->fd, (const char *)bytes + done, count - done, (off_t)(offset + done));
        if (part < 0 && errno == EINTR)
            continue;
        if (!part)
            errno = EIO;
        if (part <= 0)
            return failed(f, "writing", offset + done);
        done += (uint64_t)part;
    }
    return fua ? file_flush(disk) : OK;
}

static enum status file_discard(struct csv_disk *disk, uint64_t offset, uint64_t count)
{
    struct file_device *f = disk->context;
    uint64_t range[2] = { offset, count };
    /* A hint: a file system or device without holes does nothing. */
    if (f->is_block)
        (void)!ioctl(f->fd, BLKDISCARD, range);
    else
        (void)!fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)count);
    return OK;
}

/* As a hole, or as the device can; where neither can be, byte by byte. */
static enum status file_write_zeroes(struct csv_disk *disk, uint64_t offset, uint64_t count)
{
    struct file_device *f = disk->context;
    uint64_t range[2] = { offset, count };
    static const char zeros[65536];
    if (f->is_block ? !ioctl(f->fd, BLKZEROOUT, range)
                    : !fallocate(f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset, (off_t)count))
        return OK;
    for (uint64_t done = 0; done < count; done += sizeof(zeros)) {
        enum status status = file_write(disk, offset + done, zeros, MIN(sizeof(zeros), count - done), false);
        if (status)
            return status;
    }
    return OK;
}

static bool file_close(struct device *device)
{
    struct file_device *f = CONTAINER_OF(device, struct file_device, device);
    int status = close(f->fd);
    if (status)
        say_error("%s: closing failed: %s", device->name, strerror(errno));
    free(f);
    return !status;
}

/* ---- Locks ---- */

/* True if an open file of a process, /proc/PID/fd/FD, is this one and holds a lock. */
static bool holds(const char *pid, const char *fd, const struct stat *file)
{
    char path[300], line[200];
    struct stat other;
    bool found = false;
    snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, fd);
    if (stat(path, &other) || other.st_dev != file->st_dev || other.st_ino != file->st_ino)
        return false;
    snprintf(path, sizeof(path), "/proc/%.20s/fdinfo/%.20s", pid, fd);
    FILE *info = fopen(path, "re");
    while (info && fgets(line, sizeof(line), info))
        found |= !strncmp(line, "lock:", 5);
    if (info)
        fclose(info);
    return found;
}

/* Who holds a lock on the file: "NAME (process N)", or "" if nobody can be seen. */
static void find_holder(const struct stat *file, char *text, size_t bytes)
{
    DIR *all = opendir("/proc");
    struct dirent *process, *entry;
    text[0] = 0;
    while (all && !text[0] && (process = readdir(all))) {
        char path[300], command[64] = "a process";
        if (process->d_name[0] < '1' || process->d_name[0] > '9' || atol(process->d_name) == getpid())
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s/fd", process->d_name);
        DIR *open_files = opendir(path);
        while (open_files && !text[0] && (entry = readdir(open_files))) {
            if (!holds(process->d_name, entry->d_name, file))
                continue;
            snprintf(path, sizeof(path), "/proc/%.20s/comm", process->d_name);
            FILE *comm = fopen(path, "re");
            if (comm && fgets(command, sizeof(command), comm))
                command[strcspn(command, "\n")] = 0;
            if (comm)
                fclose(comm);
            snprintf(text, bytes, "%s (process %.20s)", command, process->d_name);
        }
        if (open_files)
            closedir(open_files);
    }
    if (all)
        closedir(all);
}

/* Both locks. A mount that was just ended may need a moment more to let go of them. */
static bool lock(struct file_device *f, const struct stat *file, bool alone)
{
    char holder[128];
    struct flock range = { .l_type = alone ? F_WRLCK : F_RDLCK, .l_whence = SEEK_SET };
    struct timespec tick = { .tv_nsec = 50000000 };
    for (unsigned ticks = 0; ticks < LOCK_TICKS; ticks++) {
        if (!flock(f->fd, (alone ? LOCK_EX : LOCK_SH) | LOCK_NB) && !fcntl(f->fd, F_OFD_SETLK, &range))
            return true;
        if (errno != EWOULDBLOCK && errno != EACCES)
            break;
        nanosleep(&tick, NULL);
    }
    if (errno != EWOULDBLOCK && errno != EACCES) {
        say_error("%s: cannot be locked: %s; its file system must know flock and fcntl locks", f->device.name,
                  strerror(errno));
        return false;
    }
    find_holder(file, holder, sizeof(holder));
    say_error("%s: locked by %s; wait for that one, or end it (a mount: fusermount3 -u DIRECTORY)", f->device.name,
              holder[0] ? holder : "another process, which this user may not see");
    return false;
}

/* ---- Opening ---- */

static bool measure(struct file_device *f, const struct stat *file)
{
    uint64_t bytes = (uint64_t)file->st_size;
    int sector = 512;
    if (S_ISBLK(file->st_mode)) {
        if (ioctl(f->fd, BLKGETSIZE64, &bytes) || ioctl(f->fd, BLKSSZGET, &sector)) {
            say_error("%s: the device does not tell its size: %s", f->device.name, strerror(errno));
            return false;
        }
        f->is_block = true;
    } else if (!S_ISREG(file->st_mode)) {
        say_error("%s: neither a file nor a block device; name one, or iscsi://HOST/TARGET/LUN", f->device.name);
        return false;
    }
    f->device.disk.sector_bytes = (uint32_t)sector;
    f->device.disk.bytes = bytes / (uint32_t)sector * (uint32_t)sector;
    return true;
}

/* Opens or makes the file. A block device is opened exclusively. */
static bool open_it(struct file_device *f, const struct device_options *options)
{
    struct stat file;
    const char *name = f->device.name;
    bool write = options->use == DEVICE_WRITE, is_new = false;
    int flags = (write ? O_RDWR : O_RDONLY) | O_CLOEXEC;
    bool there = !stat(name, &file);
    if (there && S_ISBLK(file.st_mode) && write)
        flags |= O_EXCL;
    f->fd = open(name, flags);
    if (f->fd < 0 && errno == ENOENT && options->create_bytes) {
        f->fd = open(name, flags | O_CREAT | O_EXCL, 0600);
        is_new = f->fd >= 0;
    }
    if (f->fd < 0) {
        say_error("%s: cannot be opened: %s%s", name, strerror(errno),
                  errno == ENOENT   ? "; `mkfs --size SIZE` makes a file"
                  : errno == EBUSY  ? ": it is mounted, or part of something else; unmount it first"
                  : errno == EACCES ? "; be root, or join its group (disk)" : "");
        return false;
    }
    if (is_new && ftruncate(f->fd, (off_t)options->create_bytes)) {
        say_error("%s: cannot be made %" PRIu64 " bytes long: %s", name, options->create_bytes, strerror(errno));
        unlink(name);
        close(f->fd);
        return false;
    }
    if (fstat(f->fd, &file) || !measure(f, &file) || !lock(f, &file, write)) {
        close(f->fd);
        return false;
    }
    return true;
}

struct device *device_open_file(const char *name, const struct device_options *options)
{
    struct file_device *f = calloc(1, sizeof(*f));
    if (!f || strlen(name) >= sizeof(f->device.name)) {
        say_error("%.100s: %s", name, f ? "the name is too long; use a shorter one" : say_status(ERR_NO_MEMORY));
        free(f);
        return NULL;
    }
    snprintf(f->device.name, sizeof(f->device.name), "%s", name);
    if (!open_it(f, options)) {
        free(f);
        return NULL;
    }
    f->device.close = file_close;
    f->device.disk.context = f;
    f->device.disk.read = file_read;
    f->device.disk.write = file_write;
    f->device.disk.flush = file_flush;
    f->device.disk.write_zeroes = file_write_zeroes;
    f->device.disk.discard = file_discard;
    return &f->device;
}
