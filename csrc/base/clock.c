/* clock.c - the clock, and the rate at which the CPU counts. */
#include <time.h>

#include "arch/arch.h"
#include "base/base.h"
#include "base/clock.h"

static uint64_t tick0;
static int64_t time0;

static int64_t clock_of(clockid_t which) {
  struct timespec ts;
  clock_gettime(which, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t nanotime(void) { return clock_of(CLOCK_MONOTONIC); }
int64_t thread_time(void) { return clock_of(CLOCK_THREAD_CPUTIME_ID); }

void time_init(void) {
  tick0 = cputicks();
  time0 = nanotime();
}

/* The rate of cputicks() is measured from the start to the first question that comes 50 ms later or more,
 * and stays: a time that stands still is then reported as standing still. */
int64_t ticks_to_ns(uint64_t ticks) {
  static _Atomic double rate; /* ns per tick; several threads may find the same */
  double r = load_rlx(&rate);
  if (r == 0) {
    uint64_t dt = cputicks() - tick0;
    int64_t dn = nanotime() - time0;
    r = dt ? (double)dn / (double)dt : 1;
    if (dn > 50000000) store_rlx(&rate, r);
  }
  return (int64_t)((double)ticks * r);
}
