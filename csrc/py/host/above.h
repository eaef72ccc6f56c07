/* above.h - what lies above the host and is handed in, for the host does not know it.
 *
 * Blocking calls are replaced, and threads looked after, by py/interpose: it says here what it has done, and what is to be
 * asked of it.  gmprt becomes active by py/activate.c. */
#ifndef GMPRT_PY_HOST_ABOVE_H
#define GMPRT_PY_HOST_ABOVE_H

#include "py/host/goroutine.h"

/* What is replaced: set by interpose/objects.c when gmprt becomes active. */
extern struct interposed {
  bool nothing; /* GMPRT_INTERPOSE=none */
  bool gil;     /* M.wants is kept: it is seen who waits for the GIL */
  bool binds;   /* C code may have been loaded that is bound to its thread: above.thread_bound (affinity.c) */
} interposed;

/* Set when the module is made. */
extern struct above {
  bool (*activate)(void);              /* before the runtime starts; false: exception set */
  bool (*private_stack)(const void *lo, const void *hi); /* no C code of others has frames there (affinity.c) */
  bool (*thread_bound)(G *gp);         /* is there C code below that keeps something per thread? (affinity.c) */
  void (*homes_drop)(Goroutine *self); /* the goroutine has ended (homes.c) */
  void (*homes_forget)(Goroutine *self);
  void (*member_ended)(Goroutine *self); /* of a group: it has ended (types/group.c) */
  void (*member_lost)(Goroutine *self);  /* it is not in the forked child */
  bool (*cancel_learn)(void);          /* before the first cancel; false: exception set (cancel.c) */
} above;

#endif
