/* SPDX-License-Identifier: MIT */
/*
 * Aborts and resets of a disk, and its move to another path (scsi_disk.h). One task request is under way at a time: another slow command waits for its
 * turn, which comes with its next ISCSI_EVENT_SLOW, or with the reset that ends all of them.
 */
#include <string.h>

#include "net/scsi/scsi_disk.h"

#define TASK_NS UINT64_C(10000000000)

static void done(struct iscsi_task *task);

static bool begin(struct scsi_disk *disk, enum iscsi_task_function function, struct iscsi_command *command, uint64_t now_ns)
{
    if (disk->task_busy)
        return false;
    disk->task = (struct iscsi_task){ .function = function, .command = command, .done = done, .owner = disk };
    memcpy(disk->task.lun, disk->lun, sizeof disk->lun);
    disk->task_busy = iscsi_task_submit(disk->session, &disk->task, now_ns) == OK;
    disk->task_deadline_ns = now_ns + TASK_NS;
    return disk->task_busy;
}

static void done(struct iscsi_task *task)
{
    struct scsi_disk *disk = task->owner;
    bool reset = task->function == ISCSI_LOGICAL_UNIT_RESET, first = disk->reset_before_proof;
    bool good = task->response == ISCSI_TASK_COMPLETE || (!reset && task->response == ISCSI_TASK_NO_TASK);

    disk->task_busy = disk->reset_before_proof = false;
    if (task->lost)
        return;
    if (first && good)
        scsi_probe_start(disk);
    else if (first)
        disk->ops->drop(disk->context, "what was sent by another portal may still land, and the target does not reset the unit; "
                                       "give all portals one portal group, or name one of them only");
    else if (!good && (reset || !begin(disk, ISCSI_LOGICAL_UNIT_RESET, NULL, disk->session->now_ns)))
        disk->ops->drop(disk->context, "the target does not answer a command, and aborts nothing");
    else if (good)
        disk->ops->news(disk->context, 0, reset ? "the target took too long for a command: the unit was reset, and it is sent again"
                                                : "the target took too long for a command: it was aborted, and is sent again");
}

void scsi_disk_slow(struct scsi_disk *disk, struct iscsi_command *command, uint64_t now_ns)
{
    if (command == &disk->probe.iscsi) /* proving has a patience of its own */
        return;
    if (command->place == ISCSI_COMMAND_WAITING)
        disk->ops->drop(disk->context, "the target takes no more commands");
    else
        (void)begin(disk, ISCSI_ABORT_TASK, command, now_ns);
}

void scsi_disk_prove(struct scsi_disk *disk, bool strays, uint64_t now_ns)
{
    if (!strays)
        scsi_probe_start(disk);
    else if (begin(disk, ISCSI_LOGICAL_UNIT_RESET, NULL, now_ns))
        disk->reset_before_proof = true;
    else
        disk->ops->drop(disk->context, "the unit could not be reset");
}

enum status scsi_disk_move(struct scsi_disk *disk, struct iscsi_session *to, uint64_t now_ns)
{
    struct iscsi_session *from = disk->session;

    disk->session = to; /* the proof begins within */
    enum status status = iscsi_session_take_over(to, from, now_ns);
    if (status != OK)
        disk->session = from;
    return status;
}
