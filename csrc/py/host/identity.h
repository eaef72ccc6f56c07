/* identity.h - who runs: identity.c. */
#ifndef GMPRT_PY_HOST_IDENTITY_H
#define GMPRT_PY_HOST_IDENTITY_H

#include "py/cpython/tstate.h"

void identity_stand_for(unsigned long ident);
unsigned long identity_new(void); /* GIL held; 0: no memory */
void identity_back(unsigned long ident); /* nobody has it any more; GIL held */
bool is_goroutine(pthread_t t);
G *goroutine_of(pthread_t t); /* that lives; NULL: a thread's, or it has ended.  GIL held */
bool identity_taken(pthread_t t); /* is it the ident of a thread that is missing in this forked child? */
bool identity_in_danger(void);    /* one might */
unsigned long identity_stood_for(void); /* by this ordinary thread, 0: none */

/* Of the interpreter's threads that are goroutines (pythread.c). */
unsigned long identity_thread_new(void); /* GIL held; 0: no memory, or too many */
void identity_thread_ended(unsigned long ident);
void identity_thread_released(unsigned long ident); /* joined, or detached */
bool identity_thread_has_ended(unsigned long ident);
bool is_thread_ident(pthread_t t);

#endif
