/* SPDX-License-Identifier: MIT */
/*
 * Promises of the ACPI tables: they are linked, summed and bounded as the specification says, say what the machine is,
 * ACPICA's compiler reads the AML and compiles it again without a complaint, and ACPICA's interpreter gets the
 * interrupt routing of the controller that the guest said it uses.
 */
#include "fake_device.h"

#include <stdio.h>
#include <unistd.h>

#include "vdev/vacpi.h"
#include "vdev/vacpi_aml.h"
#include "vdev/vgsi.h"
#include "vdev/vpm.h"

static uint8_t tables[VACPI_BYTES_MAX];

static const struct vacpi_config demo = {
    .cpu_count = 4, .ioapic_id = 4, .pm_base = VPM_BASE, .reset_port = VPM_CF9_PORT, .com1 = true, .bus_last = 0,
    .slot_count = 32, .mmio32 = { 0xc0000000, 0x3ec00000 }, .mmio64 = { 0x800000000, 0x400000000 },
};

static uint64_t le(const uint8_t *bytes, unsigned count)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < count; i++)
        value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

static uint8_t sum(const uint8_t *bytes, size_t count)
{
    uint8_t total = 0;
    while (count--)
        total = (uint8_t)(total + *bytes++);
    return total;
}

/* The table at a guest physical address, checked. */
static const uint8_t *table(uint64_t gpa, const char *signature, size_t bytes)
{
    const uint8_t *at = tables + (gpa - VACPI_BASE);
    assert_true(gpa >= VACPI_BASE && gpa < VACPI_BASE + bytes && gpa % 16 == 0);
    assert_memory_equal(at, signature, 4);
    size_t length = (size_t)le(at + 4, 4);
    assert_true(range_within(gpa - VACPI_BASE, length, bytes));
    assert_int_equal(sum(at, length), 0);
    return at;
}

static void linked_and_summed(void **state)
{
    (void)state;
    size_t bytes = vacpi_build(&demo, tables, sizeof(tables), VACPI_BASE);
    assert_in_range(bytes, 1000, sizeof(tables));
    assert_memory_equal(tables, "RSD PTR ", 8);
    assert_int_equal(tables[15], 2);
    assert_int_equal(sum(tables, 20), 0);
    assert_int_equal(sum(tables, 36), 0);
    const uint8_t *rsdt = table(le(tables + 16, 4), "RSDT", bytes);
    const uint8_t *xsdt = table(le(tables + 24, 8), "XSDT", bytes);
    assert_int_equal(le(rsdt + 4, 4), 36 + 8);
    assert_int_equal(le(xsdt + 4, 4), 36 + 16);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(le(rsdt + 36 + 4 * i, 4), le(xsdt + 36 + 8 * i, 8));
    const uint8_t *fadt = table(le(xsdt + 36, 8), "FACP", bytes);
    table(le(xsdt + 44, 8), "APIC", bytes);
    table(le(fadt + 40, 4), "DSDT", bytes);
    assert_int_equal(le(fadt + 40, 4), le(fadt + 140, 8));
    uint64_t facs = le(fadt + 36, 4);
    assert_int_equal(facs % 64, 0);
    assert_memory_equal(tables + (facs - VACPI_BASE), "FACS", 4);
    size_t found;
    assert_ptr_equal(vacpi_find(tables, bytes, "FACP", &found), fadt);
    assert_int_equal(found, 276);
    assert_null(vacpi_find(tables, bytes, "HPET", &found));
}

static void fixed_hardware(void **state)
{
    (void)state;
    size_t bytes = vacpi_build(&demo, tables, sizeof(tables), VACPI_BASE), length;
    const uint8_t *fadt = vacpi_find(tables, bytes, "FACP", &length);
    assert_int_equal(length, 276);
    assert_int_equal(le(fadt + 46, 2), 9);
    assert_int_equal(le(fadt + 48, 4), 0); /* no SMI */
    assert_int_equal(le(fadt + 56, 4), 0x600);
    assert_int_equal(le(fadt + 64, 4), 0x604);
    assert_int_equal(le(fadt + 76, 4), 0x608);
    assert_int_equal(fadt[88], 4);
    assert_int_equal(fadt[89], 2);
    assert_int_equal(fadt[91], 4);
    assert_int_equal(fadt[108], 0x32);
    assert_int_equal(le(fadt + 109, 2), 0x15);
    assert_int_equal(le(fadt + 112, 4), 0x565);
    assert_int_equal(fadt[116], 1);
    assert_int_equal(fadt[117], 8);
    assert_int_equal(le(fadt + 120, 8), 0xcf9);
    assert_int_equal(fadt[128], 6);
    assert_int_equal(fadt[131], 4);
    assert_int_equal(le(fadt + 152, 8), 0x600);
    assert_int_equal(le(fadt + 176, 8), 0x604);
    assert_int_equal(fadt[208], 1);
    assert_int_equal(fadt[209], 32);
    assert_int_equal(le(fadt + 212, 8), 0x608);
    assert_int_equal(le(fadt + 268, 8), le((const uint8_t *)"TASUKI\0\0", 8));
}

