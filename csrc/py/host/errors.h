/* errors.h - exceptions, and functions written in Python: errors.c. */
#ifndef GMPRT_PY_HOST_ERRORS_H
#define GMPRT_PY_HOST_ERRORS_H

#include "py/cpython/version.h"

/* Exceptions, from gmprt._api.errors. */
extern struct errors {
  PyObject *Error, *RuntimeNotRunning, *ChannelClosed, *EndOfChannel, *WouldBlock, *Cancelled,
      *GoroutineCancelled, *Deadlock, *TooManyThreads, *Timeout, *ContextCancelled, *DeadlineExceeded, *GoExit;
} errs;

int load_errors(void); /* at import; -1: exception set */
PyObject *helper(const char *module, const char *name); /* new reference: gmprt.<module>.<name> */

#endif
