# SPDX-License-Identifier: MIT
# Builds everything below $(BUILD); docs/build.md explains. Targets: all (BOOTX64.EFI, esp.img, tasuki-csv), setup, run,
# target-restart, build/debian.img (a guest's disk), test, unit, fuzz, system, crash, bench, clean. Variables: CC (gcc or clang),
# BUILD (a directory), CPU (amd or intel, for run), FRESH (1: run makes its volume anew), V=1 (show the commands).

BUILD ?= build
CPU ?= amd
ifeq ($(origin CC),default)
CC := gcc
endif
PYTHON := /usr/bin/python3
Q := $(if $(V),,@)
say = $(if $(V),,@echo "  $(1)	$(patsubst $(BUILD)/%,%,$@)")

.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all setup run target-restart test unit fuzz system crash bench clean test-programs

all: $(BUILD)/BOOTX64.EFI $(BUILD)/esp.img $(BUILD)/tasuki-csv

# ---- What there is ----

# Parts that are linked from an archive: the image has only what is used of them.
PART_SOURCES := $(sort $(wildcard csv/*.c net/iscsi/*.c net/scsi/*.c) $(patsubst %,net/%.c,announce duplicate frame mac_table offload vswitch))
HV_SOURCES := $(filter-out $(PART_SOURCES),$(sort $(wildcard hv/*/*.[cS] hv/kernel/libc/*.[cS] hv/vmm/*/*.[cS] drivers/*.[cS] \
    net/*.[cS] net/lwip/*.[cS])))
BOOT_SOURCES := $(sort $(wildcard boot/*.[cS]))
# The parts of hv/kernel that are pure, beside all of vdev, vmm, vm and shell: what unit tests and fuzzers may use.
# CORE_EXCLUDED are files among them that do not compile on Linux.
CORE_EXCLUDED :=
CORE_SOURCES := $(filter-out $(CORE_EXCLUDED),$(sort $(wildcard hv/vdev/*.c hv/vmm/*.c hv/vm/*.c hv/volume/*.c hv/shell/*.c hv/vmm/svm/svm_decode.c \
    hv/vmm/vmx/vmx_caps.c \
    $(patsubst %,hv/kernel/%.c,text status crc32c page page_frames pt font textscreen topology placement speculation) \
    $(patsubst %,drivers/%.c,pci nic e1000 e1000_ring virtio_nic virtio_ring) $(patsubst %,net/%.c,address card checksum coalesce guests names network ping lwip/port) \
    $(PART_SOURCES))))
# The tool for an admin's machine, of the volume's core as it is.
CSV_TOOL_SOURCES := $(sort $(wildcard tools/csv/*.c csv/*.c) $(patsubst %,hv/kernel/%.c,text status crc32c))
UNIT_SOURCES := $(sort $(wildcard tests/unit/test_*.c))
# A program against another implementation: its main file, and the rest of the folder.
DIFFERENTIAL_SOURCES := $(sort $(wildcard tests/differential/*_vs_*.c))
DIFFERENTIAL_PARTS := $(filter-out $(DIFFERENTIAL_SOURCES),$(sort $(wildcard tests/differential/*.c)))
FUZZ_SOURCES := $(sort $(wildcard tests/fuzz/fuzz_*.c))
ZYDIS_NAMES := Decoder DecoderData MetaInfo Mnemonic Register Segment SharedData String Utils Zydis
MBEDTLS_NAMES := md5 platform_util sha256
LWIP_NAMES := $(patsubst %,core/%,def dns inet_chksum init ip mem memp netif pbuf raw stats tcp tcp_in tcp_out timeouts udp) \
    $(patsubst %,core/ipv4/%,dhcp etharp icmp ip4 ip4_addr ip4_frag) \
    $(patsubst %,core/ipv6/%,ethip6 icmp6 ip6 ip6_addr ip6_frag mld6 nd6) netif/ethernet

HV_OBJECTS := $(patsubst %,$(BUILD)/obj/%.o,$(HV_SOURCES))
PART_OBJECTS := $(patsubst %,$(BUILD)/obj/%.o,$(PART_SOURCES))
BOOT_OBJECTS := $(patsubst %,$(BUILD)/efi/%.o,$(BOOT_SOURCES) hv/vm/config.c $(patsubst %,hv/vm/config_%.c,network node storage vm) \
    hv/kernel/text.c net/address.c)
ZYDIS_OBJECTS := $(patsubst %,$(BUILD)/obj/zydis/%.o,$(ZYDIS_NAMES))
MBEDTLS_OBJECTS := $(patsubst %,$(BUILD)/obj/mbedtls/%.o,$(MBEDTLS_NAMES))
LWIP_OBJECTS := $(patsubst %,$(BUILD)/obj/lwip/%.o,$(LWIP_NAMES))
UNIT_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(UNIT_SOURCES))
DIFFERENTIAL_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(DIFFERENTIAL_SOURCES))
FUZZ_PROGRAMS := $(patsubst tests/%.c,$(BUILD)/tests/%,$(FUZZ_SOURCES))

# ---- Compilers ----

is_clang := $(findstring clang,$(shell $(CC) --version 2>/dev/null | head -n 1))
compiler_include := $(if $(is_clang),$(shell $(CC) -print-resource-dir)/include,$(shell $(CC) -print-file-name=include 2>/dev/null))

WARNINGS := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wundef -Wvla -Wwrite-strings \
    -Wpointer-arith -Wimplicit-fallthrough -Wformat-security -Wold-style-definition \
    $(if $(is_clang),,-Wlogical-op -Wduplicated-cond)

# The same bytes wherever the tree lies.
REPRODUCIBLE := -ffile-prefix-map=$(CURDIR)=. -ffile-prefix-map=$(BUILD)/src=src -fno-ident
export LC_ALL := C
export SOURCE_DATE_EPOCH := 1577836800

# Fetched packages serve every build directory.
PACKAGES := build/packages
ZYDIS := $(BUILD)/src/zydis
ZYDIS_STAMP := $(ZYDIS)/.stamp
ZYDIS_DEFINES := -DZYAN_NO_LIBC -DZYCORE_STATIC_BUILD -DZYDIS_STATIC_BUILD -DZYDIS_DISABLE_FORMATTER \
    -DZYDIS_DISABLE_ENCODER
ZYDIS_INCLUDES := -isystem $(ZYDIS)/include -isystem $(ZYDIS)/src -isystem $(ZYDIS)/zycore

MBEDTLS := $(BUILD)/src/mbedtls
MBEDTLS_STAMP := $(MBEDTLS)/.stamp
MBEDTLS_USE := -isystem $(MBEDTLS)/include -DMBEDTLS_CONFIG_FILE='"net/mbedtls_config.h"'

LWIP := $(BUILD)/src/lwip
LWIP_STAMP := $(LWIP)/.stamp
LWIP_INCLUDES := -Inet/lwip -isystem $(LWIP)/src/include

# What must be there before anything of ours is compiled.
STAMPS := $(ZYDIS_STAMP) $(LWIP_STAMP) $(MBEDTLS_STAMP)

# Code that runs on the bare machine, before what concerns its linking.
BARE := -std=c17 -ffreestanding -nostdinc -isystem $(compiler_include) -isystem hv/kernel/libc $(ZYDIS_INCLUDES) \
    $(LWIP_INCLUDES) $(MBEDTLS_USE) \
    $(ZYDIS_DEFINES) -Ihv -I. -O2 -g -mno-red-zone -mgeneral-regs-only -fno-omit-frame-pointer \
    -fno-asynchronous-unwind-tables -fcf-protection=none -fno-strict-aliasing $(REPRODUCIBLE)
HV_CFLAGS := $(BARE) -mcmodel=kernel -fno-pic -fno-pie -fstack-protector-strong -mstack-protector-guard=global
HV_LDFLAGS := -nostdlib -static --build-id=none -z noexecstack -z max-page-size=4096 -T linker.ld

EFI_CFLAGS := $(BARE) -fpic -fshort-wchar -fno-stack-protector -fvisibility=hidden -DGNU_EFI_USE_MS_ABI \
    -isystem /usr/include/efi -isystem /usr/include/efi/x86_64
EFI_LDFLAGS := -nostdlib -shared -Bsymbolic -znocombreloc -z noexecstack --build-id=none --no-warn-rwx-segments -L/usr/lib \
    -T /usr/lib/elf_x86_64_efi.lds

# Code that runs in Linux test programs. The sanitizers stop at the first finding: a test must fail.
HOSTED := -std=gnu17 -g -O1 -Ihv -I. -Itests/unit $(ZYDIS_INCLUDES) $(LWIP_INCLUDES) $(MBEDTLS_USE) $(ZYDIS_DEFINES) \
    -fno-omit-frame-pointer \
    -fno-strict-aliasing -D_GNU_SOURCE -DTASUKI_HOST_TEST
SANITIZE := -fsanitize=address,undefined -fno-sanitize-recover=all
UNIT_CFLAGS := $(HOSTED) $(WARNINGS) $(if $(is_clang),,-Wno-format-truncation) $(SANITIZE)
FUZZ_CFLAGS := $(HOSTED) -Wall -Wextra -Werror $(SANITIZE)

# Programs for Linux. What is handed from them to the kernel has 64-bit offsets.
TOOL_CFLAGS := -std=gnu17 -g -O2 -Ihv -I. -D_GNU_SOURCE -D_FILE_OFFSET_BITS=64 -D_FORTIFY_SOURCE=2 -fstack-protector-strong \
    -fno-strict-aliasing -isystem /usr/include/fuse3 $(WARNINGS) $(if $(is_clang),,-Wno-format-truncation) \
    $(REPRODUCIBLE)

# A change of the compiler or its flags rebuilds what they made.
define flags_file
$(BUILD)/$(1).flags: FORCE
	$$(Q)mkdir -p $$(@D); echo '$$(shell $$(CC) --version 2>/dev/null | head -n 1) $(2)' >$$@.new; \
	    if cmp -s $$@.new $$@; then rm $$@.new; else mv $$@.new $$@; fi
endef
.PHONY: FORCE
FORCE:
$(eval $(call flags_file,hv,$(HV_CFLAGS) $(WARNINGS)))
$(eval $(call flags_file,efi,$(EFI_CFLAGS) $(WARNINGS)))
$(eval $(call flags_file,tool,$(TOOL_CFLAGS)))
$(eval $(call flags_file,unit,$(UNIT_CFLAGS)))
$(eval $(call flags_file,fuzz,$(FUZZ_CFLAGS)))

# ---- Sources of others ----

$(ZYDIS_STAMP): tools/sources.lock tools/fetch.py
	$(call say,FETCH)
	$(Q)rm -rf $(ZYDIS) && mkdir -p $(ZYDIS)/zycore $(PACKAGES)
	$(Q)$(PYTHON) tools/fetch.py zydis $(PACKAGES) >$(PACKAGES)/zydis.files
	$(Q)tar -xzf $(PACKAGES)/zydis_*.orig.tar.gz -C $(ZYDIS) --strip-components=1
	$(Q)ln -s /usr/include/Zycore $(ZYDIS)/zycore/Zycore
	$(Q)touch $@

# Hashes. What is left out, and that they touch general registers only, net/mbedtls_config.h says.
$(MBEDTLS_STAMP): tools/sources.lock tools/fetch.py
	$(call say,FETCH)
	$(Q)rm -rf $(MBEDTLS) && mkdir -p $(MBEDTLS) $(PACKAGES)
	$(Q)$(PYTHON) tools/fetch.py mbedtls $(PACKAGES) >$(PACKAGES)/mbedtls.files
	$(Q)tar -xzf $(PACKAGES)/mbedtls_*.orig.tar.gz -C $(MBEDTLS) --strip-components=1 --wildcards '*/include' '*/library' \
	    '*/LICENSE'
	$(Q)touch $@

$(BUILD)/obj/mbedtls/%.o: $(MBEDTLS_STAMP) net/mbedtls_config.h $(BUILD)/hv.flags
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HV_CFLAGS) -w -c -o $@ $(MBEDTLS)/library/$*.c

# As it is, without the distribution's patches: what they change (PPP, sockets, the build) is not built here.
$(LWIP_STAMP): tools/sources.lock tools/fetch.py
	$(call say,FETCH)
	$(Q)rm -rf $(LWIP) && mkdir -p $(LWIP) $(PACKAGES)
	$(Q)$(PYTHON) tools/fetch.py lwip $(PACKAGES) >$(PACKAGES)/lwip.files
	$(Q)tar -xJf $(PACKAGES)/lwip_*.orig.tar.xz -C $(LWIP) --strip-components=1
	$(Q)touch $@

$(BUILD)/obj/lwip/%.o: $(LWIP_STAMP) $(BUILD)/hv.flags
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HV_CFLAGS) -w -c -o $@ $(LWIP)/src/$*.c

