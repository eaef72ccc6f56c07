/* time.c - timers: a 4-ary heap per P and one in L, each with its lock.
 *
 * A heap entry copies `when`, so that sifting touches no timer; the timer knows its index, so stopping
 * one is a sift and no search.  (Go marks stopped timers and cleans up later, because its heaps may be
 * changed only by their P.  Ours have a lock of their own anyway: L's is shared by all Ms.)
 *
 * Who runs timers: the M that looks for work (its P's heap and L's), the driver of L every 61st pick and
 * when L is empty, the M that sleeps in the poller, and sysmon when all Ms are busy.
 *
 * An insert that becomes the earliest must shorten the sleep of whoever sleeps in the poller:
 *   insert:  publish next; fence; read polluntil     sleeper:  publish polluntil; fence; read all nexts
 * One of the two sees the other.
 *
 * Room in the heap is reserved before a goroutine parks, because the lander, who inserts, must not
 * allocate. */
#include <stdlib.h>
#include <time.h>

#include "runtime2.h"

static uint64_t tick0;
static int64_t time0;

int64_t nanotime(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

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

/* ---- the heap: ts->lock held ---------------------------------------------------------------------- */

static inline void place(timers *ts, int32_t i, int64_t when, timer *t) {
  ts->heap[i].when = when;
  ts->heap[i].t = t;
  store_rlx(&t->index, i);
}

static void siftup(timers *ts, int32_t i) {
  int64_t when = ts->heap[i].when;
  timer *t = ts->heap[i].t;
  while (i > 0) {
    int32_t parent = (i - 1) / 4;
    if (ts->heap[parent].when <= when) break;
    place(ts, i, ts->heap[parent].when, ts->heap[parent].t);
    i = parent;
  }
  place(ts, i, when, t);
}

static void siftdown(timers *ts, int32_t i) {
  int64_t when = ts->heap[i].when;
  timer *t = ts->heap[i].t;
  for (;;) {
    int32_t first = 4 * i + 1, least = -1;
    int64_t w = when;
    for (int32_t c = first; c < first + 4 && c < ts->len; c++) {
      if (ts->heap[c].when < w) {
        w = ts->heap[c].when;
        least = c;
      }
    }
    if (least < 0) break;
    place(ts, i, w, ts->heap[least].t);
    i = least;
  }
  place(ts, i, when, t);
}

static void publish_next(timers *ts) {
  store_rlx(&ts->next, ts->len ? ts->heap[0].when : INT64_MAX);
}

static void heap_remove(timers *ts, int32_t i) {
  /* Release: the owner that sees -1 may announce the timer anew, after what we have read of it. */
  store_rel(&ts->heap[i].t->index, -1);
  int32_t last = --ts->len;
  if (i != last) {
    place(ts, i, ts->heap[last].when, ts->heap[last].t);
    siftup(ts, i);
    siftdown(ts, load_rlx(&ts->heap[i].t->index));
  }
  publish_next(ts);
}

/* ---- operations ------------------------------------------------------------------------------------ */

/* Promises room for n more timers. false: no memory. */
bool timers_reserve_many(timers *ts, int32_t n) {
  spin_lock(&ts->lock);
  int64_t need = (int64_t)ts->len + ts->reserved + n, cap = ts->cap ? ts->cap : 64;
  while (cap < need) cap *= 2;
  bool ok = cap <= INT32_MAX;
  if (ok && cap > ts->cap) {
    void *more = realloc(ts->heap, (size_t)cap * sizeof *ts->heap);
    if ((ok = more != NULL)) {
      ts->heap = more;
      ts->cap = (int32_t)cap;
    }
  }
  if (ok) ts->reserved += n;
  spin_unlock(&ts->lock);
  return ok;
}

bool timers_reserve(timers *ts) { return timers_reserve_many(ts, 1); }

void timers_unreserve(timers *ts) {
  spin_lock(&ts->lock);
  ts->reserved--;
  spin_unlock(&ts->lock);
}

/* A goroutine is about to park with a deadline, room is reserved: the lander adds t, after it has opened the
 * wait.  Whoever claims the wait in between lets the owner run before t is added; its timer_del waits for
 * that, or a stale entry would stay behind. */
void timer_announce(timers *ts, timer *t, uint64_t seq) {
  store_rlx(&t->ts, ts);
  t->seq = seq;
  store_rlx(&t->index, -2);
}

/* The lander does not add it after all. */
void timer_disarm(timer *t) {
  timers_unreserve(load_rlx(&t->ts));
  store_rel(&t->index, -1);
}

/* t is in no heap; room was reserved. */
void timer_add(timers *ts, timer *t, int64_t when) {
  spin_lock(&ts->lock);
  ts->reserved--;
  store_rlx(&t->when, when);
  store_rlx(&t->ts, ts);
  int32_t i = ts->len++;
  place(ts, i, when, t);
  siftup(ts, i);
  bool earliest = ts->heap[0].t == t;
  publish_next(ts);
  spin_unlock(&ts->lock);
  if (!earliest) return;
  fence();
  if (load_rlx(&sched.lastpoll) == 0) {
    int64_t until = load_rlx(&sched.polluntil);
    if (until > when) netpollbreak();
  }
}

/* true: it was waiting, and will not fire.  false: it has fired, is firing, or was in no heap. */
bool timer_del(timer *t) {
  for (;;) {
    int32_t at = load_acq(&t->index);
    if (at == -2) {
      cpu_relax();
      continue;
    }
    if (at < 0) return false;
    timers *ts = load_rlx(&t->ts);
    spin_lock(&ts->lock);
    if (load_rlx(&t->ts) != ts) { /* its P died and the heap moved */
      spin_unlock(&ts->lock);
      continue;
    }
    int32_t i = load_rlx(&t->index);
    if (i >= 0) heap_remove(ts, i);
    spin_unlock(&ts->lock);
    return i >= 0;
  }
}

/* Runs what is due, callbacks without the lock.  Returns when the next is due, INT64_MAX: none. */
int64_t timers_run(timers *ts, int64_t now) {
  while (load_rlx(&ts->next) <= now) {
    spin_lock(&ts->lock);
    if (ts->len == 0 || ts->heap[0].when > now) {
      spin_unlock(&ts->lock);
      break;
    }
    timer *t = ts->heap[0].t;
    void (*f)(timer *, uint64_t) = t->f;
    uint64_t seq = t->seq;
    heap_remove(ts, 0);
    spin_unlock(&ts->lock);
    f(t, seq); /* from here on t may be armed again by its owner */
    xadd(&counts.timers_fired, 1);
  }
  return load_rlx(&ts->next);
}

/* The earliest of all heaps. */
int64_t timers_next(void) {
  int64_t next = load_rlx(&sched.l.timers.next);
  for (int32_t i = 0; i < sched.gomaxprocs; i++) {
    int64_t n = load_rlx(&sched.allp[i]->timers.next);
    if (n < next) next = n;
  }
  return next;
}

bool timers_any(void) { return timers_next() != INT64_MAX; }

/* Parks for ns nanoseconds; <= 0 yields. */
wake_t timesleep(int64_t ns) {
  if (ns <= 0) {
    gosched();
    return WAKE_OK;
  }
  int64_t now = nanotime();
  int64_t when = ns > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + ns;
  wake_t r = gopark(NULL, NULL, waitReasonSleep, when);
  return r == WAKE_TIMEOUT ? WAKE_OK : r;
}
