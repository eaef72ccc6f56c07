/* gdb_main.c - for test_gdb.py: goroutines that wait, in functions with names to be found in a backtrace. */
#include <stdio.h>
#include <stdlib.h>

#include "gmprt.h"

static gm_chan *never, *full;

static volatile int waiting; /* or about to: with one P nobody sees them in between */

__attribute__((noinline)) void waits_for_a_value(void *arg) {
  int64_t v;
  waiting++;
  gm_chan_recv(arg, &v, -1);
  printf("%lld\n", (long long)v);
}

__attribute__((noinline)) void waits_for_room(void *arg) {
  int64_t v = 1;
  gm_chan_send(arg, &v, -1);
  printf("%lld\n", (long long)v);
}

/* A breakpoint stands here. */
__attribute__((noinline)) void look_now(void *arg) {
  (void)arg;
  __asm__ volatile("" ::: "memory");
}

static void main_goroutine(void *done) {
  for (int i = 0; i < 300; i++) gm_go(waits_for_a_value, never); /* more than lie in one piece of memory */
  while (waiting < 1 + 300) gm_yield();
  look_now(NULL);
  int64_t v = 0;
  gm_chan_send(done, &v, -1);
}

int main(void) {
  int64_t v = 0;
  never = gm_chan_make(8, 0);
  full = gm_chan_make(8, 1);
  gm_chan *done = gm_chan_make(8, 0);
  gm_chan_send(full, &v, -1);
  gm_go(waits_for_a_value, never);
  gm_go(waits_for_room, full);
  gm_sleep(0);
  while (gm_chan_len(full) == 0) gm_yield();
  gm_go(main_goroutine, done);
  gm_chan_recv(done, &v, -1);
  puts("end");
  return 0;
}
