/* shim.h - which interposed calls a cancel may end. */
#ifndef GMPRT_SHIM_H
#define GMPRT_SHIM_H

#include "tstate.h"

/* Kinds of blocking calls, as hooks and shims name them. */
typedef enum family { FAM_NONE, FAM_SLEEP, FAM_SEM, FAM_FD, FAM_CHILD } family;

/* One call of a Python-callable function that may be cancelled, on the stack of the goroutine. */
typedef struct shim {
  family family;
  void *frame;        /* the interpreter frame that called: code that runs below has another one */
  wake_t substituted; /* WAKE_OK, or why a hook made up a failure */
  struct shim *outer;
} shim;

/* Shims whatever is loaded and not yet shimmed; GIL held. */
void shims_install(void);
void shims_remove(void);

#endif
