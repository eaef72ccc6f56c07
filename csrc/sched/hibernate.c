/* hibernate.c - goroutines that have been parked for a while sleep without a stack.
 *
 * A hosted goroutine that waits needs a page of C stack, the page-table page above it, and little of either: some 600
 * bytes of C frames and as many of the host's, of which half are zero.  So what lives of its stack is copied out, and the
 * slot's pages go back to the kernel, with the guard, for a guard keeps the page-table page.  When the goroutine is to run
 * again the bytes return to the same addresses, and nothing in them needs to be changed.
 *
 *     awake -> saved        the driver, host lock held: hibernate_some.  gp->sp is NULL from now on, as that of a
 *                           goroutine that has not begun, so the switch path needs no other question (gbind)
 *     saved -> dropping -> dropped   sysmon, no lock held: madvise costs microseconds
 *     saved -> awake        who runs it, or looks at its stack (rouse), host lock held: the pages are still there
 *     dropped -> awake      the same: the bytes come back.  While sysmon is dropping one waits for it
 *
 * Who wakes a goroutine touches its G and its waiters, never its stack (chan.c, netpoll.c: what is waited for lies in the
 * G), and it is switched to with the host lock held.  So the driver alone decides, and a wake that comes meanwhile
 * needs no protocol: the goroutine is runnable, asleep, and roused when its turn comes.
 *
 * Who may sleep.  Nothing outside may point into the slot: not a waiter (a native channel reads and writes the stack of
 * who waits), and nothing that the host knows of (host->drowsy): C code of others, frames that somebody holds.  A wait
 * that was found unfit is not looked at again.
 *
 * Memory order.  `asleep` is the edge between sysmon and who rouses: madvise happens before `dropped` (release), the copy
 * back after it is seen (acquire).  The batch is sysmon's while ndrop > 0, the driver's else.  An entry that has been
 * roused meanwhile is not in state `saved`; one that has been roused and saved anew is as good as the first.
 *
 * Who stays awake, since it may not sleep or has just been running, and who lies in the pool, gives back what a deep
 * recursion has left below its frames (stack_shrink): the look at all goroutines is the place.  It asks the kernel whether
 * there is any, for 0.3 us.
 *
 * Falling asleep and waking cost some 8 us.  Who is woken soon again waits twice as long for the next time (`light`).
 *
 * Pace.  A pass over all goroutines every DOZE_LOOK_NS at most, and so seldom that it costs no more than a hundredth of the
 * time, unless it finds many.  A crowd is looked at without a rest, also while it is being made: its goroutines must fall
 * asleep as fast as others are started, or they all have stacks at the same time (ltick in licence.c ends the turn for it).
 * What is a crowd depends on the memory that the process may have, its control group's limit: in 100 MiB 30 000 goroutines
 * started at 9000 a second need 68 at the most, and were 22 000 when the kernel killed them for a crowd of 65 536.
 * Nobody has parked or ended since the last pass, and nobody was too young then: none.
 *
 * Rejected: giving back the pages below the live part only (there are none: a goroutine that is parked touched one or
 * two pages), a copy under the G's own lock as Go's shrinkstack does (Gscan: who wakes would wait for it), moving the
 * stack into a smaller slot (C frames cannot move), native goroutines (others write to what lies on their stacks, results and
 * whole structures, whenever they like: what is written to a page that was given back would be lost, and a page that
 * faults instead fails in a system call). */
#include <stdlib.h>

#include "arch/arch.h"
#include "base/clock.h"
#include "sched/chaos.h"
#include "sched/hibernate.h"
#include "sched/sched.h"

enum { AWAKE, SAVED, DROPPING, DROPPED };
enum {
  DOZE_NS = 500000000,       /* parked for so long */
  DOZE_CROWD_NS = 50000000,  /* ... of a crowd: it is made faster than it would fall asleep */
  DOZE_LOOK_NS = 250000000,
  WORTH = 8,                 /* times that, and its sleep was worth it */
  LIGHTEST = 6,              /* doublings of it for who is woken sooner again and again: 32 s */
  LOOKS = 4096,              /* goroutines looked at in one go: 100 us */
  SHRINK_LOOKS = 8,          /* ... as long takes a look at the pages of one that stays awake */
  WORTH_LOOKS = 64,          /* so many for one that falls asleep: 2 us */
  DROP_AT_ONCE = 32,         /* stacks emptied by sysmon, in whose way a wake may be: some 50 us */
};

