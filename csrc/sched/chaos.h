/* chaos.h - GMPRT_CHAOS: chaos.c. */
#ifndef GMPRT_SCHED_CHAOS_H
#define GMPRT_SCHED_CHAOS_H

#include "base/base.h"

extern bool chaos_on;
void chaos_init(void);
void chaos_point_slow(bool hosted);
bool chaos_flip(void);
static inline void chaos_point(bool hosted) {
  if (unlikely(chaos_on)) chaos_point_slow(hosted);
}

#endif
