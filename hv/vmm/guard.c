/* SPDX-License-Identifier: MIT */
/*
 * The guard around the world switch, on CPUs that need one: vmm/guard_entry.S has the parts. Two instructions of a world
 * switch, the CALL to prepare an entry and the JMP to handle an exit, are pointed elsewhere once, before any guest runs; so
 * a CPU that needs nothing executes nothing more. A third, a JMP, takes light exits away (vmm/light.h): those have no room
 * for a guard.
 *
 * Not covered: an NMI that arrives just after an exit is handled before the barrier (STGI; on VMX the exit does not block
 * NMIs), and a sibling thread in the guest may teach shared predictors while the hypervisor runs here.
 */
#include "vmm/guard.h"

#include <stdio.h>
#include <string.h>

#include "kernel/cpu.h"
#include "kernel/log.h"
#include "vmm/run.h"

enum exit_guard { EXIT_PLAIN, EXIT_BARRIER, EXIT_FILL, EXIT_RETURN };

static enum exit_guard on_exit;

#define CALL_OPCODE 0xe8
#define JMP_OPCODE 0xe9

/*
 * The displacement of a CALL or JMP in the image. Text is read-only: CR0.WP is cleared for this one store. No other CPU
 * has executed the code yet; each of them takes an interrupt, which serializes it, before it does.
 */
static void point_to(uint8_t *site, void (*target)(void))
{
    int32_t distance = (int32_t)((const uint8_t *)target - (site + 5));

    if (site[0] != CALL_OPCODE && site[0] != JMP_OPCODE)
        panic("guard: there is no call or jump at %p", (void *)site);
    uint64_t flags = irq_save(), cr0 = read_cr0();
    write_cr0(cr0 & ~BIT(16));
    memcpy(site + 1, &distance, sizeof distance);
    write_cr0(cr0);
    (void)cpuid(0, 0);
    irq_restore(flags);
}

void guard_init(enum guard_mode mode)
{
    const struct speculation *s = &cpu_features.speculation;
    const struct guard_sites *sites = vmm ? vmm->guard : NULL;
    char text[160];

    if (!sites)
        return;
    if (mode != GUARD_OFF)
        on_exit = s->barrier_on_exit ? EXIT_BARRIER
                  : s->return_on_exit ? EXIT_RETURN
                  : mode == GUARD_AUTO ? EXIT_PLAIN
                  : s->ibpb ? EXIT_BARRIER
                            : EXIT_FILL;
    switch (on_exit) {
    case EXIT_PLAIN: break;
    case EXIT_BARRIER: point_to(sites->exit_jump, sites->exit_barrier); break;
    case EXIT_FILL: point_to(sites->exit_jump, sites->exit_fill); break;
    case EXIT_RETURN: point_to(sites->exit_jump, sites->exit_return); break;
    }
    if (s->clear_on_entry)
        point_to(sites->entry_call, sites->entry_clear);
    if (on_exit != EXIT_PLAIN || s->clear_on_entry) /* a light exit has branches before a barrier, and none at its entry */
        point_to(sites->light_jump, sites->full_exit);
    guard_describe(text, sizeof text);
    log_info("node: against leaks by speculation: %s", text);
}

void guard_describe(char *text, size_t bytes)
{
    static const char *const exits[] = {
        [EXIT_BARRIER] = "barrier and return stack at exits", [EXIT_FILL] = "return stack at exits",
        [EXIT_RETURN] = "one return at exits",
    };
    const struct speculation *s = &cpu_features.speculation;
    const struct { bool on; const char *words; } list[] = {
        { s->always_ibrs, "enhanced IBRS" }, { s->no_history, "BHI_DIS_S" },
        { s->auto_ibrs, "automatic IBRS" },
        { on_exit != EXIT_PLAIN, exits[on_exit] }, { s->ibpb, "IBPB between VMs" },
        { s->clear_on_entry, "VERW at entries" }, { s->flush_l1d, "L1D flush between VMs" },
        { s->small_code, "no large executable pages" },
    };
    size_t used = 0;

    snprintf(text, bytes, "nothing");
    for (unsigned i = 0; i < ARRAY_COUNT(list); i++)
        if (list[i].on && used < bytes)
            used += (size_t)snprintf(text + used, bytes - used, "%s%s", used ? ", " : "", list[i].words);
}