# What lwIP's own headers include of ours, which no compiler lists.
LWIP_SETTINGS := net/lwip/lwipopts.h net/lwip/arch/cc.h
$(LWIP_OBJECTS) $(filter $(BUILD)/obj/net/%,$(HV_OBJECTS)): $(LWIP_SETTINGS)

# Without libc Zydis clears its structures by a loop over volatile bytes, which is more than half of what a decode costs;
# it uses volatile for nothing else.
$(BUILD)/obj/zydis/%.o: $(ZYDIS_STAMP) $(BUILD)/hv.flags
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HV_CFLAGS) -w -Dvolatile= -c -o $@ $(ZYDIS)/src/$*.c

# ---- The hypervisor ----

$(BUILD)/obj/%.c.o: %.c $(BUILD)/hv.flags | $(STAMPS)
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HV_CFLAGS) $(WARNINGS) -MMD -MP -c -o $@ $<

$(BUILD)/obj/%.S.o: %.S $(BUILD)/hv.flags
	$(call say,AS)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HV_CFLAGS) -D__ASSEMBLER__ -MMD -MP -c -o $@ $<

# What runs while the guest's GS is in the CPU may neither call nor look at anything by a segment; and no light exit may have
# an indirect branch, since the guest's SPEC_CTRL may still be in the CPU (hv/vmm/light.h).
LIGHT := $(BUILD)/obj/hv/vmm/svm/svm_light.c.o $(BUILD)/obj/hv/vmm/vmx/vmx_light.c.o
$(BUILD)/light.checked: $(LIGHT)
	$(Q)! objdump -dr --no-show-raw-insn $< | grep -E '\scall|%[fg]s|R_X86_64_PLT32' || \
	    { echo "$<: a call or a segment in a light exit" >&2; exit 1; }
	$(Q)! objdump -d --no-show-raw-insn $(LIGHT) | grep -E '\s(call|jmp)\s+\*' || \
	    { echo "an indirect branch in a light exit" >&2; exit 1; }
	$(Q)touch $@

