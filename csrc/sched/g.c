/* g.c - life of a G: made, pooled, used again; ids; and its memory given back.
 *
 * Gs come in slabs that are never unmapped and are found by allg_next(), for dumps.  Pools: native Gs per P
 * with a depot in sched; hosted ones on L, under the host lock.  A pooled stack keeps its place in
 * goroutine_main's loop: using it again costs a few stores. */
#include <stdlib.h>
#include <sys/mman.h>

#include "sched/hibernate.h"
#include "sched/sched.h"
#include "sched/park.h"

enum { G_SLAB = G_SLAB_SIZE / sizeof(G), GTABLE = 1 << 15 }; /* slabs: 7 M goroutines */

static struct {
  mutex lock; /* guards the rest; the slabs that there are, are read without it */
  _Atomic uint32_t nslabs;
  G *_Atomic slab[GTABLE];
  uint64_t seq[GTABLE];   /* of the first waits there: behind those of Gs that were there before */
  uint32_t empty[GTABLE]; /* numbers of slabs that nobody is in */
  uint32_t nempty;
  struct {
    uint32_t n, used; /* a slab's number, and how many Gs of it were handed out */
  } newest[2];        /* of native and of hosted Gs: who walks over the slabs with the host lock trusts in a G's kind */
  G *bare;               /* hosted, without stack or host state */
  G *mains;              /* the same, of dead main goroutines of run(): sysmon may be looking at one just now */
} gtable = {.lock = {.rank = rank_gtable}, .newest = {{.used = G_SLAB}, {.used = G_SLAB}}};

void g_init_static(G *gp, gkind kind) {
  memset(gp, 0, sizeof *gp);
  gp->kind = kind;
  gp->timer.state = TIMER_OUT;
  gp->timer.f = goroutine_timeout;
  gp->sg.g = gp;
}

