/* stubhost.h - a host without a language: what the runtime needs of CPython, and checks that it gets it.
 *
 * The host lock is a copy of the interpreter's: a flag under a mutex, with a drop request after an
 * interval, and forced switching (a drop waits until whoever asked for the lock has had it).  A "state"
 * stands for a thread state; each thread has a current one, and it is checked at every call that the
 * lock is held by it.
 *
 * A hosted goroutine runs a C function with the host lock held.  It may use hosted channels, semaphores
 * and mutexes, gosched(), timesleep(), and the calls below. */
#ifndef GMPRT_STUBHOST_H
#define GMPRT_STUBHOST_H

#include "test.h"

typedef struct job {
  void (*fn)(void *);
  void *arg;
  G *g;
  bool done;
  waitq joiners;
} job;

void stub_start(void);

/* Ordinary threads. */
void host_take(void);
void host_drop(void);
bool host_asked(void);        /* host lock held: has somebody waited for an interval? */
pid_t host_fork(int seconds); /* host lock held, in the child too, which has so much time */

/* Host lock held. */
job *hosted_go(void (*fn)(void *), void *arg);
wake_t hosted_join(job *j); /* frees it */
void hosted_block(uint32_t us); /* a call that drops the host lock and blocks the thread */
void hosted_outside(bool out);  /* drops the host lock; takes it again */
void hosted_call(uint32_t us);  /* a call that keeps it */
void hosted_tick(void);         /* what an interpreter does between two instructions: honours a drop request */
void hosted_check(void);        /* the lock is ours, and so is the current state */
void hosted_pin(bool on);       /* foreign C frames lie below: parks are wired */

/* fn(arg) as the main goroutine of this thread, as run() does: the thread waits.  false: all goroutines
 * were asleep, and its wait was ended with WAKE_DEADLOCK. */
bool hosted_run(void (*fn)(void *), void *arg);
void hosted_lock_thread(void); /* the running goroutine moves to the thread of its hosted_run, or stays */
void hosted_unlock_thread(void);

extern _Atomic uint32_t stub_asleep; /* all_asleep calls */
extern _Atomic int stub_m_inits;     /* Ms that asked for a state */
extern _Atomic int stub_m_exits;     /* Ms that gave it back */
extern _Atomic bool stub_m_waits;    /* both wait in there */
extern _Atomic uint32_t stub_states; /* that Gs have */
extern bool stub_no_state;           /* g_init fails: no memory */
extern bool stub_private_stacks;     /* goroutines may sleep without theirs */

#endif
