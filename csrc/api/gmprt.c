/* gmprt.c - the C interface of gmprt.h: checks its arguments, then calls the runtime. */
#include "gmprt.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <time.h>

#include "base/clock.h"
#include "sched/sched.h"
#include "sched/park.h"
#include "sched/chaos.h"
#include "sync/chan.h"
#include "sync/sema.h"

_Static_assert(sizeof(gm_sema) == sizeof(sema), "gm_sema is a sema");
_Static_assert(sizeof(gm_mutex) == sizeof(gomutex), "gm_mutex is a gomutex");
_Static_assert(offsetof(gm_mutex, state) == offsetof(gomutex, state), "layout of gm_mutex");
_Static_assert(offsetof(gm_sema, value) == offsetof(sema, value), "layout of gm_sema");
_Static_assert((int)GM_OK == (int)WAKE_OK && (int)GM_CLOSED == (int)WAKE_CLOSED &&
                   (int)GM_WOULDBLOCK == (int)WAKE_WOULDBLOCK && (int)GM_TIMEOUT == (int)WAKE_TIMEOUT &&
                   (int)GM_CANCELLED == (int)WAKE_CANCELLED &&
                   (int)GM_INTERRUPTED == (int)WAKE_INTERRUPTED && (int)GM_NOMEM == (int)WAKE_NOMEM,
               "gm_result is wake_t");

struct gm_chan {
  hchan c;
};

/* Relative timeout to absolute deadline; 0: none. */
static inline int64_t deadline_of(int64_t timeout) {
  if (timeout <= 0) return 0;
  int64_t now = nanotime();
  return timeout > INT64_MAX - 1 - now ? INT64_MAX - 1 : now + timeout;
}

/* The running native goroutine; NULL in any other thread, a hosted goroutine's included. */
static G *native_g(void) {
  G *gp = curg();
  return gp && gp->kind == GK_NATIVE ? gp : NULL;
}

/* A wait was broken by a signal: shall the caller hear of it? */
static bool interruptible(void) { return host && host->interruptible && host->interruptible(); }

/* A thread without a host waits on when a signal breaks its sleep: there are no handlers to run. */
#define RETRY(call) \
  ({ \
    wake_t r_; \
    do r_ = (call); \
    while (r_ == WAKE_INTERRUPTED && !interruptible()); \
    (gm_result) r_; \
  })

static int start_none(void) { return schedinit() ? 0 : errno; }
int (*gm_start_hook)(void) = start_none; /* a host starts the runtime its own way */
int gm_start(void) { return gm_start_hook(); }

gm_result gm_go(void (*fn)(void *), void *arg) {
  if (!fn) return GM_INVALID;
  if (unlikely(!load_acq(&sched.started)) && gm_start() != 0) return GM_NOMEM;
  return newproc_native(fn, arg) ? GM_OK : GM_NOMEM;
}

void gm_yield(void) {
  if (native_g())
    gosched();
  else
    sched_yield();
}

gm_result gm_sleep(int64_t ns) {
  if (native_g()) return (gm_result)timesleep(ns);
  if (ns > 0) {
    struct timespec ts = {ns / 1000000000, ns % 1000000000};
    while (nanosleep(&ts, &ts) != 0 && errno == EINTR) {
    }
  }
  return GM_OK;
}

uint64_t gm_goid(void) {
  G *gp = curg();
  return gp ? gp->goid : 0;
}

gm_chan *gm_chan_make(size_t elemsize, size_t capacity) {
  if (elemsize == 0 || elemsize > UINT16_MAX) return NULL;
  gm_chan *c = calloc(1, sizeof *c);
  if (c && !chan_init(&c->c, (uint16_t)elemsize, capacity, false)) {
    free(c);
    return NULL;
  }
  return c;
}

void gm_chan_free(gm_chan *c) {
  if (!c) return;
  chan_fini(&c->c);
  free(c);
}

gm_result gm_chan_send(gm_chan *c, const void *elem, int64_t timeout) {
  chaos_point(false);
  int64_t deadline = deadline_of(timeout);
  return RETRY(chansend(&c->c, elem, timeout != 0, deadline, false));
}

