/* follow.h - thread-locals' addresses that compiled code has kept: follow.c. */
#ifndef GMPRT_PY_CPYTHON_FOLLOW_H
#define GMPRT_PY_CPYTHON_FOLLOW_H

#include "py/cpython/tstate.h"

#if defined(CPU_THREAD_POINTER_KEPT) && defined(HAVE_TLS_CURRENT)
void follow_learn(const void *locals, size_t size); /* the interpreter's, of the calling thread */
bool follow_can(void);
void follow(uintptr_t *from, uintptr_t *end, char *old, char *now);

/* On m's thread `from` is about to be left, and `to` to be entered; NULL: the M's own context. */
static inline void follow_switch(const pym *m, G *from, G *to) {
  if (from) from->tp = m->tp;
  if (to && unlikely(to->tp != m->tp) && to->tp) follow(to->sp, (uintptr_t *)to->stk.hi, to->tp, m->tp);
}
/* T0 leaves its context on its own stack; a forked child's only thread, which may be another, is about to enter it. */
static inline void follow_leave(G *t0) {
  os_thread_stack(&t0->stk.lo, &t0->stk.hi);
  t0->tp = cpu_thread_pointer();
}
static inline void follow_enter(G *t0) {
  follow(t0->sp, (uintptr_t *)t0->stk.hi, t0->tp, cpu_thread_pointer());
}
#else
static inline void follow_learn(const void *locals, size_t size) { (void)locals, (void)size; }
static inline bool follow_can(void) { return true; }
static inline void follow_switch(const pym *m, G *from, G *to) { (void)m, (void)from, (void)to; }
static inline void follow_leave(G *t0) { (void)t0; }
static inline void follow_enter(G *t0) { (void)t0; }
#endif

#endif
