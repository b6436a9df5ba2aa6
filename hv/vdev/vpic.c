/* SPDX-License-Identifier: MIT */
/*
 * The 8259A pair. The slave's output is the master's input 2, which follows it like a level. Edge-triggered requests
 * stay latched until they are acknowledged; level-triggered ones follow their line, so that one which goes away between
 * INTR and the acknowledge cycle gives the spurious vector.
 *
 * Invariant: `output` is what settle() computed last, and INTR has been told of each change of it.
 */
#include "vdev/vpic.h"

#include <string.h>

#define CASCADE 2u
#define ELCR_MASTER 0xf8u
#define ELCR_SLAVE 0xdeu

/* The input of highest priority among `inputs`, as a distance from the highest (0..7), 8 if there is none. */
static unsigned priority(const struct vpic_chip *chip, unsigned inputs)
{
    unsigned distance = 0;
    while (distance < 8 && !(inputs >> ((chip->lowest + 1 + distance) & 7) & 1))
        distance++;
    return distance;
}

/* The input that asks for service and may have it, or -1. */
static int requesting(const struct vpic_chip *chip)
{
    unsigned serving = chip->isr;
    if (chip->init_step)
        return -1;
    if (chip->special_mask)
        serving &= (unsigned)~chip->imr;
    if (chip->special_nested)
        serving &= ~(1u << CASCADE);
    unsigned wants = priority(chip, chip->irr & (unsigned)~chip->imr);
    return wants < priority(chip, serving) ? (int)((chip->lowest + 1u + wants) & 7) : -1;
}

static bool compute(struct vpic *pic)
{
    struct vpic_chip *master = &pic->chip[0];
    if (requesting(&pic->chip[1]) >= 0)
        master->irr |= 1u << CASCADE;
    else
        master->irr &= (uint8_t)~(1u << CASCADE);
    return requesting(master) >= 0;
}

static void settle(struct vpic *pic)
{
    bool output = compute(pic);
    if (output == pic->output)
        return;
    __atomic_store_n(&pic->output, output, __ATOMIC_RELEASE);
    vline_set(&pic->intr, output);
}

void vpic_init(struct vpic *pic, struct vline intr)
{
    memset(pic, 0, sizeof(*pic));
    pic->intr = intr;
    vpic_reset(pic);
}

void vpic_reset(struct vpic *pic)
{
    for (unsigned i = 0; i < 2; i++) {
        uint8_t lines = pic->chip[i].lines;
        pic->chip[i] = (struct vpic_chip){ .lines = lines, .imr = 0xff, .lowest = 7 };
    }
    settle(pic);
}

void vpic_set_line(void *context, unsigned irq, bool level)
{
    struct vpic *pic = context;
    if (irq > 15 || irq == CASCADE)
        return;
    struct vpic_chip *chip = &pic->chip[irq / 8];
    uint8_t bit = (uint8_t)(1u << irq % 8);
    bool rising = level && !(chip->lines & bit);
    chip->lines = level ? chip->lines | bit : chip->lines & (uint8_t)~bit;
    if (chip->elcr & bit)
        chip->irr = level ? chip->irr | bit : chip->irr & (uint8_t)~bit;
    else if (rising)
        chip->irr |= bit;
    settle(pic);
}

bool vpic_output(const struct vpic *pic)
{
    return __atomic_load_n(&pic->output, __ATOMIC_ACQUIRE);
}

/* ---- Acknowledge and end of interrupt ---- */

static void serve(struct vpic_chip *chip, unsigned input)
{
    uint8_t bit = (uint8_t)(1u << input);
    if (!(chip->elcr & bit))
        chip->irr &= (uint8_t)~bit;
    if (!chip->auto_eoi)
        chip->isr |= bit;
    else if (chip->rotate_auto)
        chip->lowest = (uint8_t)input;
}

int vpic_acknowledge(struct vpic *pic)
{
    struct vpic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
    int input = requesting(master), vector;
    if (input < 0)
        return master->base + 7;
    serve(master, (unsigned)input);
    vector = master->base + input;
    if (input == (int)CASCADE) {
        int second = requesting(slave);
        if (second >= 0)
            serve(slave, (unsigned)second);
        vector = slave->base + (second >= 0 ? second : 7);
    }
    settle(pic);
    return vector;
}

/* Undoes serve(). An input that is not in service was not served: a spurious vector, or the guest has ended it. */
static bool unserve(struct vpic_chip *chip, uint8_t vector)
{
    uint8_t bit = (uint8_t)(1u << (vector & 7));
    if ((vector & 0xf8) != chip->base || chip->init_step || !(chip->auto_eoi || (chip->isr & bit)))
        return false;
    chip->isr &= (uint8_t)~bit;
    if (!(chip->elcr & bit)) /* a level still shows in IRR, or is gone */
        chip->irr |= bit;
    return true;
}