$(BUILD)/parts.a: $(PART_OBJECTS) $(MBEDTLS_OBJECTS)
	$(call say,AR)
	$(Q)rm -f $@ && ar rcsD $@ $^

# Two links: the first tells where the functions are, the second has their names for backtraces.
$(BUILD)/tasuki.elf: $(HV_OBJECTS) $(ZYDIS_OBJECTS) $(LWIP_OBJECTS) $(BUILD)/parts.a linker.ld tools/ksyms.py $(BUILD)/light.checked
	$(call say,LINK)
	$(Q)$(PYTHON) tools/ksyms.py >$(BUILD)/ksyms0.S
	$(Q)$(CC) -c -o $(BUILD)/ksyms0.o $(BUILD)/ksyms0.S
	$(Q)ld $(HV_LDFLAGS) -o $(BUILD)/tasuki0.elf $(HV_OBJECTS) $(ZYDIS_OBJECTS) $(LWIP_OBJECTS) $(BUILD)/ksyms0.o $(BUILD)/parts.a
	$(Q)$(PYTHON) tools/ksyms.py $(BUILD)/tasuki0.elf >$(BUILD)/ksyms.S
	$(Q)$(CC) -c -o $(BUILD)/ksyms.o $(BUILD)/ksyms.S
	$(Q)ld $(HV_LDFLAGS) -o $@ $(HV_OBJECTS) $(ZYDIS_OBJECTS) $(LWIP_OBJECTS) $(BUILD)/ksyms.o $(BUILD)/parts.a
	$(Q)$(PYTHON) tools/ksyms.py --check $(BUILD)/tasuki0.elf $@

