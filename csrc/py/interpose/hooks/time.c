/* time.c - sleeping: clock_nanosleep (time.sleep) and pause. */
#define _GNU_SOURCE

#include "base/clock.h"
#include "py/interpose/hooks/hooks.h"

/* When to wake, on nanotime()'s clock. false: not ours (a clock that may jump, or a bad argument). */
static bool wake_time(clockid_t clock, int flags, const struct timespec *req, int64_t *when) {
  if (req->tv_nsec < 0 || req->tv_nsec >= 1000000000 || req->tv_sec < 0) return false;
  if (clock != CLOCK_MONOTONIC && (clock != CLOCK_REALTIME || flags & TIMER_ABSTIME)) return false;
  *when = timespec_ns(req);
  if (!(flags & TIMER_ABSTIME)) *when += nanotime();
  return true;
}

/* Returns an errno, and leaves errno alone. */
int hook_clock_nanosleep(clockid_t clock, int flags, const struct timespec *req, struct timespec *rem) {
  call c;
  int64_t when;
  if (!wake_time(clock, flags, req, &when) || !call_begin(&c, FAM_SLEEP))
    return real.clock_nanosleep(clock, flags, req, rem);
  call_attach(&c);
  wake_t w = WAKE_TIMEOUT;
  int64_t left = when - nanotime();
  if (left <= 0)
    gosched();
  else
    do w = call_woken(&c, gopark(NULL, NULL, waitReasonSleep, when));
    while (w == WAKE_OK);
  call_detach(&c);
  if (w == WAKE_TIMEOUT) return 0;
  if (w == WAKE_INTERRUPTED && rem && !(flags & TIMER_ABSTIME)) {
    left = when - nanotime();
    if (left < 0) left = 0;
    *rem = (struct timespec){left / 1000000000, left % 1000000000};
  }
  return call_errno(&c, w);
}

/* Until a signal that has a handler. */
int hook_pause(void) {
  call c;
  if (!call_begin(&c, FAM_CHILD)) return real.pause();
  call_attach(&c);
  wake_t w;
  do /* an interrupt may be left from a signal that was handled before the call */
    w = call_woken(&c, gopark(NULL, NULL, waitReasonSignal, 0));
  while (w == WAKE_OK || (w == WAKE_INTERRUPTED && !signals_tripped()));
  call_detach(&c);
  return call_fail(&c, call_errno(&c, w));
}
