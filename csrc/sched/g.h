/* g.h - G: a goroutine.  Its life, its pools: g.c; its status: gstatus.c; its waits: park.c.
 *
 * Gs are never freed but pooled, as Ms and Ps are: a late reader (sysmon, a timer, a dump) reads stale but typed
 * memory.  Fields are grouped by what guards them. */
#ifndef GMPRT_SCHED_G_H
#define GMPRT_SCHED_G_H

#include "arch/arch.h"
#include "mem/stack.h"
#include "sched/timer.h"
#include "sched/waitq.h"

typedef struct G G;
typedef struct M M;
typedef struct P P;

/* G.status: Go's values and names.  gstatus.c has the table of legal transitions. */
enum { Gidle = 0, Grunnable = 1, Grunning = 2, Gsyscall = 3, Gwaiting = 4, Gdead = 6 };

/* G.wait is one word {seq, N, I, C, S}.  S: the wait is open and may be claimed, by exactly one CAS.  C: a
 * cancel is pending, I: an interrupt is.  N: the open wait is none that a cancel may end (a blocking call
 * of C code that could not report it).  seq counts waits, so a waker that comes late loses (park.c). */
#define WAIT_S ((uint64_t)1)
#define WAIT_C ((uint64_t)2)
#define WAIT_I ((uint64_t)4)
#define WAIT_N ((uint64_t)8)
#define WAIT_SEQ ((uint64_t)16)
#define WAIT_SEQMASK (~(uint64_t)15)

/* What a wait ended with. */
typedef enum {
  WAKE_OK = 0,      /* the thing waited for has happened */
  WAKE_CLOSED,      /* channel closed */
  WAKE_WOULDBLOCK,  /* not ready, and the caller would not wait */
  WAKE_TIMEOUT,     /* the deadline passed */
  WAKE_CANCELLED,   /* goroutine cancelled */
  WAKE_INTERRUPTED, /* a signal arrived: run its handlers, then wait on */
  WAKE_DEADLOCK,    /* main goroutine only: everything is asleep */
  WAKE_NOMEM,       /* a waiter could not be allocated */
  WAKE_BADFD,       /* the poller cannot watch that descriptor: errno says why */
  WAKE_NOTHREAD     /* the goroutine must keep its thread, and no other would be left to run the rest */
} wake_t;

typedef enum {
  GK_NATIVE = 0, /* C entry point, runs without the host lock */
  GK_HOST,       /* runs host code: scheduled by L */
  GK_FOREIGN,    /* stands for an OS thread that is not ours: waits on a futex (foreign.c) */
  GK_G0          /* an M's scheduler context */
} gkind;

/* Go's (waitReasonStrings); traceback.c has the words. */
typedef enum {
  waitReasonZero = 0,
  waitReasonIOWait,
  waitReasonSleep,
  waitReasonChanReceive,
  waitReasonChanSend,
  waitReasonSelect,
  waitReasonSelectNoCases,
  waitReasonSemacquire,
  waitReasonMutexLock,
  waitReasonRWMutexRLock,
  waitReasonRWMutexLock,
  waitReasonCondWait,
  waitReasonWaitGroupWait,
  waitReasonJoin,
  waitReasonSignal,
  waitReasonCount
} waitreason;

struct G {
  /* Own M while running; whoever claimed the wait while parked. */
  void *sp;    /* saved context: everything else is on the stack */
  M *m;        /* the M that runs it, or ran it last */
  G *schedlink; /* a G is on at most one list */
  M *lockedm;  /* wired to this M: lock_os_thread, or entered from foreign C */
  sudog *param; /* the sudog that was served */
  _Atomic uint32_t status;
  uint8_t kind; /* gkind, for life */
  uint8_t wakeres;
  _Atomic uint8_t reason; /* waitreason, meaningful while Gwaiting */
  bool nocancel; /* its next wait opens with N */

  _Atomic uint64_t wait;  /* {seq, N, I, C, S}: CAS only */
  union {
    _Atomic uint32_t futex; /* foreign: 1 armed, 2 fired */
    uint32_t locked;        /* hosted: nesting of lock_os_thread() */
  };
  uint16_t nsgs, nwait; /* capacity of sgs; sudogs linked now */

  _Atomic uint64_t since; /* when it was last switched in or out: switch_time() */
  uint64_t runticks;      /* cputicks spent running, up to `since` */
  uint64_t goid;

  /* hibernate.c: the host lock, but for `asleep`. */
  struct saved *saved; /* it sleeps without a stack; sp is NULL */
  uint64_t judged;     /* the wait in which it was last judged */
  _Atomic uint8_t asleep;
  uint8_t light; /* how often in a row it slept too short a time for the trouble */
  uint32_t slab; /* where it lies, for life */

  union {
    struct { /* native */
      void (*fn)(void *); /* entry point */
      void *arg;
    };
    struct { /* hosted */
      _Atomic(void *) host; /* the host's state of this goroutine (a PyThreadState) */
      void *handle; /* the host's handle of it, owned while it lives (a Goroutine object) */
#ifdef CPU_THREAD_POINTER_KEPT
      char *tp; /* the host's: the thread pointer of the thread that it has parked on last; NULL: of none yet */
#endif
    };
  };
  stack stk;
#ifdef GM_TSAN
  void *fiber;
#endif
#ifdef GM_ASAN
  void *fake_stack;
#endif

  timer timer; /* the deadline of its wait */
  sudog sg;    /* its waiter, when one is enough */
  sudog *sgs;  /* select: an array kept for the next select */
};

/* gstatus.c */
void casgstatus(G *gp, uint32_t from, uint32_t to);
const char *gstatus_name(uint32_t status);

/* g.c */
void g_init_static(G *gp, gkind kind);
G *gfget_native(P *pp);
void gfput_native(P *pp, G *gp);
void gfree_flush(P *pp);
G *gfget_host(void);
void gfput_host(G *gp);
void gbind(G *gp);
void gpass(G *from, G *to);
G *gmake_big(size_t stack);
void gfree_big(G *gp);
void gshrink_pooled(uint32_t n);
void gtrim_take(void);
void gtrim_some(void);
void gtrim_states(void);
bool gtrim_left(void);
void gtrim_slabs(void);
G *allg_next(uint32_t *cursor);
void gtable_forklock(bool on);
void gtable_afterfork(void);
void goid_assign(G *gp, uint64_t *cache, uint64_t *end);

/* traceback.c */
const char *waitreason_name(uint8_t why);

#endif