# PAYLOAD=FILE puts another ELF into the loader, to test it alone.
PAYLOAD ?= $(BUILD)/tasuki.elf
$(BUILD)/payload.elf: $(PAYLOAD)
	$(Q)objcopy --strip-all $< $@

# ---- The loader ----

$(BUILD)/efi/%.c.o: %.c $(BUILD)/efi.flags
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(EFI_CFLAGS) $(WARNINGS) -MMD -MP -c -o $@ $<

$(BUILD)/efi/%.S.o: %.S $(BUILD)/efi.flags
	$(call say,AS)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(EFI_CFLAGS) -DPAYLOAD_FILE='"$(BUILD)/payload.elf"' -MMD -MP -c -o $@ $<

$(BUILD)/efi/boot/payload.S.o: $(BUILD)/payload.elf

# libefi has a memcpy and a memset of its own, which win.
$(BUILD)/efi/string.o: $(BUILD)/efi/hv/kernel/libc/string.c.o
	$(Q)objcopy --weaken $< $@

$(BUILD)/loader.so: $(BOOT_OBJECTS) $(BUILD)/efi/string.o
	$(call say,LINK)
	$(Q)ld $(EFI_LDFLAGS) -o $@ /usr/lib/crt0-efi-x86_64.o $^ -lefi -lgnuefi
	$(Q)if nm -u $@ | grep .; then echo "$@: these symbols are defined nowhere" >&2; rm $@; exit 1; fi