gm_result gm_chan_recv(gm_chan *c, void *elem, int64_t timeout) {
  chaos_point(false);
  int64_t deadline = deadline_of(timeout);
  return RETRY(chanrecv(&c->c, elem, timeout != 0, deadline, false));
}

gm_result gm_chan_send_many(gm_chan *c, const void *elems, size_t n, size_t *sent, int64_t timeout) {
  chaos_point(false);
  int64_t deadline = deadline_of(timeout);
  *sent = 0;
  return RETRY(chansend_many(&c->c, elems, n, sent, timeout != 0, deadline, false));
}

gm_result gm_chan_recv_many(gm_chan *c, void *elems, size_t n, size_t *got, int64_t timeout) {
  chaos_point(false);
  int64_t deadline = deadline_of(timeout);
  *got = 0;
  return n == 0 ? GM_OK : RETRY(chanrecv_many(&c->c, elems, n, got, timeout != 0, deadline, false));
}

gm_result gm_chan_close(gm_chan *c) { return (gm_result)chanclose(&c->c); }
size_t gm_chan_len(gm_chan *c) { return load_rlx(&c->c.qcount); }
size_t gm_chan_cap(gm_chan *c) { return c->c.dataqsiz; }
bool gm_chan_closed(gm_chan *c) { return load_acq(&c->c.closed); }

int32_t gm_select(const gm_case *cases, int32_t n, int64_t timeout, gm_result *result) {
  if (timeout != 0) chaos_point(false);
  scase few[16], *k = n <= 16 ? few : malloc((size_t)n * sizeof *k);
  if (!k || n < 0 || n > UINT16_MAX) {
    *result = GM_NOMEM;
    if (k != few) free(k);
    return -1;
  }
  for (int32_t i = 0; i < n; i++)
    k[i] = (scase){cases[i].chan ? &cases[i].chan->c : NULL, cases[i].elem, cases[i].send};
  int64_t deadline = deadline_of(timeout);
  wake_t r;
  int32_t index;
  do index = selectgo(k, n, timeout != 0, deadline, false, &r);
  while (r == WAKE_INTERRUPTED && !interruptible());
  if (k != few) free(k);
  *result = (gm_result)r;
  return index;
}

gm_result gm_mutex_lock(gm_mutex *m, int64_t timeout) {
  chaos_point(false);
  int64_t deadline = deadline_of(timeout);
  return RETRY(gomutex_lock((gomutex *)m, timeout != 0, deadline));
}
bool gm_mutex_trylock(gm_mutex *m) { return gomutex_lock((gomutex *)m, false, 0) == WAKE_OK; }
bool gm_mutex_unlock(gm_mutex *m) { return gomutex_unlock((gomutex *)m); }

gm_result gm_sema_acquire(gm_sema *s, int64_t timeout) {
  chaos_point(false);
  int64_t deadline = deadline_of(timeout);
  return RETRY(semacquire((sema *)s, waitReasonSemacquire, timeout != 0, deadline));
}
void gm_sema_release(gm_sema *s, uint32_t n) { semrelease((sema *)s, n); }

gm_result gm_preemptible(const void *start, const void *end) {
  if (!start || (uintptr_t)start >= (uintptr_t)end) return GM_INVALID;
  return preempt_register(start, end) ? GM_OK : GM_NOMEM;
}

void gm_enter_blocking(void) { entersyscallblock(); }
void gm_exit_blocking(void) { exitsyscall(); }

const gm_api *gm_api_table(void) {
  static const gm_api api = {
      GM_API_VERSION,   sizeof(gm_api),    gm_go,           gm_yield,         gm_sleep,
      gm_goid,          gm_chan_make,      gm_chan_free,    gm_chan_send,     gm_chan_recv,
      gm_chan_close,    gm_chan_len,       gm_chan_cap,     gm_select,        gm_mutex_lock,
      gm_mutex_trylock, gm_mutex_unlock,   gm_sema_acquire, gm_sema_release,  gm_read,
      gm_write,         gm_accept,         gm_close,    gm_enter_blocking, gm_exit_blocking,
      gm_preemptible,   gm_chan_send_many, gm_chan_recv_many,
  };
  return &api;
}
