/* budget_main.c - the fast paths of the runtime, one per run, n times: what .ci/budgets.py counts.
 *
 *   budget_main PATH N
 *
 * All the work happens in native goroutines with GOMAXPROCS=1, so on one thread.  Instructions are counted
 * at two lengths; the difference, divided by that of the lengths, is the price of one round, and what start and
 * end cost falls out. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gmprt.h"

typedef struct work {
  long n;
  gm_sema ended;
  gm_chan *a, *b;
} work;

static void must(gm_result r) {
  if (r != GM_OK) abort();
}
static void go(void (*fn)(void *), work *w) { must(gm_go(fn, w)); }
static void join(work *w, int n) {
  while (n-- > 0) must(gm_sema_acquire(&w->ended, -1));
}

/* yield: two goroutines that yield to each other; a round is one yield of each */
static void yielder(void *arg) {
  work *w = arg;
  for (long i = 0; i < w->n; i++) gm_yield();
  gm_sema_release(&w->ended, 1);
}
static void run_yield(work *w) {
  go(yielder, w);
  go(yielder, w);
  join(w, 2);
}

/* pingpong: there and back over two unbuffered channels */
static void echo(void *arg) {
  work *w = arg;
  for (long i = 0, v; i < w->n; i++) {
    must(gm_chan_recv(w->a, &v, -1));
    must(gm_chan_send(w->b, &v, -1));
  }
  gm_sema_release(&w->ended, 1);
}
static void run_pingpong(work *w) {
  w->a = gm_chan_make(sizeof(long), 0);
  w->b = gm_chan_make(sizeof(long), 0);
  go(echo, w);
  for (long i = 0, v; i < w->n; i++) {
    must(gm_chan_send(w->a, &i, -1));
    must(gm_chan_recv(w->b, &v, -1));
  }
  join(w, 1);
}

/* spawn: start one, wait for its end */
static void ender(void *arg) { gm_sema_release(&((work *)arg)->ended, 1); }
static void run_spawn(work *w) {
  for (long i = 0; i < w->n; i++) {
    go(ender, w);
    join(w, 1);
  }
}

/* buffered: one item through a buffer of 128 */
static void produce(void *arg) {
  work *w = arg;
  for (long i = 0; i < w->n; i++) must(gm_chan_send(w->a, &i, -1));
  gm_sema_release(&w->ended, 1);
}
static void run_buffered(work *w) {
  w->a = gm_chan_make(sizeof(long), 128);
  go(produce, w);
  for (long i = 0, v; i < w->n; i++) must(gm_chan_recv(w->a, &v, -1));
  join(w, 1);
}

/* uncontended: a send and a receive that find room, a mutex that is free */
static void run_uncontended(work *w) {
  gm_mutex m = {0};
  w->a = gm_chan_make(sizeof(long), 1);
  for (long i = 0, v; i < w->n; i++) {
    must(gm_chan_send(w->a, &i, -1));
    must(gm_chan_recv(w->a, &v, -1));
    must(gm_mutex_lock(&m, -1));
    if (!gm_mutex_unlock(&m)) abort();
  }
}

/* select: two cases, of which the peer makes one ready */
static void feed(void *arg) {
  work *w = arg;
  for (long i = 0; i < w->n; i++) must(gm_chan_send(i % 2 ? w->a : w->b, &i, -1));
  gm_sema_release(&w->ended, 1);
}
static void run_select(work *w) {
  w->a = gm_chan_make(sizeof(long), 0);
  w->b = gm_chan_make(sizeof(long), 0);
  go(feed, w);
  long v;
  gm_case cases[] = {{w->a, &v, false}, {w->b, &v, false}};
  for (long i = 0; i < w->n; i++) {
    gm_result r;
    if (gm_select(cases, 2, -1, &r) < 0) abort();
  }
  join(w, 1);
}

/* poll: a select of two cases with a default, nothing ready */
static void run_poll(work *w) {
  w->a = gm_chan_make(sizeof(long), 0);
  w->b = gm_chan_make(sizeof(long), 0);
  long v;
  gm_case cases[] = {{w->a, &v, false}, {w->b, &v, false}};
  for (long i = 0; i < w->n; i++) {
    gm_result r;
    if (gm_select(cases, 2, 0, &r) >= 0) abort();
  }
}

static const struct {
  const char *name;
  void (*run)(work *);
} paths[] = {{"yield", run_yield},       {"pingpong", run_pingpong},       {"spawn", run_spawn},
             {"buffered", run_buffered}, {"uncontended", run_uncontended}, {"select", run_select},
             {"poll", run_poll}};
enum { PATHS = sizeof paths / sizeof paths[0] };

static int chosen;
static gm_sema all_done;
static void driver(void *arg) {
  paths[chosen].run(arg);
  gm_sema_release(&all_done, 1);
}

/* "budget_main list" names the paths. */
int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "list") == 0) {
    for (int i = 0; i < PATHS; i++) puts(paths[i].name);
    return 0;
  }
  static work w;
  w.n = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
  while (argc == 3 && chosen < PATHS && strcmp(paths[chosen].name, argv[1]) != 0) chosen++;
  if (w.n <= 0 || chosen == PATHS) {
    fprintf(stderr, "usage: budget_main list | PATH N\n");
    return 2;
  }
  setenv("GOMAXPROCS", "1", 1);
  if (gm_start() != 0) return 1;
  must(gm_go(driver, &w));
  must(gm_sema_acquire(&all_done, -1));
  return 0;
}
