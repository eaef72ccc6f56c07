/* v3_12.h - CPython 3.12. */
#define HAVE_ENTRY_FRAMES 1     /* each evaluation loop has a frame of its own, on the C stack */
#define HAVE_DICT_WATCHERS 1    /* PyDict_Watch; before, dicts have a version */
#define HAVE_PENDING_ANYWHERE 1 /* pending calls run on any thread */
#define HAVE_TLS_CURRENT 1      /* the current state is a private thread-local: direct swap */
#define HAVE_BOUND_GILSTATE 1   /* _status bits */
#define HAVE_C_RECURSION 1      /* c_recursion_remaining */
#define HAVE_CFRAME 1           /* tstate->cframe->current_frame */
#define HAVE_GLOBAL_BREAKER 1   /* eval_breaker is the interpreter's: computed for the thread that asks */
#define HAVE_ON_DELETE 1        /* tstate->on_delete: how threading hears of a thread's end */
#define HAVE_PREV_INSTR 1       /* a frame has f_code and prev_instr; later f_executable and instr_ptr */
#define HAVE_SEMAPHORE_LOCK 1   /* a lock is a semaphore and a flag: lock.c */

#ifndef Py_C_RECURSION_LIMIT
#define Py_C_RECURSION_LIMIT C_RECURSION_LIMIT
#endif
#define ENTRY_FRAME FRAME_OWNED_BY_CSTACK
#define AUTO_TSS_KEY (_PyRuntime.autoTSSkey._key)
#define BOOTSTATE_WORDS 4  /* of the struct that _thread hands to a new thread: one of the first is its state */
#define CURRENT_UNCHECKED() _PyThreadState_UncheckedGet()
#define TS_FRAME(ts) ((ts)->cframe->current_frame)
