#!/usr/bin/env bash
# asan.sh - the Python tests, on an extension module built with the address and undefined-behaviour sanitizers.
#
#   tests/asan.sh                       the core: what the runtime's memory, locks, hooks and ends depend on
#   tests/asan.sh --full                all tests
#   tests/asan.sh pytest argument ...
#
#   $PYTHON   the interpreter (default: python3); needs cffi, setuptools, pytest, hypothesis and pytest-benchmark
#   $CC       gcc
#
# The interpreter itself is not instrumented, but its memory comes from the sanitizer's malloc, so what our code does
# with it is checked.  A report, also one of a child that a test has started, is printed after the test during which
# it came, and fails the run (asan_plugin.py, which also knows what tests a sanitizer makes impossible).
#
#   detect_leaks=0   the interpreter leaves objects behind at exit, and goroutine stacks are no roots
#   detect_stack_use_after_return=0   fake stacks would hide the real one from what measures and scans stacks
#   handle_segv=0 ...  the runtime's handlers and faulthandler's are tested, not the sanitizer's
#   use_sigaltstack=0  when a thread ends inside a call, as those of the interpreter do when it is gone, the sanitizer
#                    would take its stack's variables for gone, and report itself; faulthandler has put another stack
set -euo pipefail

root=$(cd "$(dirname "$0")/.." && pwd)
python=${PYTHON:-python3}
cc=${CC:-gcc}
asan=detect_leaks=0:detect_stack_use_after_return=0:handle_segv=0:handle_sigbus=0:handle_sigfpe=0
asan+=:use_sigaltstack=0:allocator_may_return_null=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$root" && tar -c --exclude=.git --exclude=build --exclude='*.so' --exclude=__pycache__ .) | tar -x -C "$work"
cd "$work"
CC=$cc CFLAGS="-fsanitize=address,undefined -fno-sanitize=alignment -fno-omit-frame-pointer -g" \
  LDFLAGS="-fsanitize=address,undefined" \
  GMPRT_DEBUG=1 "$python" setup.py -q build_ext --inplace

core=(
  chan chanmany select sync rwmutex cond aio goroutine cancel scope context group tail fork
  hook_child hook_file hook_fork hook_name hook_poll hook_sem hook_socket hook_time
  memory exit excepthook
)
case ${1:-} in
  "") set -- "${core[@]/#/tests/test_}" && set -- "${@/%/.py}" ;;
  --full) shift && set -- tests "$@" ;;
esac

export ASAN_REPORTS=$work/report
status=0
LD_PRELOAD=$($cc -print-file-name=libasan.so) PYTHONMALLOC=malloc PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=tests \
  ASAN_OPTIONS=$asan:log_path=$ASAN_REPORTS UBSAN_OPTIONS=print_stacktrace=1:log_path=$ASAN_REPORTS \
  "$python" -m pytest -q -p no:cacheprovider -p asan_plugin "$@" || status=$?
reports=("$ASAN_REPORTS".*)
if [ -e "${reports[0]}" ]; then
  status=1
  echo "reports of the sanitizers: ${#reports[@]}"
fi
exit $status
