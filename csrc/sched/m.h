/* m.h - M: an OS thread that runs goroutines, one at a time, or its g0: m.c, wired.c. */
#ifndef GMPRT_SCHED_M_H
#define GMPRT_SCHED_M_H

#include "base/os.h"
#include "sched/g.h"

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
  bool nothread;                  /* it starts none now: timers_run */
  uint64_t rand;
  G *lockedg;
  void *host;                     /* the host's state of this thread (its base PyThreadState) */
  G g0;

  /* Written by the own thread, read by anybody. */
  _Atomic(G *) curg;
  _Atomic uint32_t switches; /* sysmon compares two looks */
  _Atomic uint64_t parks, ended;
  _Atomic bool wants; /* waits for the host lock: no blocking call, whatever it looks like */
  _Atomic bool tries; /* in a call that cannot block */
  _Atomic uint32_t drops; /* of the host lock, if the host counts them: tells one call from the next */
  int *errno_at;      /* its errno; NULL when the thread has ended */

  /* Written by anybody: sysmon and who stops the world; who leaves the thread below C code, and comes back. */
  _Atomic bool preempt;        /* the goroutine that runs here shall yield, */
  _Atomic uint32_t preempt_at; /* ... if `switches` is still this */
  _Atomic uint32_t homed; /* goroutines whose C code may know errno_at: the thread must not end */

  /* sched.lock. */
  M *schedlink;
  int64_t idlesince;
  bool reap;

  /* Set before the M is woken. */
  P *nextp;
  _Atomic(G *) wiredg; /* the goroutine wired to it, runnable; a lender looks of its own accord, too */
  note park;

  /* Set before it takes part in anything; tid is 0 again, under sched.lock, when the thread ends. */
  uint32_t id; /* index in sched.allm, from 1 */
  pid_t tid;
  pthread_t thread;
  bool lender; /* T0 of run(): an M only while its main goroutine is locked to it */

  /* sysmon only. */
  uint32_t seen_switches, seen_drops;
  G *seen_g;
  int64_t seen_since;
  bool seen_out, seen_unlocked;
  uint32_t slice_switches; /* in the slice that began, */
  int64_t slice_since;     /* ... as far as sysmon has seen, then */
  int64_t preempt_since;   /* when it was first asked to yield */
  uint32_t stray_switches; /* when it was first seen with the host lock, and without the licence */
  int64_t stray_since;
};

M *getm(void);
extern __thread M *tls_m __attribute__((tls_model("initial-exec")));
/* Is this thread one of ours?  May be inlined, unlike getm(): a compiler that keeps the address over a switch
 * reads another M's, and the answer is the same. */
static inline bool on_m(void) { return tls_m != NULL; }
void setm(M *m);
/* The goroutine that runs on this thread; NULL on g0, and on threads that are not ours. */
static inline G *curg(void) {
  M *m = getm();
  return m ? load_rlx(&m->curg) : NULL;
}

/* m.c */
bool startm(P *pp, bool spinning);
int first_m(void);
void stopm(M *m);
void mreap_idle(int64_t now);
bool spare_m(M *m);
bool spare_m_had(M *m);
M *lender_m(void);
void lender_m_free(M *m);

/* wired.c */
void wire(G *gp, M *m);
void unwire(G *gp);
void unwire_ended(M *m, G *gp);
void wired_asleep(bool asleep);
void wake_wired(M *m, G *gp);
bool run_wired(M *m);

/* syscall.c */
void entersyscallblock(void);
void entersyscall_host(M *m);
void exitsyscall(void);

/* signal.c */
void os_init_signals(void);
void os_check_signals(void);
struct sigaction;
bool os_signal_chain(int sig, const struct sigaction *act, struct sigaction *old);

#endif
