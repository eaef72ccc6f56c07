/* compat.h - the CPython version, told apart once: named flags and accessors, nothing else looks at
 * PY_VERSION_HEX, but for the check at import.  The logic that depends on them is in tstate.c.
 *
 * Layouts were checked over all micro releases of a minor version so far; selfcheck.c looks whether the one that runs
 * has the layout of the headers.  The module refuses to be loaded by another minor version than the one it was
 * compiled for (module.c). */
#ifndef GMPRT_COMPAT_H
#define GMPRT_COMPAT_H

#ifndef Py_BUILD_CORE_MODULE
#define Py_BUILD_CORE_MODULE 1
#endif
#include <Python.h>
#include <structmember.h>

#include "internal/pycore_code.h"
#include "internal/pycore_frame.h"
#include "internal/pycore_interp.h"
#include "internal/pycore_pystate.h"
#include "internal/pycore_runtime.h"
#include "internal/pycore_ceval.h"

#if PY_VERSION_HEX < 0x030b0000 || PY_VERSION_HEX >= 0x030e0000
#error "gmprt supports CPython 3.11, 3.12 and 3.13"
#endif
#ifdef Py_GIL_DISABLED
#error "gmprt does not support free-threaded builds yet"
#endif

#if PY_VERSION_HEX < 0x030c0000
#define HAVE_GLOBAL_CURRENT 1     /* the current state is one global, PyThreadState_Swap a store */
#define HAVE_CURRENT_EXC_TRIPLE 1 /* curexc_type/value/traceback */
#define HAVE_JOINT_RECURSION 1    /* one counter for C and Python recursion */
#define HAVE_FRAGILE_NEW 1        /* PyThreadState_New writes to the state that it could not allocate */
#define AUTO_TSS_KEY (_PyRuntime.gilstate.autoTSSkey._key)
#ifdef Py_DEBUG
#define ASSERTS_UNTRACED 1 /* an instruction asserts that tracing does not begin in the middle of it */
#endif
#else
#define HAVE_ENTRY_FRAMES 1     /* each evaluation loop has a frame of its own, on the C stack */
#define HAVE_DICT_WATCHERS 1    /* PyDict_Watch; before, dicts have a version */
#define HAVE_PENDING_ANYWHERE 1 /* pending calls run on any thread */
#define HAVE_TLS_CURRENT 1      /* the current state is a private thread-local: direct swap */
#define HAVE_BOUND_GILSTATE 1   /* _status bits */
#define HAVE_C_RECURSION 1      /* c_recursion_remaining */
#ifndef Py_C_RECURSION_LIMIT
#define Py_C_RECURSION_LIMIT C_RECURSION_LIMIT
#endif
#define AUTO_TSS_KEY (_PyRuntime.autoTSSkey._key)
#endif
#if PY_VERSION_HEX < 0x030d0000
#define HAVE_CFRAME 1           /* tstate->cframe->current_frame */
#define HAVE_GLOBAL_BREAKER 1   /* eval_breaker is the interpreter's: computed for the thread that asks */
#define HAVE_ON_DELETE 1
#define HAVE_PREV_INSTR 1
#else
#define HAVE_TSTATE_BREAKER 1   /* eval_breaker is the state's, with the instrumentation version */
#define HAVE_ATTACH_STATE 1     /* tstate->state */
#define HAVE_LOCAL_KEY 1        /* threading.local keeps its values below a key of the state, not in its dict */
#define HAVE_DEBUG_OFFSETS 1    /* _PyRuntime.debug_offsets: the layout, for debuggers */
#ifdef Py_DEBUG
#define ASSERTS_NO_TIMEOUT 1    /* a lock's wait that has none must not end by one, as a cancelled one does */
#endif
#define HAVE_MAIN_TSTATE 1      /* the runtime knows the main thread's state: signals and the end go there */
#endif

#ifdef HAVE_ATTACH_STATE
#define CURRENT_UNCHECKED() PyThreadState_GetUnchecked()
#else
#define CURRENT_UNCHECKED() _PyThreadState_UncheckedGet()
#endif

#if defined(HAVE_CFRAME)
#define TS_FRAME(ts) ((ts)->cframe->current_frame)
#else
#define TS_FRAME(ts) ((ts)->current_frame)
#endif

#endif
