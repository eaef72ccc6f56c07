/* call.h - C library functions that know goroutines: what all hooks share.
 *
 * A hook stands in for a function of the C library in the interpreter, its extension modules and a few
 * trusted libraries.  In an ordinary thread, and wherever a goroutine must not park, it calls the
 * original.  Else it tries without blocking, and parks the goroutine when it would block:
 *
 *     call c;
 *     if (!call_begin(&c, FAM_SLEEP)) return real.clock_nanosleep(...);
 *     call_attach(&c);  wake_t w = call_woken(&c, gopark(...));  call_detach(&c);
 *     return ...;
 *
 * A goroutine parks attached, its state current and the GIL held, as everywhere (park.c).
 *
 * errno.  Compilers keep its address across a call, so the C code below a hook may read the errno of the
 * thread on which it began.  A failure is therefore stored on that thread as well (call_fail, homes.c). */
#ifndef GMPRT_PY_INTERPOSE_CALL_H
#define GMPRT_PY_INTERPOSE_CALL_H

#include <time.h>

#include "py/interpose/shim.h"

/* One interposed call on a goroutine. */
typedef struct call {
  G *g;
  M *home;     /* where it began, and C code may have taken the address of errno */
  bool early;  /* C code that calls this is known to take it before the call */
  bool nocancel;
  int e;       /* errno at the start: what a success leaves there, on whichever thread */
} call;

bool call_begin(call *c, family f);
void call_attach(call *c);
wake_t call_woken(call *c, wake_t w);
void call_detach(call *c);
int call_fail(call *c, int e); /* -1, with errno; also for a failure without a park */
int call_errno(call *c, wake_t w);

/* The running goroutine, when its C code has dropped the GIL; NULL: in any other position.  An ordinary thread
 * learns with one load that it is none. */
G *detached_g_of_m(void);
static inline G *detached_g(void) { return unlikely(on_m()) ? detached_g_of_m() : NULL; }
/* The call that follows blocks for certain: P and licence go to others at once. */
void call_handoff(void);

int64_t timespec_ns(const struct timespec *t);

#endif