#if defined(GM_TSAN) || defined(GM_ASAN)
enum { POSSIBLE = false }; /* they keep books of stacks */
#else
enum { POSSIBLE = true };
#endif

/* What lives of a stack, n words from sp on.  A third or half of them are zero: the others are kept, 64 words at a time:
 * which they are, and these. */
typedef struct saved {
  uint64_t *sp;
  void *hidden; /* what the host does not show of it meanwhile */
  uint32_t n;
  uint32_t size : 31; /* of all this */
  uint32_t unguarded : 1;
  uint64_t words[];
} saved;

static struct {
  /* The host lock. */
  uint32_t cursor;
  uint32_t young;  /* met in this pass: to be looked at again */
  uint32_t looked, found; /* in this pass */
  int64_t spent;
  uint64_t stops;  /* at its beginning */
  /* Driver to sysmon. */
  _Atomic bool passing;      /* a pass is not at its end */
  _Atomic bool again;        /* the last one left some */
  _Atomic uint64_t seen;     /* stops when it began */
  _Atomic int64_t next;      /* nanotime of the next look */
} pass;

_Atomic uint64_t hibernations, rousings;
_Atomic uint32_t hibernating;
_Atomic uint64_t hibernated_bytes;

/* How often anybody has parked or ended. */
static uint64_t all_stops(void) {
  uint64_t n = 0;
  lock(&sched.lock);
  for (uint32_t i = 1; i <= sched.nextmid; i++) n += load_rlx(&sched.allm[i]->parks) + load_rlx(&sched.allm[i]->ended);
  unlock(&sched.lock);
  return n;
}

/* ---- to sleep: the driver, host lock held ------------------------------------------------------------------ */

static bool in_slot(const G *gp, const void *p) {
  return (const char *)p >= gp->stk.lo && (const char *)p < gp->stk.lo + gp->stk.size;
}

/* Is something of its stack waited for by others? */
static bool lends_elem(const G *gp) {
  switch (load_rlx(&gp->reason)) {
    case waitReasonChanReceive:
    case waitReasonChanSend: return in_slot(gp, gp->sg.elem);
    case waitReasonSelect:
      for (uint32_t i = 0; i < gp->nwait; i++)
        if (in_slot(gp, gp->sgs[i].elem)) return true;
      return false;
    case waitReasonSignal: return true;
    default: return false;
  }
}

static reads_raw uint32_t nonzero(const uint64_t *at, uint32_t n) {
  uint32_t found = 0;
  for (uint32_t i = 0; i < n; i++) found += at[i] != 0;
  return found;
}

static reads_raw uint64_t *pack(uint64_t *to, const uint64_t *from, uint32_t n) {
  for (uint32_t i = 0; i < n; i += 64) {
    uint64_t *which = to++;
    *which = 0;
    for (uint32_t k = 0; k < 64 && i + k < n; k++) {
      if (!from[i + k]) continue;
      *which |= (uint64_t)1 << k;
      *to++ = from[i + k];
    }
  }
  return to;
}

static void unpack(uint64_t *to, const uint64_t *from, uint32_t n) {
  memset(to, 0, 8 * (size_t)n);
  for (uint32_t i = 0; i < n; i += 64)
    for (uint64_t which = *from++; which; which &= which - 1) to[i + (uint32_t)__builtin_ctzll(which)] = *from++;
}

