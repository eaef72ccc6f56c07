/* preempt.h - how a Python goroutine is asked to yield: preempt.c. */
#ifndef GMPRT_PY_CPYTHON_PREEMPT_H
#define GMPRT_PY_CPYTHON_PREEMPT_H

#include "py/cpython/tstate.h"

void py_preempt_refuse(const char *why);
const char *py_preempt_mode(void); /* "on", or why not */
bool py_preempt(M *m);
void py_preempt_signal(M *m, G *gp);
void py_preempt_disarm(pym *pm);
void py_preempt_forget(pym *pm); /* what was asked of a state that is being deleted */
void py_preempt_afterfork(M *m);
extern bool (*preempt_barred)(void); /* not now: the host is in the middle of something */

#endif
