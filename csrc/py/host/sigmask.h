/* sigmask.h - the signal mask belongs to the goroutine: sigmask.c. */
#ifndef GMPRT_PY_HOST_SIGMASK_H
#define GMPRT_PY_HOST_SIGMASK_H

#include <signal.h>

#include "py/host/goroutine.h"

uint64_t to_bits(const sigset_t *s);
void from_bits(sigset_t *s, uint64_t b);
uint64_t mask_of(G *gp);
bool mask_set(G *gp, uint64_t bits);
bool mask_inherit(Goroutine *self, Goroutine *parent); /* NULL: an ordinary thread */
void mask_of_thread_changed(void); /* of this ordinary one */

#endif