static void processors_and_interrupts(void **state)
{
    (void)state;
    struct vacpi_config config = demo;
    for (config.cpu_count = 1; config.cpu_count <= 32; config.cpu_count++) {
        size_t bytes = vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), length;
        const uint8_t *madt = vacpi_find(tables, bytes, "APIC", &length);
        unsigned cpus = 0, ioapics = 0, overrides = 0, nmis = 0;
        assert_int_equal(le(madt + 36, 4), 0xfee00000);
        assert_int_equal(le(madt + 40, 4), 1);
        for (size_t at = 44; at < length; at += madt[at + 1]) {
            const uint8_t *entry = madt + at;
            assert_true(entry[1] >= 2);
            switch (entry[0]) {
            case 0:
                assert_int_equal(entry[3], cpus);
                assert_int_equal(le(entry + 4, 4), 1);
                cpus++;
                break;
            case 1:
                assert_int_equal(entry[2], 4);
                assert_int_equal(le(entry + 4, 4), VIOAPIC_BASE);
                ioapics++;
                break;
            case 2:
                assert_true((entry[3] == 0 && le(entry + 4, 4) == 2 && le(entry + 8, 2) == 0)
                            || (entry[3] == 9 && le(entry + 4, 4) == 9 && le(entry + 8, 2) == 0xd));
                overrides++;
                break;
            case 4:
                assert_int_equal(entry[2], 0xff);
                assert_int_equal(entry[5], 1);
                nmis++;
                break;
            default: fail();
            }
        }
        assert_int_equal(cpus, config.cpu_count);
        assert_int_equal(ioapics + overrides + nmis, 4);
    }
}

static void refuses(void **state)
{
    (void)state;
    size_t bytes = vacpi_build(&demo, tables, sizeof(tables), VACPI_BASE);
    for (size_t room = 0; room < bytes; room += room < 64 ? 1 : 37) {
        uint8_t *exact = malloc(room ? room : 1); /* a write beyond it shows */
        assert_int_equal(vacpi_build(&demo, exact, room, VACPI_BASE), 0);
        free(exact);
    }
    uint8_t *exact = malloc(bytes);
    assert_int_equal(vacpi_build(&demo, exact, bytes, VACPI_BASE), bytes);
    free(exact);
    struct vacpi_config config = demo;
    config.cpu_count = 0;
    assert_int_equal(vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), 0);
    config.cpu_count = 33;
    assert_int_equal(vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), 0);
    config = demo;
    config.slot_count = 33;
    assert_int_equal(vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), 0);
    config = demo;
    config.mmio32.bytes = GIB;
    assert_int_equal(vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), bytes);
    config.mmio32.bytes++;
    assert_int_equal(vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), 0);
    config = demo;
    config.mmio64.base = GIB;
    assert_int_equal(vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), 0);
    assert_int_equal(vacpi_build(&demo, tables, sizeof(tables), VACPI_BASE + 16), 0);
    assert_int_equal(vacpi_build(&demo, tables, sizeof(tables), 4 * GIB - 4096), 0);
}

static void aml_lengths(void **state)
{
    (void)state;
    static uint8_t bytes[70000];
    static const unsigned bodies[] = { 0, 57, 58, 59, 60, 4000, 4088, 4089, 4090, 4091, 60000 };
    for (unsigned i = 0; i < ARRAY_COUNT(bodies); i++) {
        struct aml a = { .bytes = bytes, .capacity = sizeof(bytes) };
        aml_mark mark = aml_scope(&a, "_SB");
        for (unsigned n = 0; n < bodies[i]; n++)
            aml_u8(&a, (uint8_t)n);
        aml_close(&a, mark);
        assert_false(a.overflow);
        unsigned extra = bytes[1] >> 6;
        size_t length = extra ? (bytes[1] & 15u) | (size_t)le(bytes + 2, extra) << 4 : bytes[1];
        assert_int_equal(length, a.used - 1);
        assert_true(!extra || length >= (extra == 1 ? 0x40 : 0x1000)); /* the shortest form */
        assert_memory_equal(bytes + 2 + extra, "_SB_", 4);
        if (bodies[i])
            assert_int_equal(bytes[a.used - 1], (uint8_t)(bodies[i] - 1));
    }
}

/* Runs a command in `directory`; true if it succeeded. */
static bool run(const char *directory, const char *command)
{
    char line[512];
    snprintf(line, sizeof(line), "cd %s && { %s; } >>log 2>&1", directory, command);
    return system(line) == 0;
}

static size_t read_file(const char *directory, const char *name, char *bytes, size_t capacity)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", directory, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    size_t count = fread(bytes, 1, capacity, file);
    fclose(file);
    return count;
}

