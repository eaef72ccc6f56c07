/* v3_11.h - CPython 3.11. */
#define HAVE_GLOBAL_CURRENT 1     /* the current state is one global, PyThreadState_Swap a store */
#define HAVE_TRACED_CALLS 1       /* what is traced calls through a function of its own */
#define HAVE_LATE_REINIT 1        /* a forked child waits for the lock of the list of states, and only then makes it anew */
#define HAVE_CURRENT_EXC_TRIPLE 1 /* curexc_type/value/traceback */
#define HAVE_JOINT_RECURSION 1    /* one counter for C and Python recursion */
#define HAVE_FRAGILE_NEW 1        /* PyThreadState_New writes to the state that it could not allocate */
#define HAVE_CFRAME 1             /* tstate->cframe->current_frame */
#define HAVE_GLOBAL_BREAKER 1     /* eval_breaker is the interpreter's: computed for the thread that asks */
#define HAVE_ON_DELETE 1          /* tstate->on_delete: how threading hears of a thread's end */
#define HAVE_PREV_INSTR 1         /* a frame has f_code and prev_instr; later f_executable and instr_ptr */
#define HAVE_SEMAPHORE_LOCK 1     /* a lock is a semaphore and a flag: lock.c */
#ifdef Py_DEBUG
#define ASSERTS_UNTRACED 1 /* an instruction asserts that tracing does not begin in the middle of it */
#endif

#define AUTO_TSS_KEY (_PyRuntime.gilstate.autoTSSkey._key)
#define BOOTSTATE_WORDS 5  /* of the struct that _thread hands to a new thread: one of the first is its state */
#define CURRENT_UNCHECKED() _PyThreadState_UncheckedGet()
#define TS_FRAME(ts) ((ts)->cframe->current_frame)
