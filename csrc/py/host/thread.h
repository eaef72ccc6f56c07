/* thread.h - what `threading` does for its threads, done for goroutines: thread.c. */
#ifndef GMPRT_PY_HOST_THREAD_H
#define GMPRT_PY_HOST_THREAD_H

#include "py/cpython/version.h"

void thread_start(void);
void thread_forget(unsigned long ident);
void thread_context(void);
bool threads_known(void);   /* gmprt/_life/threads.py has been imported */
bool threads_install(void); /* false: exception set */
extern PyMethodDef thread_functions[];

#endif
