/* SPDX-License-Identifier: MIT */
/* The shell's commands for volumes and what is on them: what they do, and whom they name when they fail. */
#include "volume_fixture.h"

#include "shell/tables.h"
#include "vm/vm_directory.h"
#include "volume/volume_private.h"

#define SIZE (64 * MIB)

/* What the node's VMs have to look at again. */
static char touched[256];

void vm_directory_touched(const char *path)
{
    snprintf(touched + strlen(touched), sizeof touched - strlen(touched), "%s|", path);
}

void vm_directories_watch(void)
{
}

bool vm_directory_is_in_use(const char *path, char *name)
{
    (void)path, (void)name;
    return false;
}

static char said[65536];
static size_t said_bytes;
static struct shell shell;

static void keep(void *context, const char *bytes, size_t count)
{
    (void)context;
    assert_true(said_bytes + count < sizeof said);
    memcpy(said + said_bytes, bytes, count);
    said_bytes += count;
    said[said_bytes] = '\0';
}

static bool run_line(const char *line)
{
    static const struct sink sink = { .write = keep };
    static const struct command *const tables[] = { volume_commands, NULL };

    shell_init(&shell, &sink, tables, "node", NULL);
    said_bytes = 0;
    said[0] = touched[0] = '\0';
    return shell_run(&shell, line) == SHELL_OK;
}

#define works(line)                                                                                                 \
    do {                                                                                                            \
        if (!run_line(line))                                                                                        \
            fail_msg("%s: %s", line, said);                                                                         \
    } while (0)

/* The command fails, and its error begins with the path `object` and has these words. */
static void fails(const char *line, const char *object, const char *words)
{
    char begin[128];

    snprintf(begin, sizeof begin, "error: " ROOT "%s: ", object);
    if (run_line(line) || touched[0] || strncmp(said, begin, strlen(begin)) || !strstr(said, words))
        fail_msg("%s: expected %s...%s, not %s", line, begin, words, said);
}

static void what_fails_is_named(void **state)
{
    struct guest guest;
    (void)state;

    set_up(SIZE);
    struct volume_file *file = make_file("disk", MIB, &guest), *closed = make_file("file", MIB, &guest);
    volume_file_close(closed);
    works("mkdir " ROOT "d");
    works("cp " ROOT "file " ROOT "d/copy");
    fails("cp " ROOT "file " ROOT "d/copy", "d/copy", "already");
    fails("cp " ROOT "none " ROOT "d/new", "none", "no such file");
    fails("cp " ROOT "file " ROOT "none/new", "none/new", "no such file");
    fails("cp " ROOT "disk " ROOT "d/new", "disk", "a VM has it");
    fails("cp " ROOT "d " ROOT "e", "d", "cannot be done");
    fails("mv " ROOT "none " ROOT "d/new", "none", "no such file");
    fails("mv " ROOT "file " ROOT "none/new", "none/new", "no such file");
    fails("mv " ROOT "file " ROOT "disk", "disk", "a VM has it");
    fails("mv " ROOT "file " ROOT "d", "d", "cannot be done");
    fails("mv " ROOT "d " ROOT "d/e", "d", "cannot be done");
    fails("mv " ROOT " " ROOT "e", "", "cannot be done");
    fails("rm " ROOT "disk", "disk", "a VM has it");
    fails("rm " ROOT "d", "d", "not empty");
    fails("mkdir " ROOT "d", "d", "already");
    fails("mkdir " ROOT "none/d", "none/d", "no such file");
    fails("ls " ROOT "none", "none", "no such file");
    fails("stat " ROOT "none", "none", "no such file");
    works("mv " ROOT "disk " ROOT "d/disk"); /* a name is not the file */
    works("mv " ROOT "d/copy " ROOT "file");
    assert_string_equal(touched, ROOT "d/copy|" ROOT "file|");
    works("rm " ROOT "file");
    volume_file_close(file);
    wait_until(!files_open());
    works("rm " ROOT "d/disk");
    works("rm " ROOT "d");
    check_volume();
    tear_down();
}

/* More entries than are fetched at once. */
static void all_entries_are_listed(void **state)
{
    char line[80], name[32];
    (void)state;

    set_up(SIZE);
    for (unsigned i = 0; i < 70; i++) {
        snprintf(line, sizeof line, "mkdir " ROOT "directory%u", i);
        works(line);
    }
    for (unsigned json = 0; json < 2; json++) {
        works(json ? "ls " ROOT " --json" : "ls " ROOT);
        for (unsigned i = 0; i < 70; i++) {
            snprintf(name, sizeof name, "directory%u%s", i, json ? "\"" : " ");
            assert_non_null(strstr(said, name));
        }
    }
    works("csv scrub Volume1");
    works("csv show Volume1");
    works("df");
    assert_false(run_line("csv show Volume2"));
    assert_non_null(strstr(said, "Volume2"));
    tear_down();
}

/* One of them, or many, whose inodes are damaged: the others are listed, and those are named, with what helps. */
static void a_damaged_entry_hides_no_other(void **state)
{
    char line[80], words[48];
    unsigned long inode[70];
    (void)state;

    set_up(SIZE);
    for (unsigned i = 0; i < 70; i++) {
        snprintf(line, sizeof line, "mkdir " ROOT "directory%u", i);
        works(line);
        snprintf(line, sizeof line, "stat " ROOT "directory%u --json", i);
        works(line);
        const char *number = strstr(said, "\"inode\": ");
        assert_non_null(number);
        inode[i] = strtoul(number + 9, NULL, 10);
    }
    for (unsigned damaged = 1; damaged <= 40; damaged += 39) {
        stop_volume();
        for (unsigned i = 0; i < damaged; i++)
            fake_disk_poke(san.disk, inode[i] * CSV_BLOCK_BYTES + 100, "damaged", 7);
        start_volume();
        assert_false(run_line("ls " ROOT));
        assert_non_null(strstr(said, "\nerror: " ROOT ": "));
        snprintf(words, sizeof words, ": %u of its entries cannot be read: ", damaged);
        assert_non_null(strstr(said, words));
        assert_non_null(strstr(said, "fsck --repair"));
        snprintf(words, sizeof words, "directory0 (inode %lu)", inode[0]);
        assert_true(damaged > 1 || strstr(said, words));
        assert_true((damaged > 1) == !!strstr(said, " more: block "));
        for (unsigned i = 0; i < 70; i++) {
            snprintf(words, sizeof words, "directory%u ", i);
            assert_non_null(strstr(said, words));
        }
        assert_false(run_line("ls " ROOT " --json"));
        assert_non_null(strstr(said, "\"error\""));
        assert_non_null(strstr(said, "\"held_bytes\": null, \"modified\": null"));
        snprintf(line, sizeof line, "ls " ROOT "directory%u", damaged);
        works(line);
        assert_false(run_line("ls " ROOT "directory0"));
        assert_non_null(strstr(said, "fsck --repair"));
    }
    tear_down();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fails_is_named),
        cmocka_unit_test(all_entries_are_listed),
        cmocka_unit_test(a_damaged_entry_hides_no_other),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
