#!/usr/bin/env bash
# run.sh - the README as a newcomer follows it, on the interpreters that people have.
#
#   tests/matrix/run.sh [--full] [--may-skip] [NAME ...]
#
#   bookworm bookworm-dbg trixie trixie-dbg    Debian's python3 and python3-dbg, each in a root of its own
#   sid-3.14 sid-3.15                          those of Debian's development branch, together in one root
#   sid-3.14-jit sid-3.15-jit                  the same with PYTHON_JIT=1
#   3.11 3.12 3.13 3.14 3.15                   other interpreters of this machine: on PATH, pyenv's, uv's
#   bookworm-arm64 trixie-arm64 sid-3.14-arm64 sid-3.15-arm64   the same for arm64, on another CPU in qemu-user
#   --full       the whole suite; without it the tests whose outcome depends on the interpreter
#   --may-skip   exit 0 where roots cannot be made (not root, no debootstrap), for what was not run
#
# Without names: all the roots but arm64's, and what the machine has.  A root is what `debootstrap --variant=minbase` makes
# and the packages that README.md names: no compiler but that, no locale, no /etc/hosts.  It is kept in
# $GMPRT_MATRIX_ROOTS (~/.cache/gmprt-matrix) and made anew when it is missing or README.md names other packages; sid
# moves, so a root that is kept is the only one that answers as it did yesterday.
# The commands are README.md's, word for word, in what the source archive unpacks to.  Of the machine a root sees the
# certificates, the settings of pip and apt, and the name server.
#
# arm64 in an emulator is slow, so without --full the tests are those of what is made of switches, memory orders and
# system calls: channels, select, locks, cancels and sockets.  What qemu-user cannot do is said where it is skipped.
#
# $JOBS run at a time (2), of those in an emulator one.  The last line is "N passed, N failed", of interpreters.  Logs of failed ones are kept.
set -uo pipefail
cd "$(dirname "$0")/../.."
source=$PWD
jobs=${JOBS:-2}
limit=5400 # seconds for one suite

# Where an interpreter can differ: its thread states, frames and locks, its calls of the C library, its ends.
# Not here: what only exercises the runtime below (channels, their models, storms, the C tests), and real servers.
differing=(
  activate cancel exit fork goroutine hook_file hook_sem identity import interpose locks memory newer preempt run selfcheck
)

differing_arm64=(cancel chan hook_socket select sync)

full= may_skip=
while [[ ${1:-} == --* ]]; do
  case $1 in
    --full) full=1 ;;
    --may-skip) may_skip=1 ;;
    *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0"; exit 2 ;;
  esac
  shift
done

# ---- what README.md says ---------------------------------------------------------------------------------

# The one line of code in its section "Install" that contains a text.
readme() {
  local lines
  lines=$(awk '/^## / { here = /^## Install/ } /^```/ { code = !code; next } here && code' README.md | grep -F -- "$1")
  [ "$(wc -l <<<"$lines")" = 1 ] && [ -n "$lines" ] || { echo "README.md: no one command with '$1'" >&2; exit 1; }
  echo "$lines"
}
packages=$(readme "apt-get install") && environment=$(readme "-m venv") && demo=$(readme "gmprt demo") &&
  pytest=$(readme "pytest") || exit 1

# suite NAME ...: the command that runs these tests.
suite() {
  local command=$pytest name
  for name; do
    [ -e "tests/test_$name.py" ] || { echo "no tests/test_$name.py" >&2; exit 1; }
    command+=" tests/test_$name.py"
  done
  echo "$command"
}
tests=$pytest tests_arm64=$pytest
if [ -z "$full" ]; then
  tests=$(suite "${differing[@]}") && tests_arm64=$(suite "${differing_arm64[@]}") || exit 1
fi

. tests/matrix/roots.sh

# ---- one interpreter -------------------------------------------------------------------------------------

unpack() {
  rm -rf "$1" && mkdir -p "$1" && tar -x -z -C "$1" --strip-components=1 -f "$work"/gmprt-*.tar.gz
}

# commands PYTHON FOLDER TESTS: what a newcomer types, with the python that stands for python3.  The last command must
# not become the first process of a root, as `bash -c` would have it: timeout ends at once where it has no parent
# (coreutils 9.10).
commands() {
  echo "cd $2 && ${environment/python3/$1} || exit; echo \"== \$(python -VV)\";" \
    "$demo || { echo '== the first command failed'; exit 1; }; timeout $limit bash -c '$3'; exit \$?"
}