/* gtable.lock held.  false: no memory. */
static bool slab_next(bool hosted) {
  uint32_t n = load_rlx(&gtable.nslabs);
  if (hosted && gtable.nempty > 0) {
    n = gtable.empty[--gtable.nempty];
  } else {
    void *slab = n == GTABLE ? MAP_FAILED
                             : mmap(NULL, G_SLAB_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (slab == MAP_FAILED) return false;
    store_rel(&gtable.slab[n], slab);
    store_rel(&gtable.nslabs, n + 1);
  }
  gtable.newest[hosted].n = n;
  gtable.newest[hosted].used = 0;
  return true;
}

static G *galloc(gkind kind) {
  bool hosted = kind == GK_HOST;
  lock(&gtable.lock);
  G *gp = NULL;
  uint32_t n = 0;
  if (gtable.newest[hosted].used < G_SLAB || slab_next(hosted)) {
    n = gtable.newest[hosted].n;
    gp = &load_rlx(&gtable.slab[n])[gtable.newest[hosted].used++];
  }
  unlock(&gtable.lock);
  if (!gp) return NULL;
  g_init_static(gp, kind);
  gp->slab = n;
  store_rlx(&gp->wait, gtable.seq[n]);
  return gp;
}

/* Walks all Gs ever made; NULL at the end.  Dead ones are the caller's to skip. */
G *allg_next(uint32_t *cursor) {
  uint32_t i = (*cursor)++;
  uint32_t n = load_acq(&gtable.nslabs);
  if (i / G_SLAB >= n) return NULL;
  return &load_acq(&gtable.slab[i / G_SLAB])[i % G_SLAB];
}

void goid_assign(G *gp, uint64_t *cache, uint64_t *end) {
  if (*cache == *end) { /* batches of 16, as Go */
    *cache = xadd(&sched.goidgen, 16) + 1;
    *end = *cache + 16;
  }
  gp->goid = (*cache)++;
}

/* ---- native ------------------------------------------------------------------------------------- */

static G *gmake_native(void) {
  stack stk;
  if (!stack_alloc(STACKS_NATIVE, false, &stk)) return NULL;
  G *gp = galloc(GK_NATIVE);
  if (!gp) {
    stack *untouched = &stk;
    stack_free(STACKS_NATIVE, &stk, stacks_empty(&untouched, 1));
    return NULL;
  }
  gp->stk = stk;
  goroutine_frame(gp);
  store_rel(&gp->status, Gdead);
  return gp;
}

static void bare_push(G **list, G *gp) {
  lock(&gtable.lock);
  gp->schedlink = *list;
  *list = gp;
  unlock(&gtable.lock);
}

static G *bare_pop(G **list) {
  lock(&gtable.lock);
  G *gp = *list;
  if (gp) *list = gp->schedlink;
  unlock(&gtable.lock);
  if (gp) gp->schedlink = NULL;
  return gp;
}

/* A hosted G with a stack of its own size and no host state yet: the main goroutine of run(). */
G *gmake_big(size_t stack) {
  G *gp = bare_pop(&gtable.mains);
  if (!gp && !(gp = galloc(GK_HOST))) return NULL;
  store_rel(&gp->status, Gdead);
  if (!stack_alloc_big(stack, &gp->stk)) {
    bare_push(&gtable.mains, gp);
    return NULL;
  }
  goroutine_frame(gp);
  return gp;
}

/* gp is dead and its stack is left: that is unmapped, for it may be tens of MiB deep. */
void gfree_big(G *gp) {
  goroutine_unframe(gp);
  stack_free_big(&gp->stk);
  gp->stk = (stack){0};
  bare_push(&gtable.mains, gp);
}

static G *gpop(G **list, uint32_t *n) {
  G *gp = *list;
  if (gp) {
    *list = gp->schedlink;
    gp->schedlink = NULL;
    --*n;
  }
  return gp;
}

static void gpush(G **list, uint32_t *n, G *gp) {
  gp->schedlink = *list;
  *list = gp;
  ++*n;
}

/* sched.lock held. */
static G *depot_pop(void) {
  uint32_t n = load_rlx(&sched.ngfree);
  G *gp = gpop(&sched.gfree, &n);
  store_rlx(&sched.ngfree, n);
  return gp;
}
static void depot_push(G *gp) {
  uint32_t n = load_rlx(&sched.ngfree);
  gpush(&sched.gfree, &n, gp);
  store_rlx(&sched.ngfree, n);
}

/* pp NULL: the caller has no P (a foreign thread). */
G *gfget_native(P *pp) {
  G *gp = pp ? gpop(&pp->gfree, &pp->ngfree) : NULL;
  if (gp) return gp;
  if (load_rlx(&sched.ngfree) > 0) {
    lock(&sched.lock);
    gp = depot_pop();
    while (pp && pp->ngfree < GFREE_LOCAL / 2 && sched.gfree)
      gpush(&pp->gfree, &pp->ngfree, depot_pop());
    unlock(&sched.lock);
  }
  return gp ? gp : gmake_native();
}

void gfput_native(P *pp, G *gp) {
  gpush(&pp->gfree, &pp->ngfree, gp);
  if (pp->ngfree < GFREE_LOCAL) return;
  lock(&sched.lock);
  while (pp->ngfree > GFREE_LOCAL / 2)
    depot_push(gpop(&pp->gfree, &pp->ngfree));
  unlock(&sched.lock);
}

/* A P dies: sched.lock held. */
void gfree_flush(P *pp) {
  while (pp->gfree) depot_push(gpop(&pp->gfree, &pp->ngfree));
}

/* ---- hosted: the host lock is held ----------------------------------------------------------------
 *
 * A new goroutine gets its stack when it first runs, not before: one that ends hands its stack, still
 * hot, with the host state on it, to the next new one (gpass), so a thousand short goroutines started at
 * once touch one stack and not a thousand.  The address space is promised at the start, so nothing can
 * fail later.
 *
 * A unit is {sp, stk, host state}; it lies in a G, dead or alive, and moves by exchange.  A G without a
 * stack (a shell) has a host state too: its own, or what it got in exchange.  So there are as many states as
 * Gs, but for the main goroutines of run(), whose states are lent. */

static void gtrim_crowd(void);

static void shell_push(L *l, G *gp) {
  gp->schedlink = l->gshell;
  l->gshell = gp;
}

/* Of the trimmed, the next one. */
static G *spent_pop(L *l) {
  G *gp = load_rlx(&l->spent);
  if (!gp && load_rlx(&l->trimmed)) gp = xchg(&l->trimmed, NULL);
  if (gp) store_rlx(&l->spent, gp->schedlink);
  return gp;
}

static G *shell_pop(L *l) {
  G *gp = l->gshell;
  if (likely(gp != NULL))
    l->gshell = gp->schedlink;
  else if (!(gp = spent_pop(l)))
    return NULL;
  gp->schedlink = NULL;
  return gp;
}

static G *gmake_host(void) {
  G *gp = bare_pop(&gtable.bare);
  if (!gp && !(gp = galloc(GK_HOST))) return NULL;
  store_rel(&gp->status, Gdead);
  if (host->g_init(gp)) return gp;
  bare_push(&gtable.bare, gp);
  return NULL;
}

/* A G for a new goroutine. NULL: no memory. */
G *gfget_host(void) {
  L *l = &sched.l;
  if (l->nlive >= l->nunits + l->npromised) {
    if (!stack_promise(STACKS_HOSTED)) return NULL;
    l->npromised++;
  }
  G *gp = shell_pop(l);
  if (!gp) gp = gpop(&l->gfree, &l->ngfree);
  if (!gp && !(gp = gmake_host())) return NULL;
  l->nlive++;
  gp->light = 0;
  return gp;
}

/* gp's goroutine has ended, its stack is left. */
void gfput_host(G *gp) {
  L *l = &sched.l;
  l->nlive--;
  gpush(&l->gfree, &l->ngfree, gp);
  if (unlikely(l->ngfree >= l->crowd / POOL_SHARE)) gtrim_crowd();
}

static void exchange(G *a, G *b) {
  void *sp = a->sp, *state = load_rlx(&a->host);
  stack stk = a->stk;
  a->sp = b->sp;
  store_rel(&a->host, load_rlx(&b->host)); /* release: sysmon looks through it (host->where) */
  a->stk = b->stk;
  b->sp = sp;
  store_rel(&b->host, state);
  b->stk = stk;
#ifdef GM_TSAN
  void *fiber = a->fiber;
  a->fiber = b->fiber;
  b->fiber = fiber;
#endif
#ifdef GM_ASAN
  void *fake = a->fake_stack;
  a->fake_stack = b->fake_stack;
  b->fake_stack = fake;
#endif
}

/* gp is about to run for the first time: the hottest unit, or a new one; or it sleeps without its stack. */
void gbind(G *gp) {
  L *l = &sched.l;
  if (unlikely(gp->saved != NULL)) {
    rouse(gp);
    return;
  }
  G *carrier = gpop(&l->gfree, &l->ngfree);
  if (carrier) {
    exchange(carrier, gp);
    shell_push(l, carrier);
    return;
  }
  if (!stack_alloc(STACKS_HOSTED, true, &gp->stk)) throw("a promised stack is not there");
  l->npromised--;
  l->nunits++;
  goroutine_frame(gp);
  host->g_bind(gp);
}

/* from's goroutine has ended, to is new: it goes on with from's unit, which need not even be left. */
void gpass(G *from, G *to) {
  exchange(from, to);
  sched.l.nlive--;
  shell_push(&sched.l, from);
}

/* ---- giving memory back ---------------------------------------------------------------------------
 *
 * After a burst most stacks lie idle.  When the process has been idle for a while sysmon asks for them
 * (L.trim), and when a crowd ends they are too many at once: a million that were asleep would need their stacks all
 * at the same time, to end on them.  The driver cuts them off the pool, with the host lock held, in a time that does not
 * depend on their number (L.cold).  To drop the pages costs microseconds each, half a second for 100 000: sysmon does it,
 * which holds neither host lock nor P, a few in each of its rounds.  What is left of them goes to L.trimmed, for
 * the next goroutine that needs a G.  A shell is in one of the lists, never in two.
 *
 * Who is still there a second later (sysmon's shed) loses the host state, too, and is bare; the driver frees some at a
 * time, for that takes the host lock.  Nobody looks at them without it: only sysmon does, at the state of a goroutine that
 * runs, and it has itself put these into the list, when theirs had ended.  (So those in L.gshell keep theirs: with a state
 * that came by exchange sysmon may have been busy just now.)
 *
 * When a slab has only bare Gs its memory goes (gtrim_slabs).  It stays mapped, for it is read without locks: by dumps,
 * which find zeros, as in a G that was never used; and by who has an old waiter's pointer to a G.  That one claims a wait
 * that is long over, and must not meet one of the same number: waits of the next Gs there are counted from where these
 * stopped.  The next Gs there are hosted, too, for who looks at them has the host lock, and has perhaps just read so. */

/* Stacks in the pool that are not for those who have not begun, and not of the hottest. */
static uint32_t surplus(const L *l) {
  uint32_t spare = l->nunits + l->npromised - l->nlive, most = l->ngfree > GFREE_KEEP ? l->ngfree - GFREE_KEEP : 0;
  return spare < most ? spare : most;
}

void gtrim_take(void) {
  L *l = &sched.l;
  uint32_t n = surplus(l);
  if (n == 0 || load_rlx(&l->cold)) return;
  G *last = l->gfree; /* the hottest stay */
  for (uint32_t i = 1; i < l->ngfree - n; i++) last = last->schedlink;
  G *cold = last->schedlink;
  last->schedlink = NULL;
  l->nunits -= n;
  l->ngfree -= n;
  store_rel(&l->cold, cold);
  sysmon_wake();
}

/* The n hottest, at most; the host lock is held. */
void gshrink_pooled(uint32_t n) {
  for (G *gp = sched.l.gfree; gp && n > 0; gp = gp->schedlink, n--) stack_shrink(&gp->stk, gp->sp);
}

static void gtrim_crowd(void) {
  if (surplus(&sched.l) >= sched.l.crowd / POOL_SHARE / 2) gtrim_take();
}

/* Without its stack. */
static void gtrim_push(G *gp) {
  gp->stk = (stack){0};
  G *top = load_rlx(&sched.l.trimmed);
  do gp->schedlink = top;
  while (!atomic_compare_exchange_weak(&sched.l.trimmed, &top, gp));
}

/* sysmon: some of what is cold.  Only it takes from the list, and only an empty one is filled. */
void gtrim_some(void) {
  G *gp = load_acq(&sched.l.cold), *batch[TRIM_BATCH];
  stack *stacks[TRIM_BATCH];
  uint32_t n = 0;
  for (; gp && n < TRIM_BATCH; gp = gp->schedlink) {
    goroutine_unframe(gp);
    batch[n] = gp;
    stacks[n++] = &gp->stk;
  }
  bool unguarded = stacks_empty(stacks, n);
  for (uint32_t i = 0; i < n; i++) {
    stack_free(STACKS_HOSTED, &batch[i]->stk, unguarded);
    gtrim_push(batch[i]);
  }
  store_rel(&sched.l.cold, gp);
}

/* The driver, host lock held: what sysmon has asked for. */
void gtrim_states(void) {
  G *gp;
  for (uint32_t n = 0; n < STATES_BATCH && (gp = spent_pop(&sched.l)); n++) {
    host->g_fini(gp);
    free(gp->sgs);
    gp->sgs = NULL;
    gp->nsgs = gp->nwait = 0;
    bare_push(&gtable.bare, gp);
  }
}

/* Is there one with a host state and no use for it? */
bool gtrim_left(void) { return load_rlx(&sched.l.spent) || load_rlx(&sched.l.trimmed); }

/* gtable.lock held: all in it are bare. */
static void slab_empty(uint32_t n) {
  G *slab = load_rlx(&gtable.slab[n]);
  for (uint32_t i = 0; i < G_SLAB; i++) {
    uint64_t next = (load_rlx(&slab[i].wait) & WAIT_SEQMASK) + WAIT_SEQ;
    if (next > gtable.seq[n]) gtable.seq[n] = next;
  }
  madvise(slab, G_SLAB_SIZE, MADV_DONTNEED);
  gtable.empty[gtable.nempty++] = n;
}

/* Slabs that only bare Gs are in; any thread, no lock held.  50 ns for each that is bare, in which no new G is to be had. */
void gtrim_slabs(void) {
  uint16_t *nbare = calloc(GTABLE, sizeof *nbare);
  if (!nbare) return;
  lock(&gtable.lock);
  for (G *gp = gtable.bare; gp; gp = gp->schedlink) nbare[gp->slab]++;
  for (G **at = &gtable.bare; *at;) {
    if (nbare[(*at)->slab] == G_SLAB)
      *at = (*at)->schedlink;
    else
      at = &(*at)->schedlink;
  }
  for (uint32_t n = 0; n < load_rlx(&gtable.nslabs); n++)
    if (nbare[n] == G_SLAB) slab_empty(n);
  unlock(&gtable.lock);
  free(nbare);
}

/* Around fork: see fork.c. */
void gtable_forklock(bool on) {
  if (on)
    lock(&gtable.lock);
  else
    unlock(&gtable.lock);
}

/* Half changed: the rest of the slab is given up, and so are the Gs without a stack. */
void gtable_afterfork(void) {
  if (!lock_anew(&gtable.lock)) return;
  gtable.newest[0].used = gtable.newest[1].used = G_SLAB;
  gtable.nempty = 0;
  gtable.bare = gtable.mains = NULL;
}
