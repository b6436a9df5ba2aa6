/* SPDX-License-Identifier: MIT */
/*
 * Carries out every case of cases.h natively and compares what came of it, as fault_print writes it, with the line of
 * its module, which is what the instruction emulator did (tests/system/test_faults.py). It tells
 *     differs INDEX OUTCOME   where they are not alike
 *     excused INDEX           the same, where the module's line begins with ~
 *     skipped INDEX           where the CPU cannot do the case
 * Without a module everything differs. `first=N` on the command line leaves out the cases before N.
 *
 * Cases of 64-bit and compatibility mode run under the page tables of the small guests' library, with a page table of
 * this program for the first 2 MiB at FAULT_CODE, and everything else for the supervisor only. PAE and two-level paging
 * have tables of their own with the same layout.
 */
#include "cases.h"
#include "guest.h"

#define LOW 0x6000u
#define LOW_SEGMENT 0x600u
#define LOW_IDT 0x5000u
#define LEGACY_TSS 0xd0
#define TSS64 0x48
#define REGION_INDEX(linear) (((linear) - FAULT_CODE) >> 12)
#define EFER 0xc0000080u
#define EFER_NXE BIT(11)
#define MSR_FS_BASE 0xc0000100u
#define CR0_AM BIT(18)
#define CR0_WP BIT(16)
#define CR4_PSE BIT(4)
#define CR4_PAE BIT(5)
#define CR4_OSFXSR BIT(9)
#define CR4_SMEP BIT(20)
#define CR4_SMAP BIT(21)
#define CR4_PKE BIT(22)

enum { KIND_PROTECTED, KIND_V86, KIND_REAL };

struct entry {
    uint64_t gpr[16], rip, cs, rflags, rsp, ss, kind, cr0, cr3, cr4;
    uint16_t ds, es, fs, gs;
} faults_entry;
struct taken {
    uint64_t gpr[16], vector, error, rip, cs, rflags, rsp, ss;
    uint16_t ds, es, fs, gs;
} faults_taken;
uint32_t faults_legacy_esp;

void faults_enter(void);
void faults_enter_legacy(void);
extern uint8_t faults_vectors[], faults_legacy_vectors[], faults_low_vectors[], faults_stack_end[], faults_ist_end[];
extern uint8_t faults_low[], faults_low_end[], faults_low_entry[], faults_low_taken[];
extern uint64_t guest_gdt[], guest_pd[];

/* lgdt and lidt want 10 bytes in 64-bit mode, and take 6 in legacy modes. */
struct __attribute__((packed)) table_pointer { uint16_t limit; uint64_t base; };
static uint64_t gdt[0xe0 / 8];
static uint64_t idt[32][2], legacy_idt[32];
struct table_pointer faults_legacy_idt_pointer, faults_real_idt_pointer;
static uint32_t legacy_tss[26];

static uint8_t pages[FAULT_PAGES][4096] __attribute__((aligned(4096)));
static uint64_t region[512] __attribute__((aligned(4096)));
static uint64_t pae_top[4] __attribute__((aligned(4096)));
static uint32_t directory32[1024] __attribute__((aligned(4096))), region32[1024] __attribute__((aligned(4096)));
static const uint64_t page_linear[FAULT_PAGES] = { FAULT_CODE,          FAULT_CODE + 0x1000, FAULT_DATA,
                                                   FAULT_DATA + 0x1000, FAULT_STACK,         FAULT_STACK + 0x1000 };
static bool lax;          /* `cpu=lax` on the command line */
static unsigned features; /* of enum FAULT_WP... */

/* ---- Set-up ---- */

static void set_tables(void)
{
    for (unsigned i = 0; i < 2048; i++)
        guest_pd[i] &= ~FPTE_U;
    guest_pd[512] = (uint64_t)region | 7;
    for (unsigned i = 0; i < 1024; i++)
        directory32[i] = i << 22 | 0x83;
    directory32[FAULT_CODE >> 22] = (uint32_t)(uint64_t)region32 | 7;
    write_cr3(read_cr3());
}

