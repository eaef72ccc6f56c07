#!/usr/bin/env bash
# run.sh - builds the C tests of the runtime and runs them.
#
#   tests/c/run.sh [-k] [plain|debug|asan|tsan|all] [word ...]
#
#   plain   gcc -O2, as it is shipped
#   debug   gcc -O1 -DGM_DEBUG: lock ranks and the table of status transitions are checked
#   asan    clang, address and undefined-behaviour sanitizers, -DGM_DEBUG
#   tsan    clang, thread sanitizer
#   word    only tests whose name contains it
#   -k      keep the build directory, and print its name
#
# $CC and $CLANG name the compilers, $JOBS how many run at a time (default: the number of CPUs),
# $BUILD the directory to build in (default: a temporary one), $CFLAGS more flags.  For another CPU:
#   CPU=arm64 CC=aarch64-linux-gnu-gcc EMULATOR=qemu-aarch64 \
#     QEMU_LD_PREFIX=/usr/aarch64-linux-gnu tests/c/run.sh debug
# Each build ends with a summary; the last line is "N passed, N failed" over all of them.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
jobs=${JOBS:-$(nproc)}
keep=
[ "${1:-}" = -k ] && keep=1 && shift
what=${1:-plain}
[ $# -gt 0 ] && shift
[ "$what" = all ] && what="plain debug asan tsan"

case ${CPU:-$(uname -m)} in
  amd64 | x86_64) cpu=amd64 ;;
  arm64 | aarch64) cpu=arm64 ;;
  *) echo "run.sh: no switch code for ${CPU:-$(uname -m)}" >&2; exit 2 ;;
esac

build=${BUILD:-}
if [ -z "$build" ]; then
  build=$(mktemp -d)
  [ -n "$keep" ] || trap 'rm -rf "$build"' EXIT
fi
[ -z "$keep" ] || echo "build directory: $build"

flags=(-std=gnu11 -g -fno-strict-aliasing -Wall -Wextra -Werror
  -I"$root/csrc" -I"$root/gmprt/include" -I"$here" ${CFLAGS:-})

# Compiler and flags of a build.
configure() {
  case $1 in
    plain) cc=${CC:-gcc} own=(-O2) ;;
    debug) cc=${CC:-gcc} own=(-O1 -DGM_DEBUG) ;;
    asan) cc=${CLANG:-clang} own=(-O1 -DGM_DEBUG -fno-omit-frame-pointer -fsanitize=address,undefined
      -fno-sanitize-recover=undefined) ;;
    tsan) cc=${CLANG:-clang} own=(-O1 -fno-omit-frame-pointer -fsanitize=thread) ;;
    *) echo "run.sh: unknown build $1" >&2; exit 2 ;;
  esac
}

# Compiles everything once, then links one program for each test file.
compile() {
  local dir=$build/$1 src
  configure "$1"
  mkdir -p "$dir"
  for src in "$root"/csrc/{base,mem,sched,sync,api}/*.c "$root/csrc/arch/$cpu"/*.[cS] "$here"/*.c "$here"/*/*.c; do
    echo "$src"
  done | xargs -P "$jobs" -I{} sh -c \
    'dir=$1 src=$2; shift 2; exec "$@" -c "$src" -o "$dir/$(basename "$(dirname "$src")")-$(basename "$src").o"' \
    sh "$dir" {} "$cc" "${flags[@]}" "${own[@]}"
  local common=()
  for src in "$dir"/*.o; do
    case $src in *_test.c.o | */c-budget_main.c.o) ;; *) common+=("$src") ;; esac
  done
  for src in "$here"/*/*_test.c; do
    "$cc" "${own[@]}" "$dir/$(basename "$(dirname "$src")")-$(basename "$src").o" "${common[@]}" -o "$dir/$(basename "$src" .c)" -pthread -lm
  done
}

# Goroutine stacks are no roots for the leak checker, and what lives on them is not found.
export EMULATOR=${EMULATOR:-}
export ASAN_OPTIONS=detect_leaks=0:abort_on_error=1${ASAN_OPTIONS:+:$ASAN_OPTIONS}
export UBSAN_OPTIONS=print_stacktrace=1${UBSAN_OPTIONS:+:$UBSAN_OPTIONS}
# The fork test needs die_after_fork=0; second_deadlock_stack costs nothing and says more.  Without
# atexit_sleep_ms=0 each process would wait for a second at its end, in case a race is still to come.
export TSAN_OPTIONS=halt_on_error=1:second_deadlock_stack=1:die_after_fork=0:atexit_sleep_ms=0${TSAN_OPTIONS:+:$TSAN_OPTIONS}

total_passed=0 total_failed=0
for name in $what; do
  start=$SECONDS
  compile "$name"
  compiled=$((SECONDS - start))
  # One log for each program: they run side by side.
  for prog in "$build/$name"/*_test; do echo "$prog"; done | xargs -P "$jobs" -I{} sh -c \
    'prog=$1; shift; $EMULATOR "$prog" "$@" >"$prog.log" 2>&1 || true' sh {} "$@"
  passed=0 failed=0
  for log in "$build/$name"/*_test.log; do
    line=$(tail -n 1 "$log")
    if [[ $line =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
      passed=$((passed + BASH_REMATCH[1]))
      failed=$((failed + BASH_REMATCH[2]))
      [ "${BASH_REMATCH[2]}" = 0 ] && continue
    else
      failed=$((failed + 1))
    fi
    echo "--- $name: $(basename "$log" .log)"
    grep -v '^ok ' "$log" || true
  done
  echo "$name: $passed passed, $failed failed (compiled in $compiled s, ran $((SECONDS - start - compiled)) s)"
  total_passed=$((total_passed + passed))
  total_failed=$((total_failed + failed))
done
echo "$total_passed passed, $total_failed failed"
[ "$total_failed" = 0 ]
