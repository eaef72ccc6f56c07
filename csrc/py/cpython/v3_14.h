/* v3_14.h - CPython 3.14, from 3.14.1 on: before, nobody can tell the interpreter where a state's stack lies. */
#define HAVE_ENTRY_FRAMES 1     /* each evaluation loop has a frame of its own, on the C stack */
#define HAVE_DICT_WATCHERS 1    /* PyDict_Watch; before, dicts have a version */
#define HAVE_PENDING_ANYWHERE 1 /* pending calls run on any thread */
#define HAVE_TLS_CURRENT 1      /* the current state is a private thread-local: direct swap */
#define HAVE_BOUND_GILSTATE 1   /* _status bits */
#define HAVE_TSTATE_BREAKER 1   /* eval_breaker is the state's, with the instrumentation version */
#define HAVE_PARKING_LOT 1      /* who waits for a lock of the interpreter stands in a list, on its stack */
#define HAVE_DETACH_ARGUMENT 1 /* _PySemaphore_Wait can drop the GIL itself */
#define HAVE_ATTACH_STATE 1     /* tstate->state */
#define HAVE_LOCAL_KEY 1        /* threading.local keeps its values below a key of the state, not in its dict */
#define HAVE_DEBUG_OFFSETS 1    /* _PyRuntime.debug_offsets: the layout, for debuggers */
#define HAVE_MAIN_TSTATE 1      /* the runtime knows the main thread's state: signals and the end go there */
#define HAVE_STACK_LIMITS 1     /* recursion through C ends by addresses: a state knows on which stack it runs */
#define HAVE_STACKREFS 1        /* what a frame refers to is tagged */
#define HAVE_TUPLE_HASH 1       /* a tuple keeps its hash */
#define HAVE_EXECUTORS 1        /* a loop may run machine code that the JIT has made */
#ifdef Py_DEBUG
#define ASSERTS_NO_TIMEOUT 1    /* a lock's wait that has none must not end by one, as a cancelled one does */
#endif

#define ENTRY_FRAME FRAME_OWNED_BY_INTERPRETER
#define HOLDS_GIL(ts) ((ts)->holds_gil)
#define AUTO_TSS_KEY (_PyRuntime.autoTSSkey._key)
#define BOOTSTATE_WORDS 4  /* of the struct that _thread hands to a new thread: one of the first is its state */
#define CURRENT_UNCHECKED() PyThreadState_GetUnchecked()
#define BASE_FRAME(ts) NULL /* the last of the chain */
#define TS_FRAME(ts) ((ts)->current_frame)

#include "internal/pycore_genobject.h"
#include "internal/pycore_interpframe.h"
#include "internal/pycore_optimizer.h"
