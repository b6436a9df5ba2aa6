/* SPDX-License-Identifier: MIT */
/*
 * A plugin of QEMU's (TCG) for the storage part of `make bench`: it counts the instructions of each CPU of the
 * emulated machine, those of the hypervisor and those of its guest apart, and when a guest executes a mark it writes
 * the counts down.
 *
 * Whose an instruction is: a CPU is in its guest from a VMRUN on (0F 01 D8) until it comes to the instruction behind
 * that VMRUN, which is where each #VMEXIT leads (AMD64 APM volume 2, 15.5 and 15.6). That instruction is known by its
 * place in the machine's memory, so a guest that has code at the same virtual address is no match.
 *
 * A mark is a NOP of eight bytes, 0F 1F 84 00, with a displacement of 7A50H in its upper half and the mark's number in
 * its lower. To the CPU it is nothing: the program that has it runs anywhere.
 *
 * A string instruction with a REP prefix is one instruction, as to a CPU's own counters, though QEMU makes a block of
 * each of its turns.
 *
 * What is counted are blocks as QEMU translates them, each with all of its instructions when it is begun: one that an
 * exception or an exit leaves early counts whole. Code that only a guest runs is not looked at closer.
 *
 * Arguments: out=FILE gets a line for each mark: number, nanoseconds, and for each CPU hypervisor's and guest's
 * instructions. profile=FILE: FILE.NUMBER gets at each mark a line for each block of the hypervisor's that ran since
 * the one before: address, instructions, how often.
 *
 * The interface is QEMU's TCG plugin interface, version 1, as its manual describes it ("QEMU TCG Plugins"); Debian has
 * no package with its header, so what is used of it is declared here.
 */
#include <inttypes.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct qemu_plugin_tb;
struct qemu_plugin_insn;
struct qemu_info;
typedef void vcpu_fn(unsigned vcpu, void *data);

#define EXPORT __attribute__((visibility("default")))
#define NO_REGISTERS 0

extern void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*fn)(uint64_t id, struct qemu_plugin_tb *tb));
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, vcpu_fn *fn, int flags, void *data);
extern void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn, vcpu_fn *fn, int flags, void *data);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
extern uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t i);
extern uint64_t qemu_plugin_insn_vaddr(const struct qemu_plugin_insn *insn);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
extern size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
extern void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);

extern int qemu_plugin_version;
extern int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv);
EXPORT int qemu_plugin_version = 1;

#define CPUS 16u
#define EXITS 64u /* VMRUN instructions in the machine's memory */
#define MARK 0x7a500000u

/* Each CPU writes its own; a mark's reader may miss the last few of another CPU. */
static struct cpu {
    uint64_t hypervisor, guest;
    uint64_t repeats; /* address of the REP instruction that it is in; 0: none */
    bool in_guest;
    uint8_t pad[64 - 25];
} cpus[CPUS];

struct block {
    uint64_t address;
    uint64_t count[CPUS];
    uint32_t instructions;
    bool returns;  /* it begins where a #VMEXIT leads */
    bool repeat;   /* it begins with a REP instruction, and so has no other */
    uint64_t last; /* address of the REP instruction that it ends with; 0: none */
    struct block *next;
};

static struct block *blocks; /* for the profile */
static const void *exits[EXITS];
static unsigned exit_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* the CPUs' threads translate side by side */
static FILE *out;
static const char *profile;

static void run_block(unsigned vcpu, void *data)
{
    struct block *block = data;
    struct cpu *cpu = &cpus[vcpu % CPUS];

    if (block->returns)
        cpu->in_guest = false;
    if (block->repeat && cpu->repeats == block->address)
        return;
    cpu->repeats = block->last;
    if (cpu->in_guest) {
        cpu->guest += block->instructions;
        return;
    }
    cpu->hypervisor += block->instructions;
    if (profile)
        block->count[vcpu % CPUS]++;
}

static void run_vmrun(unsigned vcpu, void *data)
{
    (void)data;
    cpus[vcpu % CPUS].in_guest = true;
}