static void set_descriptors(void)
{
    uint64_t low, base;
    memcpy(gdt, guest_gdt, 0x60);
    for (unsigned i = 0; i < LOADABLE_COUNT; i++)
        gdt[FAULT_LOADABLE_SELECTOR(i) / 8] = fault_descriptors[i];
    /* The boot CPU's TSS gets this program's stack for exceptions. */
    low = guest_gdt[TSS64 / 8];
    base = (low >> 16 & 0xffffff) | (low >> 56) << 24 | guest_gdt[TSS64 / 8 + 1] << 32;
    uint64_t ist = (uint64_t)faults_ist_end;
    memcpy((void *)(base + 0x24), &ist, sizeof(ist));
    base = (uint64_t)legacy_tss;
    gdt[LEGACY_TSS / 8] = (sizeof(legacy_tss) - 1) | (base & 0xffffff) << 16 | 0x89ull << 40 | (base >> 24) << 56;
    legacy_tss[1] = (uint32_t)(uint64_t)faults_stack_end;
    legacy_tss[2] = 0x10;
    legacy_tss[25] = sizeof(legacy_tss) << 16;
    for (unsigned i = 0; i < 32; i++) {
        uint64_t at = (uint64_t)faults_vectors + 16 * i;
        idt[i][0] = (at & 0xffff) | 0x08 << 16 | 0xee01ull << 32 | (at >> 16 & 0xffff) << 48;
        idt[i][1] = at >> 32;
        at = (uint64_t)faults_legacy_vectors + 16 * i;
        legacy_idt[i] = (at & 0xffff) | 0x18 << 16 | 0xee00ull << 32 | (at >> 16 & 0xffff) << 48;
        ((uint32_t *)(uint64_t)LOW_IDT)[i] = LOW_SEGMENT << 16 | (uint32_t)(faults_low_vectors - faults_low + 8 * i);
    }
    memcpy((void *)(uint64_t)LOW, faults_low, (size_t)(faults_low_end - faults_low));
    faults_legacy_idt_pointer = (struct table_pointer){ sizeof(legacy_idt) - 1, (uint64_t)legacy_idt };
    faults_real_idt_pointer = (struct table_pointer){ 32 * 4 - 1, LOW_IDT };
}

static void load_tables(uint16_t gdt_limit)
{
    const struct table_pointer g = { gdt_limit, (uint64_t)gdt }, i = { sizeof(idt) - 1, (uint64_t)idt };
    __asm__ volatile("lgdt %0; lidt %1; lldt %w2" : : "m"(g), "m"(i), "r"(0));
}

static void find_features(void)
{
    struct guest_cpuid leaf = cpuid(7, 0);
    features = FAULT_WP | FAULT_AM | (leaf.ebx & BIT(7) ? FAULT_SMEP : 0u) | (leaf.ebx & BIT(20) ? FAULT_SMAP : 0u) |
               (leaf.ecx & BIT(3) ? FAULT_PKE : 0u);
}

/* ---- One case ---- */

static bool is_real_like(const struct fault_case *c) { return c->mode == FAULT_REAL || c->mode == FAULT_V86; }

/* Where a linear address of a window or of the code can be reached from here; a window is in one piece. */
static uint8_t *reach(const struct fault_case *c, uint64_t linear)
{
    if (is_real_like(c))
        return (uint8_t *)linear;
    for (unsigned i = 0; i < FAULT_PAGES; i++)
        if (linear - page_linear[i] < 4096)
            return pages[i] + (linear - page_linear[i]);
    return NULL;
}

static const uint8_t *memory_at(void *context, uint64_t linear)
{
    return reach(context, linear);
}

/* Makes the windows what they are before a case. */
static void fill(const struct fault_case *c)
{
    unsigned windows;
    const struct fault_window *window = fault_windows(c->mode, &windows);
    for (unsigned i = 0; i < windows; i++) {
        uint8_t *bytes = reach(c, window[i].linear);
        for (uint32_t at = 0; at < window[i].bytes; at++)
            bytes[at] = fault_pattern(window[i].linear + at);
    }
}

/* A branch's target, where the case has one in memory. */
static void put_target(const struct fault_case *c)
{
    for (unsigned i = 0; i < 8 && c->target_at; i++)
        *reach(c, c->target_at + i) = (uint8_t)(FAULT_TARGET(c) >> 8 * i);
}

