/* clock.h - time as the runtime counts it: nanoseconds of the monotonic clock, and ticks of the CPU. */
#ifndef GMPRT_BASE_CLOCK_H
#define GMPRT_BASE_CLOCK_H

#include <stdint.h>

int64_t nanotime(void);              /* CLOCK_MONOTONIC, ns */
int64_t thread_time(void);           /* what the calling thread has computed, ns */
int64_t ticks_to_ns(uint64_t ticks); /* a difference of cputicks() */
void time_init(void);

#endif
