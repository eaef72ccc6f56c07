/* chaos.c - GMPRT_CHAOS=seed: yields at random points and queues in random order.
 *
 * For tests: interleavings that a quiet scheduler hardly ever shows become common.  Off, it costs one
 * predictable branch per channel operation. */
#include <stdlib.h>

#include "base/number.h"
#include "sched/park.h"
#include "sched/chaos.h"

bool chaos_on;
static uint64_t chaos_seed;

void chaos_init(void) {
  const char *env = getenv("GMPRT_CHAOS");
  if (!env || !*env) return;
  uint64_t seed = 0;
  number_read(&env, &seed);
  chaos_seed = seed * 0x9e3779b97f4a7c15u + 1;
  chaos_on = chaos_seed != 0;
}

static uint32_t chaos_rand(uint32_t n) {
  static _Thread_local uint64_t state;
  if (!state) state = chaos_seed ^ ((uint64_t)(uintptr_t)&state * 0x9e3779b97f4a7c15u);
  return fastrandn(&state, n);
}

noinline bool chaos_flip(void) { return chaos_rand(2); }

/* The first thing in a function of the interfaces that may park: one time in four, let others run.  There anybody must
 * expect it.  Inside, callers rely on holding the host lock from one look at their objects to the next, until
 * they park; so chaos would show what cannot happen without it.  For the same reason not in what never waits
 * (trylock, select with a default).
 *
 * Not for a hosted goroutine in an operation of a native object: it has dropped the host lock. */
noinline void chaos_point_slow(bool hosted) {
  G *gp = curg();
  if (gp && (gp->kind == GK_HOST) == hosted && chaos_rand(4) == 0) gosched();
}