/* Puts the code in, or INT3 in its place. */
static void put_code(const struct fault_case *c, bool in)
{
    bool flat = c->seg[FAULT_CS].base == 0;
    uint64_t offset = c->rip - (flat ? FAULT_CODE : 0), base = is_real_like(c) ? REAL_CODE : FAULT_CODE;
    uint64_t room = is_real_like(c) ? 0x10000 : FAULT_REGION_BYTES;
    for (unsigned i = 0; i < c->code_bytes && offset + i < room; i++)
        *reach(c, base + offset + i) = in ? c->code[i] : 0xcc;
}

static void map_pages(const struct fault_case *c)
{
    /* Each time, for QEMU 7.2 sets the accessed bit, which is reserved here. */
    for (unsigned i = 0; i < 4; i++)
        pae_top[i] = (uint64_t)(guest_pd + 512 * i) | 1;
    for (unsigned i = 0; i < FAULT_PAGES; i++) {
        uint64_t at = (uint64_t)pages[i];
        region[REGION_INDEX(page_linear[i])] = c->pte[i] ? at | c->pte[i] : 0;
        region32[REGION_INDEX(page_linear[i])] = c->pte[i] ? (uint32_t)(at | (c->pte[i] & 0xfff)) : 0;
    }
    write_cr3(read_cr3());
}

static void write_pkru(uint32_t value)
{
    __asm__ volatile(".byte 0x0f, 0x01, 0xef" : : "a"(value), "c"(0), "d"(0));
}

static void load_segments(const struct fault_case *c)
{
    for (unsigned i = 0; i < FAULT_SEGMENTS; i++)
        gdt[FAULT_SELECTOR(i) / 8] = c->seg[i].attributes ? fault_descriptor(&c->seg[i]) : 0;
    if (is_real_like(c))
        return; /* paragraphs, loaded on the way in */
    __asm__ volatile("movw %w0, %%ds; movw %w1, %%es; movw %w2, %%fs; movw %w3, %%gs"
                     :
                     : "r"(fault_selector(c, FAULT_DS)), "r"(fault_selector(c, FAULT_ES)),
                       "r"(fault_selector(c, FAULT_FS)), "r"(fault_selector(c, FAULT_GS)));
    if (c->mode == FAULT_LONG)
        wrmsr(MSR_FS_BASE, c->seg[FAULT_FS].base);
}

static void prepare_entry(const struct fault_case *c)
{
    struct entry *e = &faults_entry;
    memcpy(e->gpr, c->gpr, sizeof(e->gpr));
    e->rip = c->rip;
    e->cs = fault_selector(c, FAULT_CS);
    e->rflags = c->rflags | (c->mode == FAULT_V86 ? BIT(17) : 0);
    e->rsp = c->gpr[FAULT_RSP];
    e->ss = fault_selector(c, FAULT_SS);
    e->ds = fault_selector(c, FAULT_DS);
    e->es = fault_selector(c, FAULT_ES);
    e->fs = fault_selector(c, FAULT_FS);
    e->gs = fault_selector(c, FAULT_GS);
    e->kind = c->mode == FAULT_REAL ? KIND_REAL : c->mode == FAULT_V86 ? KIND_V86 : KIND_PROTECTED;
    bool paged = c->mode == FAULT_PAE || c->mode == FAULT_2LEVEL;
    e->cr0 = 0x33 | (paged ? BIT(31) : 0) | (c->switches & FAULT_WP ? CR0_WP : 0) |
             (c->switches & FAULT_AM ? CR0_AM : 0);
    e->cr3 = c->mode == FAULT_PAE ? (uint64_t)pae_top : (uint64_t)directory32;
    e->cr4 = CR4_OSFXSR | CR4_PSE | (c->mode == FAULT_PAE ? CR4_PAE : 0) | (c->switches & FAULT_SMEP ? CR4_SMEP : 0) |
             (c->switches & FAULT_SMAP ? CR4_SMAP : 0);
}