$(BUILD)/BOOTX64.EFI: $(BUILD)/loader.so
	$(call say,EFI)
	$(Q)objcopy -j .text -j .sdata -j .data -j .dynamic -j .dynsym -j .rel -j .rela -j '.rel.*' -j '.rela.*' -j .reloc \
	    --target efi-app-x86_64 --subsystem=10 $< $@

$(BUILD)/esp.img: $(BUILD)/BOOTX64.EFI boot/tasuki.conf tools/mkesp.py
	$(call say,IMAGE)
	$(Q)$(PYTHON) tools/mkesp.py $@ EFI/BOOT/BOOTX64.EFI=$< tasuki/tasuki.conf=boot/tasuki.conf

# ---- The volume's tool ----

CSV_TOOL_OBJECTS := $(patsubst %,$(BUILD)/tool/%.o,$(CSV_TOOL_SOURCES))

$(BUILD)/tool/%.c.o: %.c $(BUILD)/tool.flags
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(TOOL_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/tasuki-csv: $(CSV_TOOL_OBJECTS)
	$(call say,LINK)
	$(Q)$(CC) -o $@ $^ -lfuse3 -liscsi

# ---- Running it ----

setup:
	$(Q)tools/setup.sh $(BUILD)/packages.log
	$(Q)$(MAKE) --no-print-directory $(STAMPS)

# The guest: Debian's own kernel, taken out of its package, and an initramfs around a static busybox.
$(BUILD)/demo/vmlinuz $(BUILD)/demo/initrd.img &: tools/mkdemo.py tools/sources.lock tools/fetch.py
	@echo "  DEMO	demo/vmlinuz demo/initrd.img"
	$(Q)$(PYTHON) tools/mkdemo.py $(BUILD)/demo $(PACKAGES)

# A guest's disk with a Debian of its own, and the initramfs that goes over to it; debian.versions says what is in it.
$(BUILD)/debian.img $(BUILD)/debian-initrd &: tools/mkdebian.py tools/mkdemo.py tools/sources.lock
	@echo "  DEMO	debian.img debian-initrd (a minute, and 100 MB of packages the first time)"
	$(Q)$(PYTHON) tools/mkdebian.py $(BUILD) $(PACKAGES)

# The node, and the target that it has its volume on, are the matter of tools/scene.py. FRESH=1 makes that volume anew.
run:
	$(Q)tools/setup.sh $(BUILD)/packages.log
	$(Q)$(MAKE) --no-print-directory $(BUILD)/BOOTX64.EFI $(BUILD)/tasuki-csv $(BUILD)/demo/vmlinuz $(BUILD)/debian.img
	$(Q)exec $(PYTHON) tools/run.py --cpu $(CPU) --build $(BUILD) $(if $(FRESH),--fresh)

# From another terminal, while `make run` runs.
target-restart:
	$(Q)$(PYTHON) tools/run.py --build $(BUILD) --restart-target

# ---- Tests ----

$(BUILD)/tests/core/%.o: %.c $(BUILD)/unit.flags | $(STAMPS)
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(UNIT_CFLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/tests/zydis/%.o: $(ZYDIS_STAMP) $(BUILD)/unit.flags
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOSTED) -O2 -w -c -o $@ $(ZYDIS)/src/$*.c

$(BUILD)/tests/mbedtls/%.o: $(MBEDTLS_STAMP) net/mbedtls_config.h $(BUILD)/unit.flags
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOSTED) -O2 -w -c -o $@ $(MBEDTLS)/library/$*.c

