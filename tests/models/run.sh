#!/bin/sh
# run.sh - checks the models of the protocols with Spin.  Usage: run.sh [model ...]
#
# Each line of the table is a verdict, a model, and its parameters (explained at the head of the model):
#   pass    no error in the whole state space
#   large   the same, worth an optimised build
#   full    the same, checked only with FULL=1 in the environment (twice the time)
#   fail    an error must be found: a rule of the protocol is left out, and the model notices
# Prints one line for each; exits with 1 if a verdict is not the expected one.  Needs spin and gcc ($CC).
set -u

table() {
  cat <<'END'
# The base case, a second call, two Ps, a P retaken without the licence, three Ms.
large licence -DMS=2 -DPS=1 -DCALLS=1
pass  licence -DMS=2 -DPS=1 -DCALLS=2 -DINBOX=1
full  licence -DMS=2 -DPS=1 -DCALLS=2
pass  licence -DMS=2 -DPS=2 -DCALLS=1 -DINBOX=1
full  licence -DMS=2 -DPS=2 -DCALLS=1
pass  licence -DMS=2 -DPS=1 -DCALLS=1 -DINBOX=1 -DPALONE
full  licence -DMS=2 -DPS=1 -DCALLS=1 -DPALONE
pass  licence -DMS=3 -DPS=1 -DCALLS=1 -DINBOX=1
full  licence -DMS=3 -DPS=1 -DCALLS=1
large licence -DMS=3 -DPS=2 -DCALLS=1 -DINBOX=1
# No call at all; a call that must stop nobody; a driver that spawns; forced switching.
pass  licence -DCALLS=0
pass  licence -DCALLS=1 -DWAITCALL
pass  licence -DCALLS=1 -DWAITCALL -DPALONE -DINBOX=1
full  licence -DCALLS=1 -DWAITCALL -DPALONE
pass  licence -DCALLS=1 -DSPAWNS=1 -DINBOX=1
pass  licence -DCALLS=1 -DFORCED -DINBOX=1
full  licence -DCALLS=1 -DFORCED
# Turns: Python and native work on the same Ps.
pass  licence -DCALLS=0 -DNATIVES=2
pass  licence -DCALLS=0 -DNATIVES=1 -DINBOX=1 -DPS=2
pass  licence -DCALLS=0 -DNATIVES=1 -DINBOX=1 -DPALONE
pass  licence -DCALLS=1 -DNATIVES=1 -DINBOX=1
full  licence -DCALLS=1 -DNATIVES=1 -DINBOX=1 -DPS=2
# What each look, CAS and order is for.
fail  licence -DBROKEN_NO_LOOK_AFTER_RELEASE
fail  licence -DBROKEN_NO_LOOK_AFTER_IDLE -DCALLS=0
fail  licence -DBROKEN_NO_LOOK_AFTER_IDLE -DCALLS=1
fail  licence -DBROKEN_NO_LOOK_AFTER_PUSH -DCALLS=0
fail  licence -DBROKEN_NO_LOOK_AT_NATIVE -DCALLS=0 -DNATIVES=1 -DPALONE
fail  licence -DBROKEN_RING_OWNED_BY_LICENCE
fail  licence -DBROKEN_NO_PIN
fail  licence -DBROKEN_NO_RETAKE -DWAITCALL
fail  licence -DBROKEN_LICENCE_NEEDS_P -DWAITCALL -DPALONE

# Channel and deadline, channel alone, deadline alone.
pass  park -DWAITS=2 -DMS=2
pass  park -DWAITS=2 -DMS=3
pass  park -DWAITS=2 -DMS=2 -DSENDERS=2
pass  park -DWAITS=3 -DMS=2 -DSENDERS=2
pass  park -DDEADLINE=0
pass  park -DSLEEP -DSENDERS=0
pass  park -DNOCANCEL=1
pass  park -DNOCANCEL=2 -DSENDERS=2
pass  park -DNOCANCEL=1 -DSLEEP -DSENDERS=0
fail  park -DBROKEN_CANCEL_IGNORES_N -DNOCANCEL=1
fail  park -DBROKEN_CLAIM_DROPS_CANCEL -DNOCANCEL=1
fail  park -DBROKEN_OPEN_BEFORE_SWITCH
fail  park -DBROKEN_TIMER_BEFORE_SWITCH -DCANCELS=0
fail  park -DBROKEN_NO_CLAIM
fail  park -DBROKEN_NO_SEQ
fail  park -DBROKEN_CANCEL_TWO_WORDS -DDEADLINE=0
fail  park -DBROKEN_NO_UNLINK
fail  park -DBROKEN_DISARM_DOES_NOT_WAIT
fail  park -DBROKEN_DISARM_DOES_NOT_WAIT -DSLEEP -DSENDERS=0

# Waits alone, two Ps, with sysmon, with L, calls beside the poller.
pass  idle -DGOS=2 -DWAITS=2
pass  idle -DPS=2 -DGOS=2
pass  idle -DPS=2 -DHOSTED=1
pass  idle -DMS=3 -DPS=2 -DHOSTED=1 -DHOGS=1
pass  idle -DPS=2 -DWAITS=0 -DQUIET=1 -DSYSMON
large idle -DGOS=2 -DSYSMON
large idle -DMS=3 -DGOS=2 -DCALLS=1 -DBREAKS=1
pass  idle -DMS=3 -DPS=2 -DHOSTED=2 -DHCALLS=1 -DWAITS=0
pass  idle -DPS=2 -DGOS=2 -DHOSTED=1 -DWAITS=1
fail  idle -DMS=3 -DPS=2 -DHOSTED=2 -DHCALLS=1 -DWAITS=0 -DBROKEN_DRIVER_FORGETS_POLLER
fail  idle -DMS=3 -DGOS=2 -DCALLS=1 -DBREAKS=1 -DBROKEN_HANDOFF_FORGETS_POLLER
fail  idle -DMS=3 -DGOS=2 -DCALLS=1 -DBREAKS=1 -DBROKEN_NO_LOOK_AFTER_RETAKE -DSC
fail  idle -DGOS=2 -DBREAKS=1 -DBROKEN_NO_LOOK_AFTER_RETAKE
pass  idle -DGOS=2 -DBREAKS=1 -DBROKEN_NO_LOOK_AFTER_RETAKE -DSC
fail  idle -DGOS=3 -DBREAKS=1 -DBROKEN_VAIN_WAKE_UNLOCKED
fail  idle -DGOS=2 -DBROKEN_NO_FENCE_AFTER_PUSH
fail  idle -DGOS=2 -DWAITS=0 -DBROKEN_NO_LOOK_AGAIN
fail  idle -DMS=3 -DPS=2 -DHOSTED=1 -DHOGS=1 -DBROKEN_LOOK_FORGETS_L
fail  idle -DMS=3 -DPS=2 -DHOSTED=1 -DHOGS=1 -DBROKEN_NO_RESETSPINNING
fail  idle -DPS=2 -DWAITS=0 -DQUIET=1 -DSYSMON -DBROKEN_SYSMON_NO_RECHECK
fail  idle -DPS=2 -DWAITS=0 -DQUIET=1 -DSYSMON -DBROKEN_SYSMON_NOT_WOKEN

pass  stw -DBOTH=1 -DWORLD=1
pass  stw -DBOTH=2 -DWORLD=1
pass  stw -DBOTH=1 -DWORLD=2
pass  stw -DRETAKE
pass  stw -DRETAKE -DSHRINK
pass  stw -DPYTHON=2
pass  stw -DPYTHON=2 -DRETAKE -DROUNDS=1 -DWORLD=0
pass  stw -DPYTHON=2 -DRETAKE -DROUNDS=1 -DBOTH=0
full  stw -DPYTHON=2 -DRETAKE -DROUNDS=1
# Each of these rules may be broken alone, not together.
pass  stw -DBROKEN_WORLD_THEN_GIL
pass  stw -DBROKEN_PIN_WAITS_WITH_GIL
pass  stw -DBROKEN_SEMA_WAITS_WITH_GIL -DBOTH=2
fail  stw -DBROKEN_WORLD_THEN_GIL -DBROKEN_PIN_WAITS_WITH_GIL
fail  stw -DBROKEN_WORLD_THEN_GIL -DBROKEN_SEMA_WAITS_WITH_GIL -DBOTH=2
fail  stw -DBROKEN_HOST_BY_REQUEST
fail  stw -DBROKEN_IDLE_NOT_FROZEN
fail  stw -DBROKEN_TRANSIT_IS_STOPPED -DRETAKE
fail  stw -DBROKEN_PIN_LOADS_TWICE
END
}

