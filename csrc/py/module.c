/* module.c - the C module gmprt._core: put together of types and functions, and of what one layer hands to another.
 *
 * It lives in the same shared object as the cffi module gmprt._native (gmprt/_life/load.py loads both).  A cffi call
 * releases the GIL, which a channel operation that completes without waiting must not. */
#include <errno.h>

#include "py/cpython/exception.h"
#include "py/cpython/preempt.h"
#include "py/cpython/selfcheck.h"
#include "py/host/above.h"
#include "py/host/errors.h"
#include "py/host/fork.h"
#include "py/host/lender.h"
#include "py/host/life.h"
#include "py/host/thread.h"
#include "py/types/context.h"
#include "py/types/types.h"
#include "py/interpose/homes.h"
#include "py/module.h"

extern int (*gm_start_hook)(void); /* gmprt.c */

static int add_type(PyObject *module, PyTypeObject **out, PyType_Spec *spec, PyTypeObject *base) {
  *out = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, (PyObject *)base);
  return *out ? PyModule_AddType(module, *out) : -1;
}

/* What has been raised by the start, as an errno. */
static int errno_raised(void) {
  if (PyErr_ExceptionMatches(PyExc_MemoryError)) return ENOMEM;
  PyObject *exc = PyErr_ExceptionMatches(PyExc_OSError) ? take_exception() : NULL;
  PyObject *number = exc ? PyObject_GetAttrString(exc, "errno") : NULL;
  long e = number && PyLong_Check(number) ? PyLong_AsLong(number) : EAGAIN;
  Py_XDECREF(number);
  Py_XDECREF(exc);
  return e > 0 ? (int)e : EAGAIN;
}

/* gm_start() from cffi, which has dropped the GIL. */
static int py_gm_start(void) {
  PyGILState_STATE g = PyGILState_Ensure();
  int err = runtime_ensure() ? 0 : errno_raised();
  PyErr_Clear();
  PyGILState_Release(g);
  return err;
}

static PyObject *the_module; /* once it has been made: one for the process, as the runtime is */
static bool finalized;

static void forget_interpreter(void) { finalized = true; }

/* Who takes the modules out of sys.modules and imports them again gets the same one: its types are those of all
 * the objects that there are. */
static PyObject *core_create(PyObject *spec, PyModuleDef *def) {
  (void)def;
  if (finalized || PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "gmprt supports only the main interpreter, and only the first of a process");
    return NULL;
  }
  if (the_module) return Py_NewRef(the_module);
  PyObject *name = PyObject_GetAttrString(spec, "name");
  PyObject *module = name ? PyModule_NewObject(name) : NULL;
  Py_XDECREF(name);
  return module;
}

/* Looks, and changes nothing of the process: that is for activate.c. */
static int core_exec(PyObject *module) {
  if (module == the_module) return 0;
  if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
    PyErr_SetString(PyExc_ImportError, "gmprt supports only the main interpreter");
    return -1;
  }
  if (!selfcheck_version()) return -1;
  if (load_errors() < 0 || !exception_init() || !selfcheck() || !tstate_init() || !cancel_compile()) return -1;
  gm_start_hook = py_gm_start;
  preempt_barred = fork_in_progress;
  above = (struct above){.activate = activate,
                         .private_stack = affinity_private,
                         .thread_bound = affinity_below,
                         .homes_drop = homes_drop,
                         .homes_forget = homes_forget,
                         .member_ended = group_member_ended,
                         .member_lost = group_member_lost,
                         .cancel_learn = cancel_learn};
  host = &python_host;
  PyTypeObject *tuple = &PyTuple_Type;
  struct {
    PyTypeObject **out;
    PyType_Spec *spec;
    PyTypeObject **base;
  } types[] = {{&Goroutine_Type, &goroutine_spec, NULL}, {&Chan_Type, &chan_spec, NULL},
               {&SendView_Type, &sendview_spec, NULL},   {&RecvView_Type, &recvview_spec, NULL},
               {&Recv_Type, &recv_spec, NULL},           {&Send_Type, &send_spec, NULL},
               {&Select_Type, &select_spec, NULL},       {&Selected_Type, &selected_spec, &tuple},
               {&Mutex_Type, &mutex_spec, NULL},         {&Semaphore_Type, &semaphore_spec, NULL},
               {&WaitGroup_Type, &waitgroup_spec, NULL}, {&RWMutex_Type, &rwmutex_spec, NULL},
               {&RLocker_Type, &rlocker_spec, NULL},     {&Held_Type, &held_spec, NULL},
               {&Cond_Type, &cond_spec, NULL},           {&AtomicInt_Type, &atomic_spec, NULL},
               {&Limiter_Type, &limiter_spec, NULL},     {&Reservation_Type, &reservation_spec, NULL},
               {&CancelScope_Type, &cancelscope_spec, NULL}, {&Group_Type, &group_spec, NULL},
               {&Options_Type, &options_spec, NULL},     {&Context_Type, &context_spec, NULL},
               {&CancelContext_Type, &cancelcontext_spec, &Context_Type}};
  for (size_t i = 0; i < nelem(types); i++)
    if (add_type(module, types[i].out, types[i].spec, types[i].base ? *types[i].base : NULL) < 0) return -1;
  PyMethodDef *tables[] = {goroutine_functions, timer_functions,  select_functions, native_functions,  chan_functions,
                           scope_functions,     context_functions, group_functions, options_functions, run_functions,
                           thread_functions,    control_functions, selfcheck_functions};
  for (size_t i = 0; i < nelem(tables); i++)
    if (PyModule_AddFunctions(module, tables[i]) < 0) return -1;
  if (Py_AtExit(forget_interpreter) < 0) {
    PyErr_SetString(PyExc_ImportError, "gmprt cannot be told of the interpreter's end");
    return -1;
  }
  the_module = Py_NewRef(module);
  return 0;
}

static PyModuleDef_Slot core_slots[] = {{Py_mod_create, core_create},
                                        {Py_mod_exec, core_exec},
                                        ONE_INTERPRETER
                                        {0, NULL}};
static PyModuleDef core_def = {PyModuleDef_HEAD_INIT,
                               .m_name = "gmprt._core",
                               .m_doc = "The C half of gmprt: goroutines, channels, select.",
                               .m_size = 0,
                               .m_slots = core_slots};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&core_def); }