void vpic_return(struct vpic *pic, uint8_t vector)
{
    struct vpic_chip *master = &pic->chip[0], *slave = &pic->chip[1];
    bool cascaded = master->isr & 1u << CASCADE || master->auto_eoi;
    if (cascaded && (unserve(slave, vector) || vector == slave->base + 7))
        master->isr &= (uint8_t)~(1u << CASCADE);
    else
        (void)unserve(master, vector);
    settle(pic);
}

/* OCW2. In special mask mode the masked levels are not what a non-specific EOI ends. */
static void end_of_interrupt(struct vpic_chip *chip, uint8_t command)
{
    unsigned operation = command >> 5, input = command & 7;
    bool specific = operation & 2;
    switch (operation) {
    case 0: chip->rotate_auto = false; return;
    case 4: chip->rotate_auto = true; return;
    case 2: return;
    case 6: chip->lowest = (uint8_t)input; return;
    default: break; /* 1, 3, 5, 7: an EOI */
    }
    if (!specific) {
        unsigned serving = chip->special_mask ? chip->isr & (unsigned)~chip->imr : chip->isr;
        unsigned distance = priority(chip, serving);
        if (distance == 8)
            return;
        input = (chip->lowest + 1u + distance) & 7;
    }
    chip->isr &= (uint8_t)~(1u << input);
    if (operation & 4)
        chip->lowest = (uint8_t)input;
}

/* ---- Ports ---- */

static void write_icw1(struct vpic_chip *chip, uint8_t value)
{
    chip->irr &= chip->elcr; /* the edge detectors are cleared; levels are still there */
    chip->imr = 0;
    chip->isr = 0;
    chip->lowest = 7;
    chip->special_mask = chip->special_nested = chip->read_isr = chip->poll = false;
    chip->auto_eoi = chip->rotate_auto = false;
    chip->need_icw4 = value & 1;
    chip->single = value & 2;
    chip->init_step = 2;
}

static void write_ocw3(struct vpic_chip *chip, uint8_t value)
{
    if (value & 0x40)
        chip->special_mask = value & 0x20;
    if (value & 0x04)
        chip->poll = true;
    if (value & 0x02)
        chip->read_isr = value & 0x01;
}

static void write_odd(struct vpic_chip *chip, uint8_t value)
{
    switch (chip->init_step) {
    case 2:
        chip->base = value & 0xf8;
        chip->init_step = !chip->single ? 3 : chip->need_icw4 ? 4 : 0;
        return;
    case 3: /* the wiring is what it is */
        chip->init_step = chip->need_icw4 ? 4 : 0;
        return;
    case 4:
        chip->auto_eoi = value & 2;
        chip->special_nested = value & 0x10;
        chip->init_step = 0;
        return;
    default: chip->imr = value;
    }
}

static void write_byte(struct vpic *pic, struct vpic_chip *chip, uint64_t offset, uint8_t value)
{
    if (offset & 1)
        write_odd(chip, value);
    else if (value & 0x10)
        write_icw1(chip, value);
    else if (value & 0x08)
        write_ocw3(chip, value);
    else
        end_of_interrupt(chip, value);
    settle(pic);
}

static uint8_t read_byte(struct vpic *pic, struct vpic_chip *chip, uint64_t offset)
{
    if (chip->poll) { /* the read is the acknowledge cycle */
        int input = requesting(chip);
        chip->poll = false;
        if (input < 0)
            return 7;
        serve(chip, (unsigned)input);
        settle(pic);
        return (uint8_t)(0x80 | input);
    }
    if (offset & 1)
        return chip->imr;
    return chip->read_isr ? chip->isr : chip->irr;
}

/* Wider accesses reach one byte port after the other. */
static uint64_t read_chip(struct vpic *pic, unsigned which, uint64_t offset, unsigned size)
{
    uint64_t value = 0;
    for (unsigned i = 0; i < size; i++)
        value |= (uint64_t)read_byte(pic, &pic->chip[which], offset + i) << 8 * i;
    return value;
}

static void write_chip(struct vpic *pic, unsigned which, uint64_t offset, unsigned size, uint64_t value)
{
    for (unsigned i = 0; i < size; i++)
        write_byte(pic, &pic->chip[which], offset + i, (uint8_t)(value >> 8 * i));
}

static uint64_t master_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    (void)now_ns;
    return read_chip(device, 0, offset, size);
}

static void master_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    (void)now_ns;
    write_chip(device, 0, offset, size, value);
}

static uint64_t slave_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    (void)now_ns;
    return read_chip(device, 1, offset, size);
}

static void slave_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    (void)now_ns;
    write_chip(device, 1, offset, size, value);
}

static uint64_t elcr_read(void *device, uint64_t offset, unsigned size, uint64_t now_ns)
{
    const struct vpic *pic = device;
    (void)now_ns;
    return size == 2 ? (uint64_t)pic->chip[1].elcr << 8 | pic->chip[0].elcr : pic->chip[offset & 1].elcr;
}

