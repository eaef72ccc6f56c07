#!/usr/bin/env bash
# asan.sh - the Python tests, on an extension module built with the address and undefined-behaviour sanitizers.
#
#   tests/asan.sh [pytest argument ...]
#
#   $PYTHON   the interpreter (default: python3); needs cffi, setuptools, pytest, hypothesis and pytest-benchmark
#   $CC       gcc
#
# Without arguments: the core of the tests, about five minutes on two idle CPUs.  The interpreter itself is not
# instrumented, but its memory comes from the sanitizer's malloc, so what our code does with it is checked.  Any
# report fails the run, also one of a child that a test has started.
#
#   detect_leaks=0   the interpreter leaves objects behind at exit, and goroutine stacks are no roots
#   detect_stack_use_after_return=0   fake stacks would hide the real one from what measures and scans stacks
#   handle_segv=0 ...  the runtime's handlers and faulthandler's are tested, not the sanitizer's
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
cc=${CC:-gcc}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$root" && tar -c --exclude=.git --exclude=build --exclude='*.so' --exclude=__pycache__ .) | tar -x -C "$work"
cd "$work"
flags="-fsanitize=address,undefined -fno-sanitize=alignment -fno-omit-frame-pointer -g"
CC=$cc CFLAGS="$flags -fno-lto" LDFLAGS="-fsanitize=address,undefined -fno-lto" \
  "$python" setup.py -q build_ext --inplace

[ $# -gt 0 ] || set -- tests/test_{chan,select,sync,goroutine,run,handoff,foreign,fork,excepthook,once,errqueue,identity,selfcheck,time,hook_time,hook_sem,hook_poll,hook_fd,hook_child,hook_name}.py
files=()
for name in "$@"; do
  case $name in tests/*.py) [ -e "$name" ] && files+=("$name") ;; *) files+=("$name") ;; esac
done

status=0
LD_PRELOAD=$($cc -print-file-name=libasan.so) PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 \
  ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0:allocator_may_return_null=1:log_path="$work/report" \
  UBSAN_OPTIONS=print_stacktrace=1:log_path="$work/report" \
  "$python" -m pytest -q -p no:cacheprovider "${files[@]}" || status=$?
for report in "$work"/report.*; do
  [ -e "$report" ] || break
  status=1
  echo "--- a report of the sanitizer"
  head -n 60 "$report"
done
exit $status
