# SPDX-License-Identifier: MIT
# Small guests: each folder of tests/guests beside lib is one Multiboot kernel, $(BUILD)/guests/NAME.elf, linked with the
# library in lib/. `make guests` builds all.

GUEST_NAMES := $(filter-out lib,$(sort $(patsubst tests/guests/%/,%,$(dir $(wildcard tests/guests/*/*.c)))))
GUEST_LIBRARY := $(sort $(wildcard tests/guests/lib/*.[cS]))
GUEST_PROGRAMS := $(patsubst %,$(BUILD)/guests/%.elf,$(GUEST_NAMES))
GUEST_CFLAGS := -std=gnu17 -ffreestanding -nostdinc -isystem $(compiler_include) -Itests/guests/lib -O2 -g -mno-red-zone \
    -mgeneral-regs-only -fno-pic -fno-pie -mcmodel=small -fno-stack-protector -fno-asynchronous-unwind-tables \
    -fcf-protection=none -fno-strict-aliasing -Wno-array-bounds $(REPRODUCIBLE)
$(eval $(call flags_file,guest,$(GUEST_CFLAGS) $(WARNINGS)))

.PHONY: guests
guests: $(GUEST_PROGRAMS)

# $(call guest_rules,NAME)
define guest_rules
GUEST_OBJECTS_$(1) := $(patsubst tests/guests/%,$(BUILD)/guests/$(1)/%.o,$(GUEST_LIBRARY) \
    $(sort $(wildcard tests/guests/$(1)/*.[cS])))
$(BUILD)/guests/$(1)/%.o: tests/guests/% $(BUILD)/guest.flags
	$$(call say,CC)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) $$(GUEST_CFLAGS) $$(if $$(filter %.S,$$<),-D__ASSEMBLER__,$$(WARNINGS)) -DGUEST_NAME='"$(1)"' -MMD -MP -c -o $$@ $$<
$(BUILD)/guests/$(1).elf: $$(GUEST_OBJECTS_$(1)) tests/guests/lib/guest.ld
	$$(call say,LINK)
	$$(Q)ld -nostdlib -static --build-id=none -z noexecstack -z max-page-size=4096 --no-warn-rwx-segments \
	    -T tests/guests/lib/guest.ld -o $$@ $$(GUEST_OBJECTS_$(1))
-include $$(patsubst %.o,%.d,$$(GUEST_OBJECTS_$(1)))
endef
$(foreach name,$(GUEST_NAMES),$(eval $(call guest_rules,$(name))))