follow() {
  local name=$1 python
  case $name in
    [0-9]*)
      python=$(find_python "$name") || { echo "== no such interpreter here"; return 1; }
      unpack "$work/$name"
      env -i HOME="$HOME" PATH="$PATH" "${settings[@]}" bash -c "$(commands "$python" "$work/$name" "$tests")"
      ;;
    *)
      local root=$name debian=${name%%-*} install=$packages version cpu= run=$tests
      python=python3
      case $name in *-arm64) cpu=arm64 run=$tests_arm64 ;; esac
      case ${name%-arm64} in
        *-dbg) python=python3-dbg install+=" python3-dbg" ;;
        sid-*) # python3 and its packages are those of one version
          root=sid${cpu:+-$cpu} debian=sid python=${name#sid-} install=${packages// python3-*}
          python=python${python%%-*}
          for version in 3.14 3.15; do install+=" python$version-dev python$version-venv"; done
          ;;
      esac
      (flock 9 && make_root "$root" "$debian" "$install" $cpu) 9>"$roots/.$root.lock" >"$work/$name.made" 2>&1 ||
        { tail -n 20 "$work/$name.made"; echo "== no root"; return 1; }
      unpack "$roots/$root/home/$name"
      [[ $name != *-jit ]] || run="export PYTHON_JIT=1; $run"
      [ "$cpu" != arm64 ] || [ "$(uname -m)" = aarch64 ] || run="export GMPRT_TEST_EMULATOR=qemu-user; $run"
      inside "$roots/$root" "$(commands $python "/home/$name" "$run")"
      ;;
  esac
}

# One row of the table, when it is done.
row() {
  local name=$1 log=$work/$1.log begin=$SECONDS status=0
  follow "$name" >"$log" 2>&1 </dev/null || status=1
  echo $status >"$work/$name.status"
  local last
  last=$(grep -aE '^=* ?([0-9]+ [a-z]+,? ?)+ in [0-9.]+s' "$log" | tail -n 1)
  count() { grep -oE "[0-9]+ $1" <<<"$last" | grep -oE '[0-9]+' || echo 0; }
  local version minutes=$(((SECONDS - begin) * 10 / 60))
  version=$(sed -n 's/^== Python \([0-9][^ ]*\).*/\1/p' "$log" | head -n 1)
  printf '%-22s %6d %6d %7d %7s\n' "$name ${version:-?}" "$(count passed)" \
    $(($(count failed) + $(count errors?))) "$(count skipped)" $((minutes / 10)).$((minutes % 10))
  [ $status = 0 ] && return
  cp "$log" "$kept/$name.log"
  [ -n "$last" ] && grep -aE '^(FAILED|ERROR) ' "$log" || tail -n 15 "$log"
  echo "the whole log: $kept/$name.log"
}

# ---- all of them -----------------------------------------------------------------------------------------

names=("$@")
if [ ${#names[@]} = 0 ]; then
  names=(bookworm bookworm-dbg trixie trixie-dbg sid-3.14 sid-3.15 sid-3.14-jit sid-3.15-jit)
  for version in 3.11 3.12 3.13 3.14 3.15; do find_python $version >/dev/null && names+=("$version"); done
fi
missing=$(why_no_roots) missing_arm64=
case "${names[*]}" in *-arm64*) missing_arm64=$missing$(why_no_arm64) ;; esac
chosen=()
for name in "${names[@]}"; do
  case $name in
    bookworm | bookworm-dbg | trixie | trixie-dbg | sid-3.14 | sid-3.15 | sid-3.14-jit | sid-3.15-jit)
      [ -z "$missing" ] || { echo "$name: no root can be made: $missing"; continue; }
      ;;
    bookworm-arm64 | trixie-arm64 | sid-3.14-arm64 | sid-3.15-arm64)
      [ -z "$missing_arm64" ] || { echo "$name: no root can be made: $missing_arm64"; continue; }
      ;;
    3.11 | 3.12 | 3.13 | 3.14 | 3.15) ;;
    *) echo "no such interpreter: $name" >&2; exit 2 ;;
  esac
  chosen+=("$name")
done
skipped=$((${#names[@]} - ${#chosen[@]}))

mkdir -p "$roots"
work=$(mktemp -d)
kept=$(mktemp -d)
trap 'rm -rf "$work"; rmdir "$kept" 2>/dev/null' EXIT

# The source archive, from what is tracked.
make_archive() {
  local python
  python=$(command -v python3) && "$python" -m venv "$work/build" && mkdir "$work/tree" || return 1
  if [ -e .git ]; then
    git -c safe.directory="$source" ls-files -z | tar -c --null --ignore-failed-read -T - | tar -x -C "$work/tree"
  else
    tar -c --exclude ./venv --exclude ./build --exclude '*.so' . | tar -x -C "$work/tree"
  fi
  "$work/build/bin/pip" install -q setuptools cffi && cd "$work/tree" &&
    "$work/build/bin/python" -c "from setuptools.build_meta import build_sdist; build_sdist('$work')"
}
if [ ${#chosen[@]} -gt 0 ]; then
  (make_archive) >"$work/archive.log" 2>&1 || { cat "$work/archive.log"; echo "no source archive"; exit 1; }
  echo "interpreter            passed failed skipped minutes"
fi
for name in "${chosen[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n; done
  case $name in
    *-arm64) (flock 8; row "$name" 8>&-) 8>"$work/emulator" & ;;
    *) row "$name" & ;;
  esac
done
wait
passed=0 failed=0
for name in "${chosen[@]}"; do
  [ "$(cat "$work/$name.status" 2>/dev/null)" = 0 ] && passed=$((passed + 1)) || failed=$((failed + 1))
done
[ -n "$may_skip" ] || failed=$((failed + skipped))
echo "$passed passed, $failed failed"
[ $failed = 0 ]