static void compiles_again(void **state)
{
    (void)state;
    static char text[400000], again[VACPI_BYTES_MAX];
    static const char *const names[] = { "DSDT", "FACP", "APIC", "FACS" };
    if (system("command -v iasl >/dev/null 2>&1") != 0)
        skip();
    for (unsigned variant = 0; variant < 3; variant++) {
        struct vacpi_config config = demo;
        if (variant == 1) {
            config.slot_count = 1;
            config.mmio64.bytes = 0;
        } else if (variant == 2) {
            config.slot_count = 0;
            config.com1 = false;
            config.cpu_count = 32;
        }
        char directory[] = "/tmp/test_vacpi.XXXXXX";
        assert_non_null(mkdtemp(directory));
        size_t bytes = vacpi_build(&config, tables, sizeof(tables), VACPI_BASE), length;
        for (unsigned i = 0; i < ARRAY_COUNT(names); i++) {
            char path[64], command[160];
            const uint8_t *at = vacpi_find(tables, bytes, names[i], &length);
            assert_non_null(at);
            snprintf(path, sizeof(path), "%s/%s.dat", directory, names[i]);
            FILE *file = fopen(path, "wb");
            assert_int_equal(fwrite(at, 1, length, file), length);
            fclose(file);
            snprintf(command, sizeof(command), "iasl -d %s.dat && iasl -p %s-again %s.dsl", names[i], names[i],
                     names[i]);
            assert_true(run(directory, command));
        }
        size_t count = read_file(directory, "log", text, sizeof(text) - 1);
        text[count] = 0;
        unsigned clean = 0;
        for (const char *at = text; (at = strstr(at, "Compilation successful. 0 Errors, 0 Warnings")) != NULL; at++)
            clean++;
        if (clean != ARRAY_COUNT(names))
            print_error("%s\n", text);
        assert_int_equal(clean, ARRAY_COUNT(names));
        /* Behind the header, which names the compiler, the AML is the same. */
        const uint8_t *dsdt = vacpi_find(tables, bytes, "DSDT", &length);
        assert_int_equal(read_file(directory, "DSDT-again.aml", again, sizeof(again)), length);
        assert_memory_equal(again + 36, dsdt + 36, length - 36);
        char command[64];
        snprintf(command, sizeof(command), "rm -r %s", directory);
        assert_int_equal(system(command), 0);
    }
}

/* The next integer that acpiexec printed at or after *at; *at moves behind it. */
static uint64_t next_integer(const char **at)
{
    static const char mark[] = "[Integer] = ";
    const char *found = strstr(*at, mark);
    assert_non_null(found);
    char *end;
    uint64_t value = strtoull(found + sizeof(mark) - 1, &end, 16);
    *at = end;
    return value;
}

static void routing_by_interrupt_model(void **state)
{
    (void)state;
    static char text[400000];
    static const char evaluate[] = "evaluate \\_SB.PCI0._PRT\n";
    char directory[] = "/tmp/test_vacpi.XXXXXX", path[64], command[64];
    if (system("command -v acpiexec >/dev/null 2>&1") != 0)
        skip();
    assert_non_null(mkdtemp(directory));
    size_t bytes = vacpi_build(&demo, tables, sizeof(tables), VACPI_BASE), length;
    const void *dsdt = vacpi_find(tables, bytes, "DSDT", &length);
    snprintf(path, sizeof(path), "%s/dsdt.dat", directory);
    FILE *file = fopen(path, "wb");
    assert_int_equal(fwrite(dsdt, 1, length, file), length);
    fclose(file);
    snprintf(path, sizeof(path), "%s/orders", directory);
    file = fopen(path, "w");
    fprintf(file, "%sevaluate \\_PIC 1\n%sevaluate \\_PIC 0\n%squit\n", evaluate, evaluate, evaluate);
    fclose(file);
    assert_true(run(directory, "acpiexec dsdt.dat <orders"));
    text[read_file(directory, "log", text, sizeof(text) - 1)] = 0;
    const char *at = text;
    for (unsigned round = 0; round < 3; round++) { /* never told, I/O APIC, 8259s */
        for (unsigned slot = 0; slot < 32; slot++) {
            for (unsigned pin = 0; pin < 4; pin++) {
                assert_int_equal(next_integer(&at), slot << 16 | 0xffff);
                assert_int_equal(next_integer(&at), pin);
                assert_int_equal(next_integer(&at), 0);
                assert_int_equal(next_integer(&at), round == 1 ? 16 + (slot + pin) % 8 : 10 + (slot + pin) % 2);
            }
        }
    }
    assert_null(strstr(at, "[Integer]"));
    assert_null(strstr(text, "Exception"));
    snprintf(command, sizeof(command), "rm -r %s", directory);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linked_and_summed), cmocka_unit_test(fixed_hardware),
        cmocka_unit_test(processors_and_interrupts), cmocka_unit_test(refuses), cmocka_unit_test(aml_lengths),
        cmocka_unit_test(compiles_again), cmocka_unit_test(routing_by_interrupt_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
