# make demo    the whole path on this machine, from nothing
# make test    the tests but for the long ones
# make test-all  all of them
# make check   lint, types, import contracts, formats, sanitizers, hostile inputs, the Jetson's own processor (emulated) and packages,
#              arithmetic on a CPU with AVX2 alone (emulated), docs
# make wheels  the wheels of a release, in dist/, for x86-64 and 64-bit ARM
# make aarch64 the ARM wheel installed and tested in an emulated system: about an hour, so for the night; writes build/aarch64.log
# make docs    the site, in build/site
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Index of CPU builds of torch, for machines whose index brings CUDA packages.
TORCH_INDEX ?=
# On a Jetson, TensorRT is a system package of JetPack: the environment sees it, and torch is left out.
JETSON := $(wildcard /etc/nv_tegra_release)
TRT := $(if $(shell command -v nvidia-smi),tensorrt,tensorrt-rtx)
ifneq ($(JETSON),)
VENV_FLAGS := --system-site-packages
EXTRAS := capture,cpu
else
EXTRAS := capture,cpu,export,$(TRT)
endif
# Also pins what the build itself uses.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
PIP := $(BIN)/python -m pip install --quiet
TORCH := torch$(shell sed -n 's/^torch\(==.*\)/\1/p' constraints.txt)
NATIVE := $(shell find native CMakeLists.txt -type f -not -path 'native/tests/*')

# A CPU with AVX2 and neither AVX-512 nor VNNI; without what qemu would warn that it lacks. It has no AVX-512 at all.
# Only this process is emulated: what it starts runs on the machine's own CPU.
HASWELL := qemu-x86_64 -cpu Haswell-noTSX,-pcid,-x2apic,-tsc-deadline,-invpcid

# The native tests as a Jetson runs them, but for speed and for the order in which its cores see each other's writes: this
# machine's is stricter. Left out: test_attach_hostile counts descriptors, and qemu keeps those that a message has too many of.
ARM = aarch64-linux-gnu-g++
EMULATED = --parallel 2 --timeout 300 --exclude-regex '^test_attach_hostile$$'

# Seconds for each of the inputs in native/fuzz: 30 in all. What was found before is tried first.
FUZZ_S = 6
FUZZED = $(notdir $(basename $(wildcard native/fuzz/fuzz_*.cpp)))
FUZZER := /usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-$(shell uname -m).a

# Named, because collecting all tests takes longer than running these.
ARITHMETIC = $$(grep -rl --include='*.py' mark.arithmetic tests)

.PHONY: demo test test-all check lint types target arithmetic fuzz emulated wheels aarch64 docs system clean

demo: $(VENV)/installed
	$(BIN)/mmedge demo

# What computes runs on all cores, then what mostly waits runs four at a time, then what keeps time on a machine that has little else
# to do.
# Named, because collecting takes long.
COMPUTING = --numprocesses auto --dist worksteal tests/unit tests/project
WAITING = --numprocesses 4 --dist loadfile $$(grep -rl --include='*.py' mark.parallel tests/integration)
QUIET = --numprocesses 2 --dist loadfile tests/gpu $$(grep -rL --include='test_*.py' mark.parallel tests/integration)

# A shared machine stalls now and then, for a second or more: what fails is run once more, by itself, and must pass then.
pytest = $(BIN)/pytest $(1) || { test $$? -eq 1 && echo "once more, by itself: what failed above" >&2 && \
  $(BIN)/pytest $(1) --numprocesses 0 --last-failed --last-failed-no-failures none; }

test: $(VENV)/tests-installed
	$(call pytest,-m "not long" $(COMPUTING))
	$(call pytest,-m "not long" $(WAITING))
	$(call pytest,-m "not long" $(QUIET))

test-all: $(VENV)/tests-installed
	$(call pytest,$(COMPUTING))
	$(call pytest,$(WAITING))
	$(call pytest,$(QUIET))

# Two at a time; what each says is printed when it ends.
CHECKS = $(if $(filter x86_64,$(shell uname -m)),arithmetic emulated) sanitize-thread sanitize-address types fuzz docs target lint
check: $(VENV)/tests-installed
	@sh scripts/need.sh optional clang++:clang "$(FUZZER):libclang-rt-14-dev" qemu-x86_64:qemu-user $(ARM):g++-aarch64-linux-gnu
	$(MAKE) --no-print-directory --jobs=2 --output-sync=target $(CHECKS)

lint: $(VENV)/tests-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $$(find native examples -name '*.cpp' -o -name '*.hpp' -o -name '*.[ch]')

types: $(VENV)/tests-installed
	$(BIN)/mypy

target: $(VENV)/tests-installed
	$(BIN)/python scripts/resolve_target.py