static void run_long(const struct fault_case *c)
{
    uint64_t cr0 = read_cr0(), cr4 = read_cr4();
    uint64_t cr4_case = cr4 | (c->switches & FAULT_SMEP ? CR4_SMEP : 0) | (c->switches & FAULT_SMAP ? CR4_SMAP : 0) |
                        (c->switches & FAULT_PKE ? CR4_PKE : 0);
    uint64_t cr0_case = (cr0 & ~(CR0_WP | CR0_AM)) | (c->switches & FAULT_WP ? CR0_WP : 0) |
                        (c->switches & FAULT_AM ? CR0_AM : 0);
    load_tables(FAULT_GDT_LIMIT);
    load_segments(c);
    if (cr0_case != cr0)
        write_cr0(cr0_case);
    if (cr4_case != cr4)
        write_cr4(cr4_case);
    if (c->switches & FAULT_PKE)
        write_pkru(c->pkru);
    faults_enter();
    if (cr4_case != cr4)
        write_cr4(cr4);
    if (cr0_case != cr0)
        write_cr0(cr0);
}

/* What the 32-bit handler left on its stack. */
struct legacy_frame {
    uint32_t gs, fs, es, ds, edi, esi, ebp, esp_here, ebx, edx, ecx, eax, vector, error, eip, cs, eflags;
    uint32_t esp, ss, v86_es, v86_ds, v86_fs, v86_gs; /* what of these is there depends on where it came from */
};

static void run_legacy(const struct fault_case *c)
{
    struct taken *t = &faults_taken;
    load_tables(LEGACY_TSS + 7);
    load_segments(c);
    gdt[LEGACY_TSS / 8] &= ~(2ull << 40); /* not busy */
    uint8_t *low_entry = (uint8_t *)(uint64_t)(LOW + (faults_low_entry - faults_low));
    uint8_t *low_taken = (uint8_t *)(uint64_t)(LOW + (faults_low_taken - faults_low));
    memcpy(low_entry, &faults_entry, sizeof(faults_entry));
    memset(low_taken, 0, sizeof(*t));
    faults_enter_legacy();
    gdt[TSS64 / 8] &= ~(2ull << 40);
    load_tables(LEGACY_TSS + 7);
    __asm__ volatile("ltr %w0" : : "r"(TSS64));
    if (c->mode == FAULT_REAL) {
        memcpy(t, low_taken, sizeof(*t));
        return;
    }
    const struct legacy_frame *f = (const struct legacy_frame *)(uint64_t)faults_legacy_esp;
    bool v86 = c->mode == FAULT_V86, kept = v86 || c->cpl;
    *t = (struct taken){
        .gpr = { f->eax, f->ecx, f->edx, f->ebx, kept ? f->esp : (uint32_t)(uint64_t)&f->esp, f->ebp, f->esi, f->edi },
        .vector = f->vector, .error = f->error, .rip = f->eip, .cs = f->cs, .rflags = f->eflags,
        .ss = kept ? f->ss : fault_selector(c, FAULT_SS),
        .ds = (uint16_t)(v86 ? f->v86_ds : f->ds), .es = (uint16_t)(v86 ? f->v86_es : f->es),
        .fs = (uint16_t)(v86 ? f->v86_fs : f->fs), .gs = (uint16_t)(v86 ? f->v86_gs : f->gs),
    };
    memcpy(&t->gpr[8], &c->gpr[8], 8 * sizeof(uint64_t));
}

static void carry_out(const struct fault_case *c, struct fault_result *r)
{
    const struct taken *t = &faults_taken;
    put_code(c, true);
    put_target(c);
    map_pages(c);
    prepare_entry(c);
    write_cr2(0);
    (c->mode <= FAULT_COMPAT16 ? run_long : run_legacy)(c);
    uint64_t cr2 = read_cr2();
    put_code(c, false);
    *r = (struct fault_result){ .vector = (int)t->vector, .error = t->error, .cr2 = cr2, .rip = t->rip,
                                .rflags = t->rflags };
    memcpy(r->gpr, t->gpr, sizeof(r->gpr));
    const uint16_t selectors[FAULT_SEGMENTS] = { t->es, (uint16_t)t->cs, (uint16_t)t->ss, t->ds, t->fs, t->gs };
    memcpy(r->selector, selectors, sizeof(selectors));
    if (r->vector == 3) {
        r->vector = FAULT_DONE;
        r->rip = is_real_like(c) ? (r->rip - 1) & 0xffff : r->rip - 1;
    }
    for (unsigned i = 0; i < FAULT_PAGES; i++) {
        uint64_t index = REGION_INDEX(page_linear[i]);
        r->pte[i] = c->mode == FAULT_2LEVEL ? region32[index] : region[index];
    }
}

