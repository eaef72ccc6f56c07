/* host.h - the only door between the runtime and the language it hosts.
 *
 * A host with a lock of its own (CPython's GIL) fills one table.  The runtime calls it as follows, on an M
 * unless another thread is named:
 *   m_init      on the thread of a new M, before it takes part in anything, host lock not held: make its base
 *               state.  false: no memory.  May be NULL.
 *   attach      on g0, holding the licence: take the host lock, make the M's base state current.
 *               May wait, for as long as other threads hold the lock.
 *   detach      on g0, base state current: drop the host lock. May wait for a thread that asked for it.
 *   swap        host lock held: the current state changes from `from`'s to `to`'s; NULL is the base state.
 *               Must not drop the lock, allocate, or call back.
 *   pinned      running goroutine: do C frames that entered host code lie below?  Then it parks wired.
 *   main        on a fresh G's stack, its state current: run the goroutine to its end, result stored.
 *   g_init      host lock held: give a new G a state. false: no memory.
 *   g_fini      host lock held, base state current: the state of a dead G goes, which has no stack.
 *   g_bind      host lock held: the G has got a stack of its own, never used before.
 *   where       without any lock, from any thread: is G's state attached, and if not, why?
 *   locked      without any lock: does anybody hold the host lock?
 *   m_exit      on an M's thread, host lock not held: free the base state.
 *   leave/enter a thread that holds the host lock, a foreign one or whoever starts the runtime, is about to sleep:
 *   drop it;
 *               take it again.  (In a forked child the first start of the runtime does.  By then the host has made
 *               its lock anew, as CPython has before it calls anybody: the lock in the child's copy of memory may
 *               be asked for, or half taken, by threads that are not there.)
 *   interruptible  does the calling thread run host code, so that a signal concerns it?  No lock held.
 *   wake_lender a goroutine is ready that is locked to the thread that waits in run(): wake that one.
 *   lend        on g0 of an M whose goroutine forked, in the child: wait as the thread in run() does; no return.
 *   all_asleep  sched.lock held: the last M goes idle and nothing can wake anybody from inside; must not block.
 *   preempt     sysmon: ask the hosted goroutine that M runs to yield; false: it cannot be asked.  May be NULL.
 *   preempt_signal  in the handler of SIGURG on M, whose goroutine was asked.  May be NULL.
 *   still       host lock held: may stacks be judged now, by drowsy?  May be NULL: always.
 *   drowsy      host lock held, a parked goroutine: where what lives of its stack ends; NULL: it must keep its stack.
 *               May be NULL: none ever loses it.
 *   hide, show  host lock held: it is about to lose its stack, and has it again; what hide returns is given to show.
 *   last_words  in the handler of a fault, the process is about to die: print where the running hosted goroutine stands.
 *               May be NULL.
 *   dump        asked for by SIGQUIT, on a thread of its own: print all goroutines.
 *
 * A runtime without host code passes host_none (start.c). */
#ifndef GMPRT_HOST_H
#define GMPRT_HOST_H

#include <stdbool.h>
#include <stddef.h>

struct G;
struct M;

/* What takes a unit whose goroutine has ended, instead of the pool; NULL: the pool. */
typedef void (*host_after)(struct G *gp);

/* Attached; detached and waiting for the host lock; detached and not waiting for it; detached, and whether it
 * waits or blocks cannot be told. */
typedef enum { HOST_INSIDE, HOST_WANTS, HOST_OUT, HOST_UNKNOWN } host_where;

typedef struct host_t {
  size_t stack_size; /* slot of a hosted goroutine, bytes; 2 MiB-aligned when it is a multiple */
  size_t stack_top;  /* bytes above the C stack's start that the host uses (a frame chunk) */
  bool (*m_init)(struct M *m);
  void (*attach)(struct M *m);
  void (*detach)(struct M *m);
  void (*swap)(struct M *m, struct G *from, struct G *to);
  bool (*pinned)(struct G *gp);
  host_after (*main)(struct G *gp);
  bool (*g_init)(struct G *gp);
  void (*g_fini)(struct G *gp);
  void (*g_bind)(struct G *gp);
  host_where (*where)(struct G *gp);
  bool (*locked)(void);
  void (*m_exit)(struct M *m);
  void *(*leave)(void);
  void (*enter)(void *state);
  bool (*interruptible)(void);
  void (*wake_lender)(struct M *m);
  void (*lend)(struct M *m);
  void (*all_asleep)(unsigned epoch);
  bool (*preempt)(struct M *m);
  void (*preempt_signal)(struct M *m, struct G *gp);
  bool (*still)(void);
  char *(*drowsy)(struct G *gp);
  void *(*hide)(struct G *gp);
  void (*show)(struct G *gp, void *hidden);
  void (*last_words)(struct G *gp);
  void (*dump)(void);
} host_t;

#endif
