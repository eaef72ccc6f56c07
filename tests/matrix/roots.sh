# roots.sh - minimal Debian systems in folders of this machine, for run.sh and tools/wheels.sh to source.
#
# Of the machine a root sees the certificates, the settings of pip and apt, and the name server.  It has no locale, no
# /etc/hosts, and of packages only what is asked for.

roots=${GMPRT_MATRIX_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/gmprt-matrix}

why_no_roots() {
  [ "$(id -u)" = 0 ] || echo "only root can"
  command -v debootstrap >/dev/null || echo "debootstrap is missing"
}

# ---- arm64 -----------------------------------------------------------------------------------------------
#
# A root of another CPU: the kernel hands its programs to qemu-user, which it has opened beforehand (flag F of
# binfmt_misc), so that nothing of it need be in the root.

arm64_handler=/proc/sys/fs/binfmt_misc/qemu-aarch64
arm64_conf=/usr/lib/binfmt.d/qemu-aarch64.conf

# Nothing if arm64 programs run here, be it in an emulator; else why they do not.
why_no_arm64() {
  [ "$(uname -m)" != aarch64 ] || return 0
  [ -e $arm64_conf ] || { echo "qemu-user-static is missing"; return; }
  [ -e /proc/sys/fs/binfmt_misc/register ] || mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc 2>/dev/null
  [ -e $arm64_handler ] || { cat $arm64_conf >/proc/sys/fs/binfmt_misc/register; } 2>/dev/null
  grep -q '^flags: .*F' $arm64_handler 2>/dev/null || echo "binfmt_misc does not run arm64 programs in a root"
}

# ---- the machine's settings ------------------------------------------------------------------------------

certificates=${SSL_CERT_FILE:-/etc/ssl/certs/ca-certificates.crt}
pip_files=(/etc/pip.conf "$HOME/.config/pip/pip.conf" "$HOME/.pip/pip.conf")
settings=(TERM=dumb DEBIAN_FRONTEND=noninteractive PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore)
while IFS= read -r -d '' variable; do
  case $variable in PIP_* | *_proxy=* | *_PROXY=* | SSL_CERT_FILE=*) settings+=("$variable") ;; esac
done < <(env -0)

# Folders that pip's settings name: packages that lie on this machine.
pip_folders() {
  { cat "${pip_files[@]}" 2>/dev/null; printf '%s\n' "${settings[@]}"; } | grep -oE '(file://)?/[^][:space:]=,"]+' |
    sed -e 's,^file://,,' -e 's,/simple/*$,,' | sort -u | while read -r folder; do
    if [ -d "$folder" ] && [ "$folder" != / ]; then echo "$folder"; fi
  done || true # there may be none
}

copy_settings() {
  local root=$1 file
  mkdir -p "$root/etc/ssl/certs" "$root$(dirname "$certificates")" "$root/root/.config/pip"
  if [ -e "$certificates" ]; then
    cp "$certificates" "$root$certificates"
    cp "$certificates" "$root/etc/ssl/certs/ca-certificates.crt" 2>/dev/null
  fi
  for file in "${pip_files[@]}"; do
    [ ! -e "$file" ] || cp "$file" "$root${file/#$HOME//root}"
  done
  { apt-config dump Acquire | grep -v IndexTargets; echo 'APT::Get::Assume-Yes "true";'; } >"$root/etc/apt/apt.conf.d/99matrix"
  cp /etc/resolv.conf "$root/etc/resolv.conf"
  rm -f "$root/etc/hosts"
}

# ---- roots -----------------------------------------------------------------------------------------------

# inside ROOT COMMAND [FOLDER ...]: runs a command line in a root, with the file systems that a running system has
# and folders of this machine; all that goes when it ends.
inside() {
  local root=$1 command=$2 folder folders=()
  shift 2
  while read -r folder; do folders+=("$folder"); done < <(pip_folders; [ $# = 0 ] || printf '%s\n' "$@")
  for folder in "${folders[@]}"; do mkdir -p "$root$folder"; done
  env -i HOME=/root PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "${settings[@]}" \
    unshare --mount --pid --fork --kill-child bash -c '
      root=$1 command=$2
      shift 2
      mount -t proc proc "$root/proc" && mount --rbind /sys "$root/sys" && mount --rbind /dev "$root/dev" || exit 1
      for folder; do mount --bind "$folder" "$root$folder" || exit 1; done
      exec chroot "$root" bash -c "$command"' \
    bash "$root" "$command" "${folders[@]}"
}

# make_root NAME SUITE INSTALL [CPU]: a minimal Debian, and what the command line INSTALL adds to it.
make_root() {
  local root=$roots/$1 suite=$2 install=$3 cpu=${4:-}
  if [ "$(cat "$root/made" 2>/dev/null)" = "$install" ]; then
    copy_settings "$root"
    return 0
  fi
  rm -rf --one-file-system "$root"
  mkdir -p "$roots/archives" &&
    debootstrap ${cpu:+--arch="$cpu"} --variant=minbase --cache-dir="$roots/archives" "$suite" "$root" &&
    copy_settings "$root" && inside "$root" "apt-get update && $install && apt-get clean" &&
    copy_settings "$root" && echo "$install" >"$root/made"
}

# ---- interpreters ----------------------------------------------------------------------------------------

# The interpreter of a minor version on this machine.
find_python() {
  local version=$1 candidate
  for candidate in "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$version".*/bin/python \
    "$HOME"/.local/share/uv/python/cpython-"$version".*/bin/python3 "$(command -v "python$version" 2>/dev/null)"; do
    [ -x "$candidate" ] || continue
    "$candidate" -c "import sys; sys.exit('%d.%d' % sys.version_info[:2] != '$version')" 2>/dev/null || continue
    echo "$candidate"
    return 0
  done
  return 1
}
