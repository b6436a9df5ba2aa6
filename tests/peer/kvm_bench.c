/* SPDX-License-Identifier: MIT */
/*
 * Linux KVM measured on the same emulated machine as Tasuki, for the `kvm` column of `make bench`. A static program that is
 * /init of a small initramfs with KVM's modules in /modules. It plays the virtual machine monitor itself, as leanly as the
 * interface allows, and runs the loops that tests/guests/bench runs under Tasuki, in the same mode: 64-bit, paging on, an
 * identity map of 2 MiB pages. One line for each figure: "bench: NAME VALUE".
 *
 * A figure is what one more turn of a loop costs: RDTSC around N and around 2 N turns, the difference divided by N. So
 * entering the loop, and everything that is not the loop, drops out. The emulators' time stamp counters count instructions.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_BYTES (128ul << 20)
#define PAGES (MEMORY_BYTES / 4096)
#define CODE_AT 0x1000ul
#define TABLES_AT 0x2000ul      /* PML4, PDPT, four page directories */
#define TOUCH_AT (16ul << 20)   /* the pages that the memory loops write */
#define TOUCH_PAGES 8192u
#define TOUCH_PAGES_ALL ((unsigned)((MEMORY_BYTES - TOUCH_AT) / 4096))
#define DOORBELL_AT 0xd0000000ul
#define LOOP_TURNS 10000u
#define END_PORT 0xf4           /* an OUT to it ends a loop */

/* Page-table bits: present, writable, user, accessed, dirty, large page. */
#define PTE_TABLE 0x27ul
#define PTE_LARGE 0xe7ul

static int vm, vcpu;
static struct kvm_run *run;
static uint8_t *memory;
static struct kvm_userspace_memory_region region;

static uint64_t ticks(void)
{
    uint32_t low, high;

    __asm__ volatile("lfence; rdtsc" : "=a"(low), "=d"(high) : : "memory");
    return low | (uint64_t)high << 32;
}

static void report(const char *name, double value)
{
    printf("bench: %s %.1f\n", name, value);
}

static void finish(const char *failed)
{
    if (failed)
        perror(failed);
    printf("bench: end\n");
    fflush(stdout);
    tcdrain(1);
    reboot(RB_POWER_OFF);
    exit(1);
}

static int check(int result, const char *what)
{
    if (result < 0)
        finish(what);
    return result;
}

/* ---- The host ---- */

static uint64_t boot_ns, boot_ticks;

static uint64_t boottime_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Ticks from the kernel's start to its first process: its clock then, at the rate of the ticks since. */
static void report_boot(void)
{
    double rate = (double)(ticks() - boot_ticks) / (double)(boottime_ns() - boot_ns);

    report("host_user_space", (double)boot_ns * rate);
    report("tsc_mhz", rate * 1000);
}

static void load_modules(void)
{
    char name[80], path[100];
    FILE *order = fopen("/modules/order", "r");

    while (order && fscanf(order, "%79s", name) == 1) {
        snprintf(path, sizeof path, "/modules/%s.ko", name);
        int file = open(path, O_RDONLY);
        (void)syscall(SYS_finit_module, file, "", 0); /* the other vendor's refuses */
        close(file);
    }
}

static void host_setup(void)
{
    mkdir("/proc", 0755);
    mkdir("/dev", 0755);
    mount("none", "/proc", "proc", 0, NULL);
    mount("none", "/dev", "devtmpfs", 0, NULL);
    int console = open("/dev/console", O_RDWR);
    for (int i = 0; i < 3; i++)
        dup2(console, i);
    setvbuf(stdout, NULL, _IOLBF, 0);
    boot_ns = boottime_ns();
    boot_ticks = ticks();
    load_modules();
}

/* ---- The guest ---- */

