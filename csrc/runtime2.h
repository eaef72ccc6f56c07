/* runtime2.h - the shared structs of the runtime and the table of contents of its files.
 *
 * A G is a goroutine: a stack and a saved stack pointer.  An M is an OS thread that runs Gs.  A P is the
 * right to run one: there are gomaxprocs of them, each with a ring of runnable native goroutines.
 * Go code needs nothing else.  Goroutines of a host with a lock of its own (Python's GIL) hang on L, the
 * licence: whatever they touch without a lock is protected by the host lock, and the one M that holds
 * the licence drives them (licence.c).
 *
 * Fields are grouped by what guards them.  Nothing here is ever freed: Gs, Ms and Ps are pooled, so that
 * a late reader (sysmon, a timer, a dump) reads stale but typed memory. */
#ifndef GMPRT_RUNTIME2_H
#define GMPRT_RUNTIME2_H

#include <pthread.h>
#include <sys/types.h>

#include "arch/arch.h"
#include "base.h"
#include "host.h"
#include "lockrank.h"
#include "tunables.h"

typedef struct G G;
typedef struct M M;
typedef struct P P;
typedef struct sudog sudog;
typedef struct hchan hchan;
typedef struct timers timers;
struct sigaction;

/* ---- status words ------------------------------------------------------------------------------- */

/* G.status: Go's values and names.  gstatus.c has the table of legal transitions. */
enum { Gidle = 0, Grunnable = 1, Grunning = 2, Gsyscall = 3, Gwaiting = 4, Gdead = 6 };

/* P.status is one word {M id, state}: a CAS by sysmon or stop-the-world cannot hit a P that meanwhile
 * belongs to another M.  HOST may be taken away at any moment, RUNNING only by its own M. */
enum { Pidle = 0, Prunning = 1, Phost = 2, Pstopped = 3, Pdead = 4 };
#define PWORD(mid, state) ((uint64_t)(mid) << 8 | (uint64_t)(state))
#define PSTATE(word) ((int)((word) & 0xff))
#define PMID(word) ((uint32_t)((word) >> 8))

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

/* Go's words (waitReasonStrings), in the order of traceback.c's table. */
typedef enum {
  waitReasonZero = 0,
  waitReasonIOWait,
  waitReasonSleep,
  waitReasonChanReceive,
  waitReasonChanReceiveNil,
  waitReasonChanSend,
  waitReasonChanSendNil,
  waitReasonSelect,
  waitReasonSelectNoCases,
  waitReasonSemacquire,
  waitReasonMutexLock,
  waitReasonWaitGroupWait,
  waitReasonJoin,
  waitReasonStopTheWorld,
  waitReasonSignal,
  waitReasonChild,
  waitReasonCount
} waitreason;

/* ---- waiting ------------------------------------------------------------------------------------ */

/* One (goroutine, wait object) pair: the only thing that ever stands in a queue of waiters. */
struct sudog {
  G *g;
  sudog *next, *prev;
  union {
    void *elem;     /* where the value goes to or comes from; hosted channels: &val */
    sudog *nextaddr; /* semaroot, the first waiter of an address: that of another one */
  };
  uint64_t val;   /* a hosted value in hand-off, an owned reference of the host */
  uint64_t seq;   /* the wait this belongs to: WAIT_SEQ multiples */
  union {
    hchan *c;     /* select: which channel */
    struct pollDesc *pd; /* netpoll: which descriptor */
    void *addr;   /* semaroot: which semaphore */
  };
  int32_t kase;   /* select: index of the case */
  bool queued;    /* still linked in a queue */
  bool success;   /* value moved (true) or woken by close (false) */
  bool isselect;
};

/* FIFO of sudogs; guarded by the lock of the object it is part of, or by the host lock. */
typedef struct waitq {
  sudog *first, *last;
} waitq;

/* time.c: a deadline, and a node of the heap that it is in. */
enum { TIMER_OUT = -1, TIMER_ANNOUNCED = -2, TIMER_IN = 0 };
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

/* ---- G ------------------------------------------------------------------------------------------ */

