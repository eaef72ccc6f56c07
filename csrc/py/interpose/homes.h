/* homes.h - what belongs to a thread and is looked at after a move: homes.c, errqueue.c; what must not move: affinity.c. */
#ifndef GMPRT_PY_INTERPOSE_HOMES_H
#define GMPRT_PY_INTERPOSE_HOMES_H

#include "py/interpose/call.h"

/* homes.c */
typedef struct homes homes;
static inline homes *homes_of(const Goroutine *self) { return self->more ? self->more->homes : NULL; }
void homes_prune(Goroutine *self); /* this one and those below: when there are any */
void homes_leave_shim(Goroutine *self, const shim *s);
void homes_drop(Goroutine *self);
void homes_forget(Goroutine *self);
void homes_store(call *c, int e);
void homes_note(call *c, M *home);

/* errqueue.c */
void errqueue_find(void);
bool errqueue_empty(void);
void errqueue_clear(void);

/* affinity.c */
void affinity_find(void);
bool affinity_below(G *gp);
bool affinity_private(const void *lo, const void *hi);

#endif