sanitize-%: $(VENV)/tests-installed
	$(BIN)/cmake -S . -B build/$@ -DMMEDGE_TESTS_ONLY=ON -DMMEDGE_SANITIZE=$* -DMMEDGE_CUDA_ARCHITECTURES=87 >/dev/null
	$(BIN)/cmake --build build/$@ --parallel 2 >/dev/null
	$(BIN)/ctest --test-dir build/$@ --output-on-failure

# Natively they are part of `make test`.
arithmetic: $(VENV)/tests-installed
	if command -v qemu-x86_64 >/dev/null; then $(HASWELL) $(BIN)/python $(BIN)/pytest -m arithmetic $(ARITHMETIC); \
	  else echo "not run: the tests of arithmetic on an emulated AVX2 CPU" >&2; fi

fuzz: $(VENV)/tests-installed
	if command -v clang++ >/dev/null && ls $(FUZZER) >/dev/null 2>&1; then \
	  $(BIN)/cmake -S . -B build/fuzz -DMMEDGE_TESTS_ONLY=ON -DMMEDGE_SANITIZE=fuzzer -DCMAKE_CXX_COMPILER=clang++ >/dev/null && \
	  $(BIN)/cmake --build build/fuzz --parallel 2 >/dev/null && cd build/fuzz && \
	  for input in $(FUZZED); do mkdir -p found/$$input && \
	  { native/fuzz/$$input -max_total_time=$(FUZZ_S) -timeout=10 -max_len=4096 found/$$input >$$input.log 2>&1 || \
	    { cat $$input.log; exit 1; } } && echo "$$input: $$(tail -1 $$input.log)" || exit 1; done; \
	  else echo "not run: the search for inputs that break native code (clang with libFuzzer)" >&2; fi

emulated: $(VENV)/tests-installed
	if command -v qemu-aarch64 >/dev/null && command -v $(ARM) >/dev/null; then \
	  $(BIN)/cmake -S . -B build/aarch64 -DMMEDGE_TESTS_ONLY=ON -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=$(ARM) '-DCMAKE_CROSSCOMPILING_EMULATOR=qemu-aarch64;-L;/usr/aarch64-linux-gnu' >/dev/null && \
	  $(BIN)/cmake --build build/aarch64 --parallel 2 >/dev/null && \
	  $(BIN)/ctest --test-dir build/aarch64 $(EMULATED) --output-on-failure; \
	  else echo "not run: the native tests on an emulated aarch64" >&2; fi

wheels: $(VENV)/tests-installed
	@sh scripts/need.sh required aarch64-linux-gnu-g++:g++-aarch64-linux-gnu
	$(PIP) 'mmedge[$(EXTRAS),test,wheels]'
	$(BIN)/python scripts/wheels.py dist

aarch64: wheels
	@sh scripts/need.sh required debootstrap:debootstrap qemu-aarch64-static:qemu-user-static
	PYTHONPATH=. $(BIN)/python scripts/aarch64.py >build/aarch64.log; code=$$?; cat build/aarch64.log; exit $$code

# Warnings are errors: a link that leads nowhere, a name that does not exist.
docs: $(VENV)/tests-installed
	$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --fresh-env -b html docs build/site
	@echo "build/site/index.html"

system:
	@sh scripts/need.sh required g++:g++ \
	  "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h:python3-dev" \
	  "$$($(PYTHON) -c 'import os; print(os.path.dirname(os.__file__))')/ensurepip:python3-venv"
	@sh scripts/need.sh optional libportaudio.so.2:libportaudio2

$(VENV)/installed: pyproject.toml constraints.txt $(NATIVE) | system
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV_FLAGS) $(VENV)
	$(PIP) --upgrade pip
ifeq ($(JETSON),)
ifneq ($(TORCH_INDEX),)
	$(PIP) --index-url $(TORCH_INDEX) $(TORCH)
else
	$(BIN)/python scripts/torch_guard.py $(TORCH)
	$(PIP) $(TORCH)
endif
endif
	$(PIP) --editable '.[$(EXTRAS)]'
	touch $@

# mmedge is installed by then: only what the extra asks for comes, and nothing is built again.
$(VENV)/tests-installed: $(VENV)/installed
	@sh scripts/need.sh optional ffmpeg:ffmpeg pulseaudio:pulseaudio pacat:pulseaudio-utils \
	  "/usr/lib/*/alsa-lib/libasound_module_pcm_pulse.so:libasound2-plugins" \
	  strace:strace mosquitto:mosquitto chromium:chromium jq:jq systemd-analyze:systemd \
	  gst-launch-1.0:gstreamer1.0-tools "/usr/lib/*/gstreamer-1.0/libgstvideotestsrc.so:gstreamer1.0-plugins-base"
	$(PIP) 'mmedge[$(EXTRAS),test]'
	touch $@

clean:
	rm -rf $(VENV) build