typedef struct stack {
  char *lo; /* lowest usable byte (above the guard) */
  char *hi; /* T: the C stack starts here; what lies above belongs to the host */
  size_t size; /* of the slot, guard included */
} stack;

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

  _Atomic uint64_t since; /* cputicks of the last switch in or out */
  uint64_t runticks;      /* cputicks spent running, up to `since` */
  uint64_t goid;

  union {
    struct { /* native */
      void (*fn)(void *); /* entry point */
      void *arg;
    };
    struct { /* hosted */
      _Atomic(void *) host; /* the host's state of this goroutine (a PyThreadState) */
      void *handle; /* the host's handle of it, owned while it lives (a Goroutine object) */
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

/* ---- M ------------------------------------------------------------------------------------------ */

/* One-shot sleep: word 0 clear, 1 set. */
typedef struct note {
  _Atomic uint32_t word;
} note;

struct M {
  /* Own thread only. */
  G *prev;                        /* who left the stack before us: land() finishes its business */
  void (*commit)(M *m, G *gp);    /* ... by calling this */
  void (*unlockf)(void *);        /* park: releases what the parker had locked, may be NULL */
  void *unlockarg;
  int64_t deadline;               /* park: 0 or when to give up */
  G *nextg;                       /* picked by a parking goroutine, to be run from g0 */
  P *p;                           /* NULL, or believed to be ours: in HOST only a pin makes it sure */
  bool hostmode;                  /* on the way into, in, or out of host code */
  bool spinning;
  bool blocked_p;                 /* native: P handed off by gm_enter_blocking */
  uint64_t rand;
  G *lockedg;
  void *host;                     /* the host's state of this thread (its base PyThreadState) */
  G g0;

  /* Written by the own thread, read by anybody. */
  _Atomic(G *) curg;
  _Atomic uint32_t switches; /* sysmon compares two looks */
  _Atomic uint64_t parks, ended;
  _Atomic bool dying;
  _Atomic bool wants; /* waits for the host lock: no blocking call, whatever it looks like */
  _Atomic bool tries; /* in a call that cannot block */
  _Atomic uint32_t drops; /* of the host lock, if the host counts them: tells one call from the next */
  pid_t vforked;      /* own thread: in vfork, or a child of it */
  _Atomic bool preempt;        /* sysmon: the goroutine that runs here shall yield, */
  _Atomic uint32_t preempt_at; /* ... if `switches` is still this */
  int64_t preempt_since;       /* sysmon only: when it was first asked */
  int *errno_at;      /* its errno; NULL when the thread has ended */
  _Atomic uint32_t homed; /* goroutines whose C code may know errno_at: the thread must not end */

  /* sched.lock. */
  M *schedlink;
  int64_t idlesince;
  bool reap;

  /* Set before the M is woken. */
  P *nextp;
  _Atomic(G *) wiredg; /* the goroutine wired to it, runnable; a lender looks of its own accord, too */
  note park;

  uint32_t id; /* index in sched.allm, from 1 */
  pid_t tid;
  pthread_t thread;
  bool lender; /* T0 of run(): an M only while its main goroutine is locked to it */

  /* sysmon only. */
  uint32_t seen_switches, seen_drops;
  G *seen_g;
  int64_t seen_since;
  bool seen_out, seen_unlocked;
  uint32_t stray_switches; /* when it was first seen with the host lock, and without the licence */
  int64_t stray_since;
};

/* ---- P ------------------------------------------------------------------------------------------ */

struct P {
  /* Head: thieves and owner by CAS.  Tail: owner only.  On lines of their own: a thief that looks at
   * the head must not take the owner's tail line away. */
  _Atomic uint32_t runqhead __attribute__((aligned(64)));
  _Atomic uint32_t runqtail __attribute__((aligned(64)));
  _Atomic(G *) runnext;
  _Atomic(G *) runq[RUNQ_SIZE];

  _Atomic uint64_t status __attribute__((aligned(64)));
  uint32_t id;
  P *link;              /* sched.lock: idle list */

  /* Own M. */
  uint32_t picks;                 /* counts every pick */
  _Atomic uint32_t schedtick;     /* counts slices: runnext inherits */
  _Atomic bool expired;           /* sysmon: this slice is over, runnext goes to the tail */
  bool hostfirst;                 /* the next look takes L before native work */
  bool nativefirst;               /* the next look takes native work, the global queue too, before L */
  int64_t turnstart;              /* when this native turn began */
  G *gfree;                       /* dead native goroutines with their stacks */
  uint32_t ngfree;
  uint64_t goidcache, goidcacheend;
  timers timers;

  /* sysmon only. */
  uint32_t seen_tick;
  int64_t seen_when;
  uint64_t stopword; /* stop-the-world: the word this P was stopped in */
};

/* ---- L: goroutines of a host with a lock of its own ---------------------------------------------- */

typedef struct L {
  /* The host lock. */
  G *runnext;
  G *runq[RUNQ_SIZE];
  uint32_t head, tail;
  G *ovhead, *ovtail; /* overflow: FIFO through schedlink */
  uint32_t novfl;
  uint32_t picks;
  bool turnover; /* this turn of Python is over: native work has waited long enough for the P */
  int64_t turnstart;
  G *gfree;  /* dead Gs with a stack, hottest first */
  G *gshell; /* dead Gs without */
  uint32_t ngfree;
  uint32_t nlive;     /* goroutines */
  uint32_t nunits;    /* stacks made, in use or in gfree */
  uint32_t npromised; /* stacks promised beyond: nunits + npromised >= nlive */
  uint64_t goidcache, goidcacheend;

  /* Anybody. */
  _Atomic(M *) holder __attribute__((aligned(64))); /* the driver; CAS only */
  _Atomic uint32_t schedtick;
  _Atomic uint32_t nqueued; /* runnable in ring, runnext and overflow: written under the host lock */
  _Atomic bool expired;
  _Atomic uint32_t idle_units; /* ngfree when L was last released */
  _Atomic bool trim;           /* sysmon: give most of them back */
  _Atomic(G *) cold;           /* those given back: driver fills it when empty, sysmon empties it */
  _Atomic(G *) trimmed;        /* their Gs, shells now: stack by schedlink */
  _Atomic(G *) inbox __attribute__((aligned(64))); /* pushed without the host lock: stack by schedlink */
  timers timers;

  /* sysmon only. */
  uint32_t seen_tick;
  int64_t seen_when;
} L;

/* ---- sched -------------------------------------------------------------------------------------- */

typedef struct sched_t {
  mutex lock; /* guards what follows up to `lockend` */
  M *midle;
  uint32_t nmidle, mcount, maxm, nextmid;
  uint32_t nlenders;      /* of mcount: threads in run(), which are not ours and count for no limit */
  M *mleaving;            /* Ms that end as soon as nobody's C code knows their errno */
  M *mfree; /* ended threads' Ms, to be used again */
  P *pidle;
  G *runqhead, *runqtail; /* global queue of native goroutines */
  G *gfree;               /* depot of dead native goroutines */
  _Atomic uint32_t ngfree; /* read without the lock */
  uint32_t lockedwait;    /* Ms asleep with a goroutine wired to them */
  int lockend;

  _Atomic uint32_t runqsize;
  _Atomic uint32_t npidle;
  _Atomic uint32_t nmspinning;
  _Atomic uint32_t needspinning;
  _Atomic uint32_t nblocked; /* native goroutines in gm_enter_blocking */
  _Atomic uint32_t idle_epoch; /* bumped when the last M goes idle */
  _Atomic bool started, stopping;
  _Atomic uint32_t nstarting; /* threads of Ms that may still ask the host for something; counted up under the lock */
  _Atomic uint32_t needm; /* an M could not be created: sysmon tries again */

  /* Stop-the-world: stw.c. */
  _Atomic bool gcwaiting;
  _Atomic uint32_t stopwait;
  note stopnote;

  /* Netpoll: who sleeps in the poller until when. */
  _Atomic int64_t lastpoll;  /* 0: a thread sleeps in it */
  _Atomic int64_t polluntil;

  /* sysmon. */
  _Atomic bool sysmonwait;
  note sysmonnote;
  pthread_t sysmonthread;
  _Atomic bool dumpreq; /* SIGQUIT arrived */

  _Atomic uint64_t goidgen;
  _Atomic int32_t gomaxprocs; /* changed with the world stopped */
  M *allm[MAX_MS + 64]; /* by id; slots are filled under lock, never emptied */
  P *allp[MAX_PROCS];
  L l;
} sched_t;

extern sched_t sched;
extern const host_t *host;

/* Counters of things that are rare or cost more than the count. */
typedef struct counters {
  _Atomic uint64_t steals, stolen, handoffs, wakes, started, overflows, netpolls, netready,
      timers_fired, stw, mspawned, mreaped, preempt_requests, preemptions;
  _Atomic uint64_t stack_reserved, stack_slots, stack_free;
} counters;
extern counters counts;

/* ---- the files, bottom up ------------------------------------------------------------------------ */

/* gstatus.c */
void casgstatus(G *gp, uint32_t from, uint32_t to);
const char *gstatus_name(uint32_t status);
void g_init_static(G *gp, gkind kind);
G *gfget_native(P *pp);
void gfput_native(P *pp, G *gp);
G *gfget_host(void);
G *gmake_big(size_t stack);
void gfree_big(G *gp);
void gfput_host(G *gp);
void gbind(G *gp);
void gpass(G *from, G *to);
void gtrim_take(void);
void gtrim_some(void);
void goroutine_unframe(G *gp);
void gfree_flush(P *pp);
G *allg_next(uint32_t *cursor);
void gtable_forklock(bool on);
void goid_assign(G *gp, uint64_t *cache, uint64_t *end);

/* stack.c */
bool stack_promise(gkind kind);
bool stack_alloc(gkind kind, bool promised, stack *out);
void stack_free(gkind kind, stack *s);
void stack_drop(stack *s, gkind kind);
bool stack_alloc_big(size_t size, stack *out);
void stack_free_big(stack *s);
size_t stack_host_size(void);
typedef enum { STACK_NOT, STACK_OVERFLOW } stack_verdict;
stack_verdict stack_fault(uintptr_t addr);
void stack_init(void);
void stack_forklock(bool on);
size_t stack_host_resize(size_t size);
const char *stack_guard_mode(void);

/* runq.c */
void runqput(P *pp, G *gp, bool next);
G *runqget(P *pp, bool *inherit);
bool runqempty(P *pp);
G *runqsteal(P *pp, P *victim, bool runnext);
void runqdrain(P *pp);
void globrunqput(G *gp);
G *globrunqget(P *pp, uint32_t max);

/* licence.c */
void lput(G *gp, bool next);
G *lget(M *m);
void lpush_inbox(G *gp);
bool lwaiting(void);
void goready_hosted(G *gp);
void drive(M *m);

/* park.c */
void stack_switch(G *from, G *to);
void land(M *m);
wake_t gopark(void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline);
void gosched(void);
void leave_to_g0(G *gp, void (*commit)(M *m, G *gp));
void goexit0(G *gp, void (*after)(G *gp));
G *pget(M *m);
void execute(M *m, G *gp);
void goready(G *gp);
bool wait_claim(G *gp, uint64_t seq);
bool wait_claim_open(G *gp, wake_t result);
uint64_t wait_next(G *gp);
void wait_void(G *gp);
wake_t wait_pending(G *gp, bool cancel);
void gocancel(G *gp, bool hosted);
bool gointerrupt(G *gp, bool hosted);
_Noreturn void goroutine_main(G *gp);
void goroutine_frame(G *gp);

/* foreign.c */
G *getg(bool hosted);
G *foreign_g(void);
wake_t foreign_park(G *gp, void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline,
                    bool hosted);
void foreign_wake(G *gp);
void foreign_afterfork(void);
void foreign_forklock(bool on);
uint32_t foreign_waiting(void (*each)(G *gp, void *arg), void *arg);
wake_t park_any(G *gp, void (*unlockf)(void *), void *unlockarg, waitreason why, int64_t deadline,
                bool hosted);

/* proc.c */
M *getm(void);
extern __thread M *tls_m __attribute__((tls_model("initial-exec")));
/* Is this thread one of ours?  May be inlined, unlike getm(): a compiler that keeps the address over a switch
 * reads another M's, and the answer is the same. */
static inline bool on_m(void) { return tls_m != NULL; }
void setm(M *m);
bool schedinit(void);
G *newproc_native(void (*fn)(void *), void *arg);
void newproc_host(G *gp);
void wakep(void);
void wake_for_rest(void);
bool poller_missing(void);
bool startm(P *pp, bool spinning);
void handoffp(P *pp);
void stopm(M *m);
void releasep_idle(P *pp);
P *pidleget(void);
void acquirep(M *m, P *pp);
bool pin(M *m);
void schedule(M *m);
void mreap_idle(int64_t now);
void startm_late(void);
bool spare_m(M *m);
void unwire_ended(M *m, G *gp);
void schedstop(void);
void sched_restart(void);
void entersyscallblock(void);
void entersyscall_host(M *m);
void exitsyscall(void);
void wire(G *gp, M *m);
void unwire(G *gp);
void wake_wired(M *m, G *gp);
bool run_wired(M *m);
M *lender_m(void);
void lender_m_free(M *m);
bool sched_asleep(uint32_t epoch);
bool native_waiting(void);

/* fork.c */
void sched_fork_prepare(void);
void sched_fork_parent(void);
void sched_fork_child(void);
void sched_afterfork(M *keep);

/* sysmon.c */
void *sysmon_main(void *arg);
void sysmon_wake(void);

/* preempt.c */
void preempt_init(void);
bool preempt_enabled(void);
bool preempt_wanted(M *m);
bool preemptone(M *m);
void preempt_signalM(M *m);
bool preempt_register(const void *start, const void *end);
void preempt_chain(const struct sigaction *act, struct sigaction *old);

/* stw.c */
void stoptheworld(void);
void starttheworld(void);
void gcstopm(M *m);
bool procresize(int32_t n);
int32_t gomaxprocs_default(void);
void stw_afterfork(void);
int32_t gomaxprocs_set(int32_t n);

/* time.c */
int64_t nanotime(void);
int64_t ticks_to_ns(uint64_t ticks);
void time_init(void);
void timer_announce(timers *ts, timer *t, uint64_t seq);
void timer_disarm(timer *t);
void timer_add(timers *ts, timer *t, int64_t when);
bool timer_del(timer *t);
int64_t timers_run(timers *ts, int64_t now);
int64_t timers_next(void);
bool timers_any(void);
wake_t timesleep(int64_t ns);
void goroutine_timeout(timer *t, uint64_t seq);

/* semaroot.c */
wake_t semroot_wait(void *addr, bool (*try)(void *addr), int64_t deadline);
void semroot_wake(void *addr, bool hosted);
void semroot_afterfork(void);

/* ownfd.c */
typedef struct ownfd ownfd;
ownfd *ownfd_new(int fd);
void ownfd_free(ownfd *o);
void ownfd_forget(ownfd *o);
int ownfd_number(const ownfd *o);
bool ownfd_post(ownfd *o);
bool ownfd_drain(ownfd *o);
bool ownfd_intact(ownfd *o);
unsigned ownfd_from(unsigned fd);
bool ownfd_is(int fd);
void ownfd_taken(int fd);
int ownfd_move(int fd);
void ownfd_afterfork(void);

/* netpoll.c */
enum { POLL_READ = 0, POLL_WRITE = 1 };
typedef struct pollDesc pollDesc;
typedef struct pollwait { /* one descriptor that a goroutine waits for */
  pollDesc *pd;
  int fd;
  bool want[2];    /* POLL_READ, POLL_WRITE */
  uint32_t seq[2]; /* events before the attempt that failed */
  uint32_t closes; /* before the first */
} pollwait;
pollDesc *netpolldesc(int fd);
bool netpollwatch(pollwait *w, int fd, bool in, bool out);
bool netpollgone(const pollwait *w);
void netpollsample(pollwait *w);
wake_t netpollwait(pollwait *w, uint32_t n, int64_t deadline, bool hosted);
void netpollclosing(int fd);
void netpollclosing_range(unsigned first, unsigned last);
void netpollreplacing(int fd);
void netpollclosed(int fd);
void netpollclosed_range(unsigned first, unsigned last);
void netpollopened(int fd);
uint64_t netpollmodes(void);
void netpollmodechange(void);
bool netpollplain(const pollwait *w);
void netpollsetplain(const pollwait *w, uint64_t modes);
void netpollaudit(void);
bool netpoll_unaudited(void);
int netpollinit(void);
void netpollbreak(void);
void netpoll_afterfork(void);
const char *netpoll_mode(void);
void netpoll(int64_t delay_ns);
uint32_t netpoll_waiters(void);

/* traceback.c */
const char *waitreason_name(uint8_t why);

/* os_linux.c */
void futexsleep(_Atomic uint32_t *word, uint32_t value, int64_t ns);
void futexwakeup(_Atomic uint32_t *word, int n);
void noteclear(note *n);
void notewakeup(note *n);
void notesleep(note *n);
bool notetsleep(note *n, int64_t ns);
int os_newthread(pthread_t *out, size_t stack, void *(*fn)(void *), void *arg);
bool os_minit(void);
void os_mexit(void);
pid_t os_gettid(void);
char os_thread_state(pid_t tid);
int64_t os_thread_cputime(pid_t tid);
void os_usleep(uint32_t us);
int os_ncpu(void);
void os_init_signals(void);
void os_check_signals(void);
int os_kick_signal(void);
uint64_t os_program_bits(void);
bool os_signal_chain(int sig, const struct sigaction *act, struct sigaction *old);
void os_kick(M *m);

/* chaos.c */
extern bool chaos_on;
void chaos_init(void);
void chaos_point_slow(bool hosted);
bool chaos_flip(void);
static inline void chaos_point(bool hosted) {
  if (unlikely(chaos_on)) chaos_point_slow(hosted);
}

#endif
