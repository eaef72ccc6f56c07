/* types.h - the types and functions that users see. */
#ifndef GMPRT_PY_TYPES_TYPES_H
#define GMPRT_PY_TYPES_TYPES_H

#include "py/host/goroutine.h"

PyObject *py_go(PyObject *module, PyObject *const *args, Py_ssize_t nargs, PyObject *kwnames); /* functions.c */

extern PyTypeObject *Recv_Type, *Send_Type, *Select_Type, *Selected_Type, *Mutex_Type, *Semaphore_Type, *WaitGroup_Type,
    *RWMutex_Type, *RLocker_Type, *Held_Type, *Cond_Type, *AtomicInt_Type, *Limiter_Type, *Reservation_Type, *CancelScope_Type,
    *Group_Type, *Options_Type;
extern PyType_Spec goroutine_spec, chan_spec, sendview_spec, recvview_spec, recv_spec, send_spec, select_spec, selected_spec,
    mutex_spec, semaphore_spec, waitgroup_spec, rwmutex_spec, rlocker_spec, held_spec, cond_spec, atomic_spec, limiter_spec,
    reservation_spec, cancelscope_spec, group_spec, options_spec;
extern PyMethodDef chan_functions[], goroutine_functions[], timer_functions[], select_functions[], native_functions[],
    scope_functions[], group_functions[], options_functions[];

void group_member_ended(Goroutine *g); /* group.c */
void group_member_lost(Goroutine *g);

#endif
