/* SPDX-License-Identifier: MIT */
/*
 * Guest registers that the hardware does not switch; see guest_regs.h. The hypervisor runs with XSS = 0 and with a SPEC_CTRL
 * that is the same on every CPU and constant (cpu_host_spec_ctrl).
 */
#include "vmm/guest_regs.h"

#include "kernel/cpu.h"
#include "kernel/log.h"

void guest_regs_host_init(void)
{
    if (cpu_features.xsaves)
        wrmsr(MSR_XSS, 0);
}

void guest_regs_save(struct guest_regs *regs)
{
    regs->dr[0] = read_dr0();
    regs->dr[1] = read_dr1();
    regs->dr[2] = read_dr2();
    regs->dr[3] = read_dr3();
    if (cpu_features.rdtscp)
        regs->tsc_aux = rdmsr(MSR_TSC_AUX);
}

void guest_regs_restore(const struct guest_regs *regs)
{
    write_dr0(regs->dr[0]);
    write_dr1(regs->dr[1]);
    write_dr2(regs->dr[2]);
    write_dr3(regs->dr[3]);
    if (cpu_features.rdtscp)
        wrmsr(MSR_TSC_AUX, regs->tsc_aux);
}

static bool xss_differs(const struct cpu_state *state)
{
    return cpu_features.xsaves && state->xss;
}

bool guest_regs_changed(struct guest_regs *regs, const struct cpu_state *state)
{
    bool opens = !regs->spec_ctrl && (state->spec_ctrl & regs->spec_ctrl_valid & ~cpu_host_spec_ctrl());

    regs->spec_ctrl |= opens;
    regs->swap = xss_differs(state) || regs->spec_ctrl;
    return opens;
}

void guest_regs_enter(const struct guest_regs *regs, const struct cpu_state *state)
{
    if (xss_differs(state))
        wrmsr(MSR_XSS, state->xss);
    if (regs->spec_ctrl && state->spec_ctrl != cpu_host_spec_ctrl())
        wrmsr(MSR_SPEC_CTRL, state->spec_ctrl);
}

void guest_regs_leave(const struct guest_regs *regs, struct cpu_state *state)
{
    if (regs->spec_ctrl) {
        uint64_t value = rdmsr(MSR_SPEC_CTRL);
        if (value != cpu_host_spec_ctrl())
            wrmsr(MSR_SPEC_CTRL, cpu_host_spec_ctrl());
        state->spec_ctrl = value & regs->spec_ctrl_valid;
    }
    if (xss_differs(state))
        wrmsr(MSR_XSS, 0);
}

void guest_wrmsr(const struct vcpu *vcpu, const char *what, uint32_t msr, uint64_t value)
{
    if (!wrmsr_safe(msr, value))
        log_warning("vcpu %u: the CPU refuses %s = 0x%llx; the old value stays", vcpu->id, what,
                    (unsigned long long)value);
}
