/* version.h - the version of CPython that this is compiled for.
 *
 * Each has a file of its own, which says by flags what it has; only files of this folder look at them.  To add a version:
 * copy the last one's file, and see what selfcheck.c and the compiler say.
 *
 * Layouts were checked over all micro releases of a minor version so far; selfcheck.c looks whether the one that runs
 * has the layout of the headers.  The module refuses to be loaded by another minor version than the one it was
 * compiled for. */
#ifndef GMPRT_PY_CPYTHON_VERSION_H
#define GMPRT_PY_CPYTHON_VERSION_H

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

#if PY_VERSION_HEX < 0x030b0000
#error "gmprt needs CPython 3.11 or later"
#elif PY_VERSION_HEX < 0x030c0000
#include "py/cpython/v3_11.h"
#elif PY_VERSION_HEX < 0x030d0000
#include "py/cpython/v3_12.h"
#elif PY_VERSION_HEX < 0x030e0000
#include "py/cpython/v3_13.h"
#elif PY_VERSION_HEX >= 0x030e0100 && PY_VERSION_HEX < 0x030f0000
#include "py/cpython/v3_14.h"
#elif PY_VERSION_HEX >= 0x030f0000 && PY_VERSION_HEX < 0x03100000
#include "py/cpython/v3_15.h"
#elif PY_VERSION_HEX < 0x030f0000
#error "gmprt needs CPython 3.14.1 or later: 3.14.0 has no PyUnstable_ThreadState_SetStackProtection"
#else
#error "gmprt does not know this version of CPython yet"
#endif
#ifdef Py_GIL_DISABLED
#error "gmprt does not support free-threaded builds yet"
#endif

/* A slot of the module's definition. */
#ifdef Py_mod_multiple_interpreters
#define ONE_INTERPRETER {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#else
#define ONE_INTERPRETER
#endif

static inline Py_hash_t hash_pointer(const void *p) {
#if PY_VERSION_HEX >= 0x030d0000
  return Py_HashPointer(p);
#else
  return _Py_HashPointer(p);
#endif
}

/* A tuple that was made by hand: its hash is not known yet. */
static inline void tuple_without_hash(PyTupleObject *t) {
#ifdef HAVE_TUPLE_HASH
  t->ob_hash = -1;
#else
  (void)t;
#endif
}

/* Of this build of the interpreter, for code that knows no version. */
enum {
#ifdef ASSERTS_NO_TIMEOUT
  LOCK_NEEDS_TIMEOUT = true, /* a lock's wait that has no time-out must not end by one, as a cancelled one does */
#else
  LOCK_NEEDS_TIMEOUT = false,
#endif
};

#endif