/* What lives of gp's stack, up to `end`. NULL: no memory. */
static saved *save(const G *gp, const char *end) {
  uint32_t n = (uint32_t)((size_t)(end - (const char *)gp->sp) / 8);
  size_t size = sizeof(saved) + 8 * ((size_t)nonzero(gp->sp, n) + (n + 63) / 64);
  saved *s = malloc(size);
  if (!s) return NULL;
  s->sp = gp->sp;
  s->n = n;
  s->size = (uint32_t)size;
  uint64_t *packed = pack(s->words, gp->sp, n);
  gm_assert((char *)packed == (char *)s + size); /* else somebody writes to it */
  return s;
}

/* false: not now. */
static bool hibernate(G *gp) {
  gp->judged = load_rlx(&gp->wait) & WAIT_SEQMASK;
  if (gp->lockedm || lends_elem(gp)) return false;
  char *end = host->drowsy(gp);
  if (!end) return false;
  saved *s = save(gp, end);
  if (!s) return false;
  s->hidden = host->hide(gp);
  gp->saved = s;
  gp->sp = NULL;
  xadd(&hibernated_bytes, s->size);
  store_rel(&gp->asleep, SAVED);
  return true;
}

static bool crowded(void) { return sched.l.nlive > sched.l.crowd; }

/* Parked for so long.  With chaos whoever parks falls asleep at the next look. */
static int64_t drowsy_after(void) {
  if (unlikely(chaos_on)) return 0;
  return crowded() ? DOZE_CROWD_NS : DOZE_NS;
}

static bool too_young(const G *gp, uint64_t now, int64_t age) {
  return ticks_to_ns(now - load_rlx(&gp->since)) < age << gp->light;
}

/* Parked, awake, and not known to be unfit. */
static bool candidate(const G *gp) {
  return gp->kind == GK_HOST && load_rlx(&gp->status) == Gwaiting && gp->sp &&
         gp->judged != (load_rlx(&gp->wait) & WAIT_SEQMASK);
}

static void end_of_pass(void) {
  gshrink_pooled(GFREE_KEEP); /* others go back whole, sooner or later */
  pass.cursor = 0;
  store_rlx(&pass.again, pass.young > 0);
  pass.young = 0;
  store_rlx(&pass.passing, false);
}

static void begin_pass(void) {
  pass.looked = pass.found = 0;
  pass.spent = 0;
  pass.stops = all_stops();
  store_rlx(&pass.seen, pass.stops);
  store_rlx(&pass.passing, true);
}

/* From now on, until the next look. */
static int64_t rest(void) {
  if (unlikely(chaos_on)) return 1000000;
  if (load_rlx(&pass.passing)) return crowded() ? 0 : 1000000; /* a crowd: as soon as sysmon has those that were found */
  bool worth = pass.found >= pass.looked / WORTH_LOOKS;
  return !worth && pass.spent * 100 > DOZE_LOOK_NS ? pass.spent * 100 : DOZE_LOOK_NS;
}

/* A part of a pass over all goroutines. */
void hibernate_some(void) {
  L *l = &sched.l;
  if (load_acq(&l->ndrop) > 0) return; /* sysmon has not done with the last ones */
  if (host->still && !host->still()) { /* later: a wait is judged once */
    store_rlx(&pass.next, nanotime() + DOZE_LOOK_NS);
    return;
  }
  if (!load_rlx(&pass.passing)) begin_pass();
  uint64_t now = cputicks();
  int64_t age = drowsy_after(), begin = thread_time(); /* what others compute meanwhile is not our cost */
  uint32_t looked = 0, found = 0, most = crowded() ? DROP_BATCH : DROP_BATCH / 4;
  for (; looked < LOOKS && found < most; looked++) {
    G *gp = allg_next(&pass.cursor);
    if (!gp) {
      end_of_pass();
      break;
    }
    if (!candidate(gp)) continue;
    bool young = too_young(gp, now, age);
    if (!young && hibernate(gp)) {
      l->drop[found++] = gp;
      continue;
    }
    pass.young += young;
    if (young && crowded()) continue;
    stack_shrink(&gp->stk, gp->sp);
    looked += SHRINK_LOOKS;
  }
  if (found) {
    xadd(&hibernations, found);
    xadd(&hibernating, found);
    store_rel(&l->ndrop, found);
    sysmon_wake();
  }
  int64_t spent = thread_time() - begin;
  pass.looked += looked;
  pass.found += found;
  pass.spent += spent;
  store_rlx(&pass.next, nanotime() + spent + rest());
}

