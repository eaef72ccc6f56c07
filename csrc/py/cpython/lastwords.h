/* lastwords.h - the traceback of a goroutine that ends the process: lastwords.c. */
#ifndef GMPRT_PY_CPYTHON_LASTWORDS_H
#define GMPRT_PY_CPYTHON_LASTWORDS_H

#include "py/cpython/version.h"

void frames_tell(PyThreadState *ts); /* to stderr; async-signal-safe */

#endif