/* ---- Telling ---- */

static char line[1024];
static size_t line_bytes;
static const char *expected, *expected_end;

static void put_text(const char *text)
{
    for (; *text && line_bytes < sizeof(line) - 1; text++)
        line[line_bytes++] = *text;
}

static void put_number(uint64_t value, unsigned base, unsigned width)
{
    char digits[24];
    unsigned at = sizeof(digits) - 1;
    digits[at] = 0;
    do
        digits[--at] = "0123456789abcdef"[value % base];
    while (value /= base);
    while (sizeof(digits) - 1 - at < width)
        digits[--at] = '0';
    put_text(digits + at);
}

/* What fault_print needs of printf, into `line`. */
static void print_to_line(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    for (; *format; format++) {
        const char one[2] = { *format, 0 };
        if (*format != '%') {
            put_text(one);
            continue;
        }
        unsigned width = 0;
        bool wide = false;
        for (format++; (*format >= '0' && *format <= '9') || *format == 'l'; format++)
            *format == 'l' ? (void)(wide = true) : (void)(width = width * 10 + (unsigned)(*format - '0'));
        unsigned base = *format == 'u' ? 10 : 16;
        if (*format == 's')
            put_text(va_arg(arguments, const char *));
        else
            put_number(wide ? va_arg(arguments, uint64_t) : va_arg(arguments, unsigned), base, width);
    }
    va_end(arguments);
}

/* Compares `line` with the next one of the module and tells a difference. */
static void tell(unsigned index, bool skipped)
{
    const char *end = expected;
    while (end < expected_end && *end != '\n')
        end++;
    bool excused = expected < end && *expected == '~';
    expected += excused;
    bool equal = line_bytes == (size_t)(end - expected) + 1 && !memcmp(line, expected, line_bytes - 1);
    expected = end < expected_end ? end + 1 : end;
    line[line_bytes] = 0;
    if (skipped)
        guest_printf("skipped %u\n", index);
    else if (excused && !equal)
        guest_printf("excused %u\n", index);
    else if (!equal)
        guest_printf("differs %s", line);
}

static void on_case(void *context, unsigned index, const struct fault_case *c)
{
    struct fault_result r = { .vector = FAULT_SKIPPED };
    const unsigned *first = context;
    if (index < *first)
        return;
    if (!(c->switches & ~features) && !(lax && c->ends_qemu))
        carry_out(c, &r);
    line_bytes = 0;
    fault_print(c, index, &r, memory_at, (void *)c, print_to_line);
    fill(c);
    tell(index, r.vector == FAULT_SKIPPED);
}

void guest_main(void)
{
    const char *cpu = guest_argument("cpu");
    uint64_t bytes;
    lax = cpu && !strncmp(cpu, "lax", 4);
    expected = guest_module(&bytes);
    expected_end = expected + (expected ? bytes : 0);
    find_features();
    write_cr4(read_cr4() | CR4_OSFXSR);
    wrmsr(EFER, rdmsr(EFER) | EFER_NXE);
    set_tables();
    set_descriptors();
    memset(pages[PAGE_CODE], 0xcc, FAULT_REGION_BYTES);
    memset((void *)REAL_CODE, 0xcc, 0x10000);
    for (unsigned i = PAGE_DATA; i < FAULT_PAGES; i++)
        for (unsigned at = 0; at < 4096; at++)
            pages[i][at] = fault_pattern(page_linear[i] + at);
    fill(&(struct fault_case){ .mode = FAULT_REAL });
    unsigned first = (unsigned)guest_argument_number("first", 0), count = fault_cases(on_case, &first);
    guest_equal("all cases were carried out, and no more were expected", 0, (uint64_t)(expected_end - expected));
    guest_note("%u cases", count);
    guest_finish();
}
