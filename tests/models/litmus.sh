#!/bin/sh
# litmus.sh - checks the pairs "one of the two sees the other" on ARMv8.0 with herd7.  Usage: litmus.sh [test ...]
#
# The Spin models are sequentially consistent, or have store buffers as x86 does (idle).  These are the places where a
# CPU with exclusive loads and stores may do more: pass the store half of a read-modify-write, or swap two stores.
# Each line of the table is a verdict, a test in litmus/, and what sed(1) makes of it:
#   never      the outcome at the end of the test cannot be
#   sometimes  it can: without this fence or order a wake-up is lost
# Prints one line for each; exits with 1 if a verdict is not the expected one.  Needs herd7 ($HERD7, with options).
set -u

table() {
  cat <<'END'
never     wake
sometimes wake   s/^ DMB ISH/ NOP/
sometimes wake   s/| DMB ISH/| NOP/
never     taken
sometimes taken  s/^ LDAR/ LDR/; /\[X1\]/d
sometimes taken  s/| DMB ISH/| NOP/; s/| LDAR/| LDR/
never     note
sometimes note   s/^ STLR/ STR/
never     errand
sometimes errand s/STLXR/STXR/
sometimes errand s/DMB ISH/NOP/
never     close
sometimes close  s/DMB ISH/NOP/
never     audit
sometimes audit  s/^ DMB ISH/ NOP/
sometimes audit  s/| DMB ISH/| NOP/
never     needm
sometimes needm  s/LDAXR W3,.X1./MOV W4,WZR/; s/STLXR W4,/STLR /
never     driver s/^ NOP/ DMB ISH/
sometimes driver
END
}

here=$(cd "$(dirname "$0")" && pwd) || exit 1
herd=${HERD7:-herd7}
command -v "${herd%% *}" >/dev/null || { echo "litmus.sh: $herd not found" >&2; exit 1; }
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM

bad=0 n=0
while read -r verdict name edit; do
  case " ${*:-$name} " in *" $name "*) ;; *) continue ;; esac
  sed "$edit" "$here/litmus/$name.litmus" >"$tmp/$name.litmus"
  # shellcheck disable=SC2086  # the command and its options are separate words
  $herd "$tmp/$name.litmus" >"$tmp/log" 2>&1
  found=$(sed -n 's/^Observation [^ ]* \([A-Za-z]*\) .*/\1/p' "$tmp/log" | tr '[:upper:]' '[:lower:]')
  n=$((n + 1))
  mark=ok
  if [ "$found" != "$verdict" ] || { [ -n "$edit" ] && cmp -s "$tmp/$name.litmus" "$here/litmus/$name.litmus"; }; then
    mark=BAD bad=$((bad + 1))
  fi
  printf '%-4s%-10s%s\n' "$mark" "${found:-error}" "$name $edit"
  [ "$mark" = ok ] || sed 's/^/    | /' "$tmp/log"
done <<END
$(table)
END

[ "$n" -gt 0 ] || { echo "litmus.sh: no such test: $*" >&2; exit 1; }
echo "$n checks, $bad unexpected"
[ "$bad" -eq 0 ]