here=$(cd "$(dirname "$0")" && pwd) || exit 1
for tool in spin "${CC:=gcc}"; do
  command -v "$tool" >/dev/null || { echo "run.sh: $tool not found" >&2; exit 1; }
done
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT
trap 'exit 1' HUP INT TERM
cd "$tmp" || exit 1

# check verdict model defines...: the verdict found is left in $found, the number of states in $states.
check() {
  verdict=$1 model=$2
  shift 2
  found=error states=-
  opt=-O0
  case $verdict in large | full) opt=-O1 ;; esac
  rm -f ./*
  spin "$@" -a "$here/$model.pml" >log 2>&1 || return
  "$CC" $opt -w -DSAFETY -DMEMLIM=2048 -o pan pan.c >>log 2>&1 || return
  ./pan -m5000 -w18 -n >log 2>&1
  states=$(sed -n 's/^ *\([0-9]*\) states, stored.*/\1/p' log)
  # A search that was cut short (depth, memory) has shown nothing.
  if grep -q 'errors: [1-9]' log && grep -Eq 'assertion violated|invalid end state' log; then
    found=fail
  elif grep -q 'errors: 0' log && ! grep -Eq 'not completed|too small|memory limit|out of memory' log; then
    found=pass
  fi
}

bad=0 n=0
while read -r verdict model defines; do
  case $verdict in
    '' | \#*) continue ;;
    full) [ -n "${FULL:-}" ] || continue ;;
  esac
  case " ${*:-$model} " in *" $model "*) ;; *) continue ;; esac
  # shellcheck disable=SC2086  # the defines are separate words
  check "$verdict" "$model" $defines
  n=$((n + 1))
  case $verdict:$found in
    fail:fail | [!f]*:pass | full:pass) mark=ok ;;
    *) mark=BAD bad=$((bad + 1)) ;;
  esac
  printf '%-4s%-6s%9s states  %s\n' "$mark" "$found" "$states" "$model $defines"
  [ "$mark" = ok ] || sed 's/^/    | /' log
done <<END
$(table)
END

[ "$n" -gt 0 ] || { echo "run.sh: no such model: $*" >&2; exit 1; }
echo "$n checks, $bad unexpected"
[ "$bad" -eq 0 ]
