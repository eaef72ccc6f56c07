/* identity.h - who runs: identity.c. */
#ifndef GMPRT_PY_HOST_IDENTITY_H
#define GMPRT_PY_HOST_IDENTITY_H

#include "py/cpython/tstate.h"

void identity_stand_for(unsigned long ident);
unsigned long identity_new(void);
bool is_goroutine(pthread_t t);
G *goroutine_of(pthread_t t); /* that lives; NULL: a thread's, or it has ended.  GIL held */
bool identity_taken(pthread_t t); /* a new thread has got the ident that is stood for */
bool identity_in_danger(void);    /* one might */
unsigned long identity_stood_for(void); /* by this ordinary thread, 0: none */

#endif