static void write_elcr(struct vpic_chip *chip, uint8_t value)
{
    uint8_t levels = chip->elcr | value; /* requests that came of a level go, and those that are levels now come */
    chip->elcr = value;
    chip->irr = (uint8_t)((chip->irr & ~levels) | (chip->lines & value));
}

void vpic_set_levels(struct vpic *pic, uint16_t inputs)
{
    write_elcr(&pic->chip[0], (uint8_t)inputs & ELCR_MASTER);
    write_elcr(&pic->chip[1], (uint8_t)(inputs >> 8) & ELCR_SLAVE);
    settle(pic);
}

static void elcr_write(void *device, uint64_t offset, unsigned size, uint64_t value, uint64_t now_ns)
{
    struct vpic *pic = device;
    (void)now_ns;
    if (offset & 1)
        write_elcr(&pic->chip[1], (uint8_t)value & ELCR_SLAVE);
    else
        write_elcr(&pic->chip[0], (uint8_t)value & ELCR_MASTER);
    if (size == 2)
        write_elcr(&pic->chip[1], (uint8_t)(value >> 8) & ELCR_SLAVE);
    settle(pic);
}

const struct vdev_ops vpic_master_ops = { .read = master_read, .write = master_write };
const struct vdev_ops vpic_slave_ops = { .read = slave_read, .write = slave_write };
const struct vdev_ops vpic_elcr_ops = { .read = elcr_read, .write = elcr_write };

enum status vpic_attach(struct vpic *pic, struct vbus *ports)
{
    enum status status = vbus_add(ports, 0x20, 2, &vpic_master_ops, pic);
    if (status == OK)
        status = vbus_add(ports, 0xa0, 2, &vpic_slave_ops, pic);
    if (status == OK)
        status = vbus_add(ports, 0x4d0, 2, &vpic_elcr_ops, pic);
    return status;
}

/* ---- Save and restore ---- */

/* The bytes of a chip in the order of the stream; the flags follow. */
static const uint8_t saved_bytes[] = {
    offsetof(struct vpic_chip, irr),  offsetof(struct vpic_chip, imr),  offsetof(struct vpic_chip, isr),
    offsetof(struct vpic_chip, lines), offsetof(struct vpic_chip, elcr), offsetof(struct vpic_chip, base),
    offsetof(struct vpic_chip, lowest), offsetof(struct vpic_chip, init_step),
};

static unsigned pack_flags(const struct vpic_chip *chip)
{
    return (unsigned)chip->need_icw4 | (unsigned)chip->single << 1 | (unsigned)chip->auto_eoi << 2
         | (unsigned)chip->rotate_auto << 3 | (unsigned)chip->special_mask << 4 | (unsigned)chip->special_nested << 5
         | (unsigned)chip->read_isr << 6 | (unsigned)chip->poll << 7;
}

static void unpack_flags(struct vpic_chip *chip, unsigned flags)
{
    chip->need_icw4 = flags & 1;
    chip->single = flags & 2;
    chip->auto_eoi = flags & 4;
    chip->rotate_auto = flags & 8;
    chip->special_mask = flags & 0x10;
    chip->special_nested = flags & 0x20;
    chip->read_isr = flags & 0x40;
    chip->poll = flags & 0x80;
}

void vpic_save(const struct vpic *pic, struct stream_writer *w, uint64_t now_ns)
{
    (void)now_ns;
    for (unsigned i = 0; i < 2; i++) {
        const struct vpic_chip *chip = &pic->chip[i];
        for (unsigned n = 0; n < sizeof(saved_bytes); n++)
            stream_put_u8(w, ((const uint8_t *)chip)[saved_bytes[n]]);
        stream_put_u8(w, (uint8_t)pack_flags(chip));
    }
}

void vpic_restore(struct vpic *pic, struct stream_reader *r, uint64_t now_ns)
{
    struct vpic new = *pic;
    bool good = true;
    (void)now_ns;
    for (unsigned i = 0; i < 2; i++) {
        struct vpic_chip *chip = &new.chip[i];
        for (unsigned n = 0; n < sizeof(saved_bytes); n++)
            ((uint8_t *)chip)[saved_bytes[n]] = stream_get_u8(r);
        unpack_flags(chip, stream_get_u8(r));
        good &= !(chip->base & 7) && chip->lowest < 8 && chip->init_step <= 4 && chip->init_step != 1;
        good &= !(chip->elcr & ~(i ? ELCR_SLAVE : ELCR_MASTER));
    }
    if (r->error != OK)
        return;
    if (!good) {
        stream_fail(r, ERR_CORRUPT, "8259: value out of range");
        return;
    }
    new.output = compute(&new);
    *pic = new;
}