static void write_profile(unsigned mark)
{
    char name[256];
    snprintf(name, sizeof name, "%s.%u", profile, mark);
    FILE *file = fopen(name, "w");

    pthread_mutex_lock(&lock);
    for (struct block *block = blocks; file && block; block = block->next) {
        uint64_t count = 0;
        for (unsigned i = 0; i < CPUS; i++) {
            count += block->count[i];
            block->count[i] = 0;
        }
        if (count)
            fprintf(file, "%" PRIx64 " %u %" PRIu64 "\n", block->address, block->instructions, count);
    }
    pthread_mutex_unlock(&lock);
    if (file)
        fclose(file);
}

static void run_mark(unsigned vcpu, void *data)
{
    struct timespec now;
    (void)vcpu;

    clock_gettime(CLOCK_MONOTONIC, &now);
    fprintf(out, "%u %" PRIu64, (unsigned)(uintptr_t)data, (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec);
    for (unsigned i = 0; i < CPUS; i++)
        if (cpus[i].hypervisor)
            fprintf(out, " %" PRIu64 " %" PRIu64, cpus[i].hypervisor, cpus[i].guest);
    fprintf(out, "\n");
    fflush(out);
    if (profile)
        write_profile((unsigned)(uintptr_t)data);
}

static bool is_exit(const void *place)
{
    for (unsigned i = 0; i < exit_count; i++)
        if (exits[i] == place)
            return true;
    return false;
}

/* MOVS, CMPS, STOS, LODS or SCAS (AMD64 APM volume 3) behind F2 or F3, with other prefixes or without. */
static bool is_repeated(const struct qemu_plugin_insn *insn)
{
    const uint8_t *bytes = qemu_plugin_insn_data(insn);
    size_t size = qemu_plugin_insn_size(insn), i = 0;
    bool rep = false;

    for (; i + 1 < size && (bytes[i] == 0xf2 || bytes[i] == 0xf3 || bytes[i] == 0x66 || bytes[i] == 0x67 ||
                            (bytes[i] & 0xf0) == 0x40); i++)
        rep |= bytes[i] == 0xf2 || bytes[i] == 0xf3;
    return rep && i + 1 == size && bytes[i] >= 0xa4 && bytes[i] <= 0xaf && bytes[i] != 0xa8 && bytes[i] != 0xa9;
}

static void translate(uint64_t id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    struct block *block = calloc(1, sizeof *block);
    (void)id;

    if (!block)
        abort();
    block->address = qemu_plugin_tb_vaddr(tb);
    block->instructions = (uint32_t)count;
    struct qemu_plugin_insn *last = qemu_plugin_tb_get_insn(tb, count - 1);
    block->repeat = is_repeated(qemu_plugin_tb_get_insn(tb, 0));
    block->last = is_repeated(last) ? qemu_plugin_insn_vaddr(last) : 0;
    pthread_mutex_lock(&lock);
    block->returns = is_exit(qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0)));
    block->next = blocks;
    blocks = block;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, run_block, NO_REGISTERS, block);
    for (size_t i = 0; i < count; i++) {
        struct qemu_plugin_insn *insn = qemu_plugin_tb_get_insn(tb, i);
        const uint8_t *bytes = qemu_plugin_insn_data(insn);
        size_t size = qemu_plugin_insn_size(insn);
        uint32_t mark;
        if (size == 3 && !memcmp(bytes, "\x0f\x01\xd8", 3)) {
            const uint8_t *behind = (const uint8_t *)qemu_plugin_insn_haddr(insn) + 3;
            if (!is_exit(behind) && exit_count < EXITS)
                exits[exit_count++] = behind;
            qemu_plugin_register_vcpu_insn_exec_cb(insn, run_vmrun, NO_REGISTERS, NULL);
        } else if (size == 8 && !memcmp(bytes, "\x0f\x1f\x84\x00", 4)) {
            memcpy(&mark, bytes + 4, 4);
            if ((mark & 0xffff0000u) == MARK)
                qemu_plugin_register_vcpu_insn_exec_cb(insn, run_mark, NO_REGISTERS,
                                                       (void *)(uintptr_t)(mark & 0xffff));
        }
    }
    pthread_mutex_unlock(&lock);
}

EXPORT int qemu_plugin_install(uint64_t id, const struct qemu_info *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++) {
        if (!strncmp(argv[i], "out=", 4))
            out = fopen(argv[i] + 4, "w");
        else if (!strncmp(argv[i], "profile=", 8))
            profile = strdup(argv[i] + 8);
    }
    if (!out)
        return 1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    return 0;
}