static void vm_setup(void)
{
    int kvm = check(open("/dev/kvm", O_RDWR), "/dev/kvm");

    vm = check(ioctl(kvm, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
    check(ioctl(vm, KVM_CREATE_IRQCHIP, 0), "KVM_CREATE_IRQCHIP");
    memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        finish("guest memory");
    madvise(memory, MEMORY_BYTES, MADV_NOHUGEPAGE);
    region = (struct kvm_userspace_memory_region){ .memory_size = MEMORY_BYTES, .userspace_addr = (uintptr_t)memory };
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
    vcpu = check(ioctl(vm, KVM_CREATE_VCPU, 0), "KVM_CREATE_VCPU");
    run = mmap(NULL, (size_t)ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0), PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
    struct kvm_cpuid2 *cpuid = calloc(1, sizeof *cpuid + 128 * sizeof cpuid->entries[0]);
    cpuid->nent = 128;
    check(ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid), "KVM_GET_SUPPORTED_CPUID");
    check(ioctl(vcpu, KVM_SET_CPUID2, cpuid), "KVM_SET_CPUID2");
    free(cpuid);

    /* As QEMU has a virtio doorbell: an eventfd for writes of any length. */
    struct kvm_ioeventfd doorbell = { .addr = DOORBELL_AT, .fd = eventfd(0, 0) };
    check(ioctl(vm, KVM_IOEVENTFD, &doorbell), "KVM_IOEVENTFD");

    uint64_t *table = (uint64_t *)(memory + TABLES_AT);
    table[0] = (TABLES_AT + 0x1000) | PTE_TABLE;
    for (unsigned i = 0; i < 4; i++)
        table[512 + i] = (TABLES_AT + 0x2000 + i * 0x1000) | PTE_TABLE;
    for (unsigned i = 0; i < 4 * 512; i++)
        table[1024 + i] = ((uint64_t)i << 21) | PTE_LARGE;
}

static void registers_set(uint64_t turns, uint64_t stride)
{
    struct kvm_sregs s;
    struct kvm_segment code = { .limit = 0xffffffff, .selector = 8, .present = 1, .type = 11, .s = 1, .l = 1, .g = 1 };
    struct kvm_segment data = { .limit = 0xffffffff, .selector = 16, .present = 1, .type = 3, .s = 1, .db = 1, .g = 1 };

    check(ioctl(vcpu, KVM_GET_SREGS, &s), "KVM_GET_SREGS");
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.cr0 = 0x80050033;
    s.cr3 = TABLES_AT;
    s.cr4 = 0x620;
    s.efer = 0x500;
    check(ioctl(vcpu, KVM_SET_SREGS, &s), "KVM_SET_SREGS");
    struct kvm_regs r = { .rip = CODE_AT, .rflags = 2, .rsi = turns, .rdi = TOUCH_AT, .rbx = DOORBELL_AT, .rbp = stride };
    check(ioctl(vcpu, KVM_SET_REGS, &r), "KVM_SET_REGS");
}

/* Runs `turns` turns of the loop that is loaded; the instructions that took. */
static uint64_t turns_cost(uint64_t turns, uint64_t stride)
{
    registers_set(turns, stride);
    uint64_t start = ticks();
    do
        check(ioctl(vcpu, KVM_RUN, 0), "KVM_RUN");
    while (run->exit_reason == KVM_EXIT_IO && run->io.port != END_PORT);
    uint64_t end = ticks();
    if (run->exit_reason != KVM_EXIT_IO)
        printf("unexpected exit %u\n", run->exit_reason);
    return end - start;
}

/*
 * A loop: what it does, then DEC ESI; JNZ to its start; then OUT to END_PORT, where this program takes over (HLT
 * does not come here with the interrupt controllers in the kernel).
 */
static void loop_load(const uint8_t *body, size_t count)
{
    uint8_t *at = memory + CODE_AT;

    memcpy(at, body, count);
    memcpy(at + count, (uint8_t[]){ 0xff, 0xce, 0x75, (uint8_t)-(int)(count + 4), 0xe6, END_PORT }, 6);
}

static void measure_loop(const char *name, const uint8_t *body, size_t count)
{
    loop_load(body, count);
    turns_cost(100, 0);
    uint64_t once = turns_cost(LOOP_TURNS, 0), twice = turns_cost(2 * LOOP_TURNS, 0);
    report(name, (double)(twice - once) / LOOP_TURNS);
}

static void measure_exits(void)
{
    static const uint8_t empty[] = { 0x90 };
    static const uint8_t cpuid[] = { 0x31, 0xc0, 0x31, 0xc9, 0x0f, 0xa2 };               /* leaf 0 */
    static const uint8_t vmmcall[] = { 0xb8, 1, 0, 0, 0, 0x0f, 0x01, 0xd9 };             /* one that does nothing */
    static const uint8_t vmcall[] = { 0xb8, 1, 0, 0, 0, 0x0f, 0x01, 0xc1 };
    static const uint8_t rdmsr[] = { 0xb9, 0xfe, 0, 0, 0, 0x0f, 0x32 };                  /* MTRRCAP */
    static const uint8_t out_user[] = { 0x66, 0xba, 0xff, 0x03, 0xee };                  /* COM1's scratch register */
    static const uint8_t out_kernel[] = { 0xe6, 0x21 };                                  /* the 8259's mask */
    static const uint8_t doorbell[] = { 0x66, 0x89, 0x03 };                              /* MOV [RBX], AX */
    uint32_t eax = 0, ebx, ecx, edx;

    __asm__ volatile("cpuid" : "+a"(eax), "=b"(ebx), "=c"(ecx), "=d"(edx));
    measure_loop("loop", empty, sizeof empty);
    measure_loop("cpuid_exit", cpuid, sizeof cpuid);
    measure_loop("hypercall", ebx == 0x756e6547 ? vmcall : vmmcall, sizeof vmcall); /* "Genu" */
    measure_loop("rdmsr", rdmsr, sizeof rdmsr);
    measure_loop("out_uart", out_user, sizeof out_user);
    measure_loop("out_pic", out_kernel, sizeof out_kernel);
    measure_loop("doorbell", doorbell, sizeof doorbell);
}

static uint64_t dirty_collect(uint64_t *bitmap, unsigned *dirty)
{
    struct kvm_dirty_log log = { .dirty_bitmap = bitmap };
    uint64_t start = ticks();

    check(ioctl(vm, KVM_GET_DIRTY_LOG, &log), "KVM_GET_DIRTY_LOG");
    uint64_t cost = ticks() - start;
    *dirty = 0;
    for (unsigned i = 0; i < PAGES / 64; i++)
        *dirty += (unsigned)__builtin_popcountll(bitmap[i]);
    return cost;
}

/* One pass over pages, `stride` bytes apart; instructions for a page. */
static double touch(unsigned pages, uint64_t stride)
{
    return (double)turns_cost(pages, stride) / pages;
}

static void measure_memory(void)
{
    static const uint8_t body[] = { 0xc6, 0x07, 0x05, 0x48, 0x01, 0xef }; /* MOV BYTE [RDI], 5; ADD RDI, RBP */
    static uint64_t bitmap[PAGES / 64];
    unsigned dirty;

    loop_load(body, sizeof body);
    report("first_touch", touch(TOUCH_PAGES, 4096)); /* pages that the host has not seen either */
    touch(TOUCH_PAGES_ALL, 4096);

    region.flags = KVM_MEM_LOG_DIRTY_PAGES;
    uint64_t start = ticks();
    check(ioctl(vm, KVM_SET_USER_MEMORY_REGION, &region), "the dirty log");
    report("dirty_log_start", (double)(ticks() - start));
    dirty_collect(bitmap, &dirty);
    touch(TOUCH_PAGES_ALL, 4096); /* now all pages are mapped singly */
    dirty_collect(bitmap, &dirty);
    report("dirty_first_write", touch(TOUCH_PAGES_ALL, 4096));
    uint64_t cost = dirty_collect(bitmap, &dirty);
    report("harvest_dense_pages", dirty);
    report("harvest_dense", (double)cost / dirty);
    touch(TOUCH_PAGES_ALL / 512, 512 * 4096);
    cost = dirty_collect(bitmap, &dirty);
    report("harvest_sparse_pages", dirty);
    report("harvest_sparse", (double)cost / dirty);
    cost = dirty_collect(bitmap, &dirty);
    report("harvest_none_total", (double)cost);
}

int main(void)
{
    host_setup();
    vm_setup();
    measure_exits();
    measure_memory();
    report_boot();
    finish(NULL);
}
