/* time.c - timers: a heap per P and one in L, each with its lock.
 *
 * The heap is a binary one whose nodes are the timers themselves: it needs no memory of its own, so to arm a timer
 * cannot fail, and a lander may do it.  Node number n (from 1) hangs where the bits of n lead from the root, the
 * highest left out: 0 is the first kid, 1 the second.  Stopping a timer is a sift and no search.  (Go marks stopped
 * timers and cleans up later, because its heaps may be changed only by their P.  Ours have a lock of their own
 * anyway: L's is shared by all Ms.)
 *
 * Who runs timers: the M that looks for work (its P's heap and L's), the driver of L every 61st pick and
 * when L is empty, the M that sleeps in the poller, and sysmon when all Ms are busy.
 *
 * An insert that becomes the earliest must shorten the sleep of whoever sleeps in the poller:
 *   insert:  publish next; fence; read polluntil     sleeper:  publish polluntil; fence; read all nexts
 * One of the two sees the other.
 *
 * Rejected: a 4-ary heap in an array that copies the deadlines.  It touches fewer cache lines, but room in it had to be
 * reserved before each park with a deadline, by a realloc under the lock, and every such park could fail. */
#include "arch/arch.h"
#include "sched/sched.h"
#include "sched/netpoll.h"

/* Whose kid t is: the pointer that points to it. */
static inline timer **link_of(timers *ts, timer *t) {
  timer *up = t->up;
  return up ? &up->kid[up->kid[1] == t] : &ts->root;
}

static inline void adopt(timer *t, timer *first, timer *second) {
  t->kid[0] = first;
  t->kid[1] = second;
  if (first) first->up = t;
  if (second) second->up = t;
}

/* t and the one above it change places. */
static void rise(timers *ts, timer *t) {
  timer *above = t->up, *kids[2] = {above->kid[0], above->kid[1]};
  int side = kids[1] == t;
  *link_of(ts, above) = t;
  t->up = above->up;
  adopt(above, t->kid[0], t->kid[1]);
  kids[side] = above;
  adopt(t, kids[0], kids[1]);
}

static void siftup(timers *ts, timer *t) {
  while (t->up && load_rlx(&t->when) < load_rlx(&t->up->when)) rise(ts, t);
}

static inline timer *earlier(timer *a, timer *b) { return b && load_rlx(&b->when) < load_rlx(&a->when) ? b : a; }

/* The kids above t rise one after the other, and t takes the place of the last: half of what `rise` writes. */
static void siftdown(timers *ts, timer *t) {
  int64_t when = load_rlx(&t->when);
  timer *up = t->up, **link = link_of(ts, t), *kids[2] = {t->kid[0], t->kid[1]};
  while (kids[0]) { /* never the second without the first */
    timer *least = earlier(kids[0], kids[1]);
    if (load_rlx(&least->when) >= when) break;
    int side = least == kids[1];
    timer *other = kids[!side];
    kids[0] = least->kid[0];
    kids[1] = least->kid[1];
    *link = least;
    least->up = up;
    least->kid[!side] = other;
    if (other) other->up = least;
    up = least;
    link = &least->kid[side];
  }
  *link = t;
  t->up = up;
  adopt(t, kids[0], kids[1]);
}

/* Where node number n hangs, and under which. */
static timer **place(timers *ts, uint32_t n, timer **up) {
  timer **at = &ts->root;
  *up = NULL;
  for (int bit = 30 - __builtin_clz(n); bit >= 0; bit--) {
    *up = *at;
    at = &(*at)->kid[n >> bit & 1];
  }
  return at;
}

static void publish_next(timers *ts) {
  store_rlx(&ts->next, ts->root ? load_rlx(&ts->root->when) : INT64_MAX);
}

static void heap_insert(timers *ts, timer *t) {
  timer **at = place(ts, ++ts->len, &t->up);
  *at = t;
  t->kid[0] = t->kid[1] = NULL;
  siftup(ts, t);
  publish_next(ts);
}

static void heap_remove(timers *ts, timer *t) {
  timer *up, **at = place(ts, ts->len--, &up), *last = *at;
  *at = NULL;
  if (last != t) { /* it takes t's place */
    *link_of(ts, t) = last;
    last->up = t->up;
    adopt(last, t->kid[0], t->kid[1]);
    siftup(ts, last);
    siftdown(ts, last);
  }
  publish_next(ts);
  /* Release: the owner that sees this may announce the timer anew, after what we have read of it. */
  store_rel(&t->state, TIMER_OUT);
}

/* A goroutine is about to park with a deadline: the lander adds t, after it has opened the wait.  Whoever
 * claims the wait in between lets the owner run before t is added; its timer_del waits for that, or a stale
 * entry would stay behind. */
void timer_announce(timers *ts, timer *t, uint64_t seq) {
  store_rlx(&t->ts, ts);
  t->seq = seq;
  store_rlx(&t->state, TIMER_ANNOUNCED);
}

/* The lander does not add it after all. */
void timer_disarm(timer *t) { store_rel(&t->state, TIMER_OUT); }

/* t is in no heap. */
void timer_add(timers *ts, timer *t, int64_t when) {
  spin_lock(&ts->lock);
  store_rlx(&t->when, when);
  store_rlx(&t->ts, ts);
  store_rlx(&t->state, TIMER_IN);
  heap_insert(ts, t);
  bool earliest = ts->root == t;
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
    int32_t state = load_acq(&t->state);
    if (state == TIMER_ANNOUNCED) {
      cpu_relax();
      continue;
    }
    if (state == TIMER_OUT) return false;
    timers *ts = load_rlx(&t->ts);
    spin_lock(&ts->lock);
    if (load_rlx(&t->ts) != ts) { /* its P died and the timer moved */
      spin_unlock(&ts->lock);
      continue;
    }
    bool in = load_rlx(&t->state) == TIMER_IN;
    if (in) heap_remove(ts, t);
    spin_unlock(&ts->lock);
    return in;
  }
}

static void run_due(timers *ts, int64_t now) {
  while (load_rlx(&ts->next) <= now) {
    spin_lock(&ts->lock);
    timer *t = ts->root;
    if (!t || load_rlx(&t->when) > now) {
      spin_unlock(&ts->lock);
      break;
    }
    void (*f)(timer *, uint64_t) = t->f;
    uint64_t seq = t->seq;
    heap_remove(ts, t);
    spin_unlock(&ts->lock);
    f(t, seq); /* from here on t may be armed again by its owner */
    xadd(&counts.timers_fired, 1);
  }
}

/* Runs what is due, callbacks without the lock.  Returns when the next is due, INT64_MAX: none.
 *
 * On a goroutine's stack that one is about to park, and has the lock of what it waits for still in its hand: the lander
 * drops it.  A thread is not started below that lock, with others spinning for it.  If what is made ready wants an M
 * and none sleeps, it is sysmon's to start one, as if there were no thread to be had. */
int64_t timers_run(timers *ts, int64_t now) {
  M *m = getm();
  bool parks = m && load_rlx(&m->curg);
  if (parks) m->nothread = true;
  run_due(ts, now);
  if (parks) m->nothread = false;
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
