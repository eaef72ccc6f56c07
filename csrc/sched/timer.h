/* timer.h - deadlines: time.c. */
#ifndef GMPRT_SCHED_TIMER_H
#define GMPRT_SCHED_TIMER_H

#include "base/lockrank.h"

typedef struct timers timers;

enum { TIMER_OUT = -1, TIMER_ANNOUNCED = -2, TIMER_IN = 0 };
/* A deadline, and a node of the heap that it is in. */
typedef struct timer {
  _Atomic int64_t when; /* CLOCK_MONOTONIC, ns; foreign threads: the deadline, read by the judge */
  uint64_t seq;  /* handed to f: what the timer was armed for */
  void (*f)(struct timer *t, uint64_t seq); /* finds what t is part of; runs without the lock */
  _Atomic(timers *) ts; /* the heap it was put in */
  struct timer *up, *kid[2]; /* in that heap: its lock */
  _Atomic int32_t state; /* out of it, announced (it will be added), in it */
} timer;

struct timers {
  spinlock lock; /* guards the heap and every timer in it */
  uint32_t len;
  timer *root;
  _Atomic int64_t next; /* when of the root, INT64_MAX if empty: read without the lock */
};

void timer_announce(timers *ts, timer *t, uint64_t seq);
void timer_disarm(timer *t);
void timer_add(timers *ts, timer *t, int64_t when);
bool timer_del(timer *t);
int64_t timers_run(timers *ts, int64_t now);
int64_t timers_next(void);
bool timers_any(void);

#endif