/* ---- awake again: host lock held ------------------------------------------------------------------------------ */

static void restore(G *gp, saved *s) {
  while (load_acq(&gp->asleep) == DROPPING) os_usleep(0);
  stack_again(&gp->stk, s->unguarded);
  unpack(s->sp, s->words, s->n);
}

/* Who ticks once a second would sleep half of that each time, and pay for it: it is let sleep later and later. */
static void weigh(G *gp) {
  bool worth = !too_young(gp, cputicks(), WORTH * drowsy_after());
  gp->light = worth ? 0 : gp->light < LIGHTEST ? gp->light + 1 : LIGHTEST;
}

/* gp has its stack again. */
void rouse(G *gp) {
  saved *s = gp->saved;
  uint8_t was = SAVED;
  if (!atomic_compare_exchange_strong(&gp->asleep, &was, AWAKE)) {
    restore(gp, s);
    store_rlx(&gp->asleep, AWAKE);
  }
  weigh(gp);
  host->show(gp, s->hidden);
  gp->sp = s->sp;
  gp->saved = NULL;
  xadd(&hibernated_bytes, -(uint64_t)s->size);
  free(s);
  xadd(&rousings, 1);
  xadd(&hibernating, (uint32_t)-1);
}

/* Somebody wants to see all stacks.  They stay: their waits have been judged. */
void rouse_all(void) {
  uint32_t cursor = 0;
  for (G *gp; load_rlx(&hibernating) > 0 && (gp = allg_next(&cursor)) != NULL;)
    if (gp->kind == GK_HOST) roused(gp);
}

/* In a forked child, where gp's goroutine is no more: nobody rouses it, and a sysmon that was dropping its pages is not
 * there, either. */
void never_roused(G *gp) {
  free(gp->saved);
  gp->saved = NULL;
  store_rlx(&gp->asleep, AWAKE);
}

/* ---- sysmon ----------------------------------------------------------------------------------------------------- */

static bool possible(void) { return POSSIBLE && host->drowsy; }

static bool more_to_see(void) {
  return load_rlx(&pass.passing) || load_rlx(&pass.again) || all_stops() != load_rlx(&pass.seen);
}

/* Is it time for a look? */
bool hibernate_due(int64_t now) {
  if (!possible() || now < load_rlx(&pass.next) || load_rlx(&sched.l.ndrop) > 0) return false;
  if (more_to_see()) return true;
  store_rlx(&pass.next, now + DOZE_LOOK_NS);
  return false;
}

/* When all rest: nanotime of the next look; INT64_MAX: none, as long as nobody parks or ends. */
int64_t hibernate_next(void) { return possible() && more_to_see() ? load_rlx(&pass.next) : INT64_MAX; }

/* Of n the stacks of those that still sleep.  Who wants one of them back meanwhile waits: so these are few. */
static void drop(G *const *list, uint32_t n) {
  G *gs[DROP_AT_ONCE];
  stack *stacks[DROP_AT_ONCE];
  uint32_t asleep = 0;
  for (uint32_t i = 0; i < n; i++) {
    uint8_t was = SAVED;
    if (!atomic_compare_exchange_strong(&list[i]->asleep, &was, DROPPING)) continue;
    gs[asleep] = list[i];
    stacks[asleep++] = &list[i]->stk;
  }
  bool unguarded = stacks_empty(stacks, asleep);
  for (uint32_t i = 0; i < asleep; i++) {
    gs[i]->saved->unguarded = unguarded;
    store_rel(&gs[i]->asleep, DROPPED);
  }
}

void hibernate_drop(void) {
  L *l = &sched.l;
  uint32_t n = load_acq(&l->ndrop);
  for (uint32_t i = 0; i < n; i += DROP_AT_ONCE) drop(&l->drop[i], n - i < DROP_AT_ONCE ? n - i : DROP_AT_ONCE);
  store_rel(&l->ndrop, 0);
}