$(BUILD)/tests/lwip/%.o: $(LWIP_STAMP) $(BUILD)/unit.flags $(LWIP_SETTINGS)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOSTED) -fsanitize=address -w -c -o $@ $(LWIP)/src/$*.c

$(BUILD)/tests/fuzzlwip/%.o: $(LWIP_STAMP) $(BUILD)/fuzz.flags $(LWIP_SETTINGS)
	$(Q)mkdir -p $(@D)
	$(Q)clang $(HOSTED) -fsanitize=address,fuzzer-no-link -w -c -o $@ $(LWIP)/src/$*.c

# An archive holds the cores that compile, by their paths (two may have one name), so that one that does not takes down
# only the tests that need it.
# $(call core_archive,NAME,OBJECTS): build/tests/NAME.a
define core_archive
.PHONY: $(1)-objects
$(1)-objects: $(2)
$(BUILD)/tests/$(1).a: FORCE
	$$(Q)mkdir -p $$(@D)
	-$$(Q)$$(MAKE) --no-print-directory -k $(1)-objects
	$$(Q)rm -f $$@.new && ar rcsDP $$@.new $$$$(ls -d $(2) 2>/dev/null)
	$$(Q)if cmp -s $$@.new $$@; then rm $$@.new; else mv $$@.new $$@; fi
endef
$(patsubst %.c,$(BUILD)/tests/core/%.o,$(filter net/%,$(CORE_SOURCES)) tests/unit/test_network.c): $(LWIP_SETTINGS)
CORE_C := $(CORE_SOURCES) $(sort $(wildcard tests/unit/fake_*.c))
ZYDIS_HOSTED := $(patsubst %,$(BUILD)/tests/zydis/%.o,$(ZYDIS_NAMES))
MBEDTLS_HOSTED := $(patsubst %,$(BUILD)/tests/mbedtls/%.o,$(MBEDTLS_NAMES))
# $(call lwip_hosted,FOLDER)
lwip_hosted = $(patsubst %,$(BUILD)/tests/$(1)/%.o,$(LWIP_NAMES))
$(eval $(call core_archive,core,$(patsubst %.c,$(BUILD)/tests/core/%.o,$(CORE_C)) $(ZYDIS_HOSTED) $(MBEDTLS_HOSTED) \
    $(call lwip_hosted,lwip)))
$(eval $(call core_archive,fuzzcore,$(patsubst %.c,$(BUILD)/tests/fuzzcore/%.o,$(CORE_C)) $(ZYDIS_HOSTED) $(MBEDTLS_HOSTED) \
    $(call lwip_hosted,fuzzlwip)))

$(UNIT_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/tests/core/tests/%.o $(BUILD)/tests/core.a
	$(call say,LINK)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) -o $@ $< $(BUILD)/tests/core.a -lcmocka

$(DIFFERENTIAL_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/tests/core/tests/%.o $(BUILD)/tests/core.a \
    $(patsubst %.c,$(BUILD)/tests/core/%.o,$(DIFFERENTIAL_PARTS))
	$(call say,LINK)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SANITIZE) -o $@ $(filter %.o,$^) $(BUILD)/tests/core.a -lunicorn -lcmocka

# Fuzz targets are clang's whatever builds the rest.
$(BUILD)/tests/fuzzcore/%.o: %.c $(BUILD)/fuzz.flags | $(STAMPS)
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)clang $(FUZZ_CFLAGS) -fsanitize=fuzzer-no-link -MMD -MP -c -o $@ $<

$(FUZZ_PROGRAMS): $(BUILD)/tests/%: $(BUILD)/tests/fuzzcore/tests/%.o $(BUILD)/tests/fuzzcore.a
	$(call say,LINK)
	$(Q)mkdir -p $(@D)
	$(Q)clang $(SANITIZE) -fsanitize=fuzzer -o $@ $< $(BUILD)/tests/fuzzcore.a

test-programs: $(UNIT_PROGRAMS) $(DIFFERENTIAL_PROGRAMS) $(FUZZ_PROGRAMS)

# Power cuts on the volume, by the million; `make unit` has a hundred thousand of them, with sanitizers, which these are without.
CRASH_SOURCES := $(sort $(wildcard csv/*.c tests/unit/fake_csv_*.c) $(patsubst %,hv/kernel/%.c,text status crc32c))
CRASH_PROGRAMS := $(patsubst %,$(BUILD)/crash/test_csv_%,crash model)
$(BUILD)/crash/%.o: %.c $(BUILD)/unit.flags
	$(call say,CC)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(HOSTED) -O2 $(WARNINGS) $(if $(is_clang),,-Wno-format-truncation) -MMD -MP -c -o $@ $<

$(CRASH_PROGRAMS): $(BUILD)/crash/%: $(BUILD)/crash/tests/unit/%.o $(patsubst %.c,$(BUILD)/crash/%.o,$(CRASH_SOURCES))
	$(call say,LINK)
	$(Q)$(CC) -o $@ $^ -lcmocka

crash: $(CRASH_PROGRAMS)
	$(Q)CSV_CRASH_RANDOM=$(or $(CRASH_RANDOM),2500) CSV_CRASH_LEAST=$(if $(CRASH_RANDOM),0,2000000) $(BUILD)/crash/test_csv_crash
	$(Q)CSV_MODEL_STEPS=$(or $(MODEL_STEPS),3000000) $(BUILD)/crash/test_csv_model

unit fuzz system:
	$(Q)$(PYTHON) tools/runtests.py --build $(BUILD) $@

test:
	$(Q)tools/setup.sh $(BUILD)/packages.log
	$(Q)$(PYTHON) tools/runtests.py --build $(BUILD) build unit fuzz system

bench:
	$(Q)tools/setup.sh $(BUILD)/packages.log
	$(Q)$(MAKE) --no-print-directory all guests $(BUILD)/demo/vmlinuz
	$(Q)$(PYTHON) tools/bench.py --build $(BUILD)

# What a volume costs a request over the disk below it, in instructions; prints NAME,UNIT,VALUE.
VOLUME_PATH_SOURCES := tests/peer/volume_path.c tests/unit/fake_csv_disk.c tests/unit/fake_kernel.c $(sort $(wildcard csv/*.c)) \
    $(patsubst %,hv/kernel/%.c,text status crc32c)
$(BUILD)/volume_path: $(VOLUME_PATH_SOURCES) $(wildcard hv/volume/*.[ch] csv/*.h tests/unit/fake_*.h)
	$(call say,LINK)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(filter-out -O1,$(HOSTED)) $(WARNINGS) $(if $(is_clang),,-Wno-format-truncation) -O2 -mgeneral-regs-only -o $@ $(VOLUME_PATH_SOURCES)

clean:
	$(Q)rm -rf $(BUILD)

# Small guests, where there are any, come with rules of their own.
-include tests/guests/guests.mk
-include $(wildcard $(patsubst %.o,%.d,$(HV_OBJECTS) $(PART_OBJECTS) $(BOOT_OBJECTS) $(CSV_TOOL_OBJECTS)))
-include $(shell find $(wildcard $(BUILD)/tests $(BUILD)/crash) /dev/null -name '*.d')
