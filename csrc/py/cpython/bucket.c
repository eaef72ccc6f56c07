/* bucket.c - who waits for a bucket of the parking lot waits in the kernel.
 *
 * From 3.13 on who waits for a lock of the interpreter stands in a bucket of the parking lot, and each bucket has a lock of
 * its own, a raw mutex: held for some instructions, by threads with the GIL and by threads without.  A wait for it ends
 * in sem_wait as one for a lock does, but must not park, for that takes the GIL:
 *
 *     G holds the GIL and waits for the bucket, as who releases a lock does; behind it B, that has dropped the GIL (a file
 *     object's wait for its lock).  The bucket is given up; the last comer is told, B, and only B.  That goes on only with
 *     the GIL, which G keeps, until B has had the bucket.
 *
 * A goroutine that blocks there needs no more than its thread, as its holder does, and is told within microseconds.
 *
 * How such a wait is known.  The raw mutex has one place where it waits, in a function that is not exported, so what is
 * learned is the return address to there: its value, and where it lies above the hook's frame.  To learn it such a wait is
 * brought about, at activation: one that holds a bucket, by the function that the parking lot calls in it, and another on
 * a second stack of the same thread that wants it.  That one's sem_wait looks at its callers, and comes back to the first.
 *
 * If nothing was learned (no hook, an unwinder that does not find through) the wait is taken for a lock's.
 *
 * Memory order: `at` is written before `after` (release), and read behind it (acquire).
 *
 * Rejected: a thread for the second one (activation makes none, so that it cannot be refused one); to ask the unwinder at
 * each wait (a microsecond); to drop the GIL in G (who releases a lock of the runtime's own cannot bear that). */
#include "py/cpython/bucket.h"

#ifdef HAVE_PARKING_LOT
#include <ucontext.h>
#include <unwind.h>

#include "base/os.h"
#include "internal/pycore_parking_lot.h"
#include "internal/pycore_semaphore.h"

bucket_call bucket_call_site;

#ifdef HAVE_DETACH_ARGUMENT
#define SEMAPHORE_WAIT(s) _PySemaphore_Wait(s, -1, 0)
#else
#define SEMAPHORE_WAIT(s) _PySemaphore_Wait(s, -1)
#endif

enum { SECOND_STACK = 64 << 10 };

static struct {
  _Atomic pid_t tid; /* who learns */
  bool hooked;       /* sem_wait comes here */
  bool second;       /* on the second stack */
  ucontext_t here, there;
  char spot;         /* what nobody waits for */
} probe;

/* ---- in sem_wait ---------------------------------------------------------------------------------------------- */

typedef struct owner {
  uintptr_t sem, ip;
} owner;

/* The stack pointer with which a function called tells where its frame begins. */
static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *arg) {
  owner *o = arg;
  if ((uintptr_t)_Unwind_GetCFA(context) > o->sem) return _URC_END_OF_STACK;
  o->ip = (uintptr_t)_Unwind_GetIP(context);
  return _URC_NO_REASON;
}

/* The function in whose frame the semaphore lies: where in the stack is the address to which it is returned? */
static reads_raw void note_caller(void **frame, void *sem) {
  owner o = {.sem = (uintptr_t)sem};
  _Unwind_Backtrace(step, &o);
  for (size_t i = 0; &frame[i] < (void **)sem; i++) {
    if (!o.ip || ((uintptr_t)frame[i] ^ o.ip) << 16 != 0) continue;
    bucket_call_site.at = i;
    store_rel(&bucket_call_site.after, o.ip);
    return;
  }
}

/* Nothing is known yet. */
noinline bool bucket_heard(void **frame, void *sem) {
  if (load_rlx(&probe.tid) != os_gettid()) return false;
  probe.hooked = true;
  if (!probe.second) return false;
  note_caller(frame, sem);
  swapcontext(&probe.there, &probe.here);
  return true;
}

/* ---- learning --------------------------------------------------------------------------------------------------- */

static bool hooked(void) {
  _PySemaphore s;
  _PySemaphore_Init(&s);
  _PySemaphore_Wakeup(&s);
  SEMAPHORE_WAIT(&s);
  _PySemaphore_Destroy(&s);
  return probe.hooked;
}

static void nothing(void *arg, void *parked, int more) { (void)arg, (void)parked, (void)more; }

static void want(void) { _PyParkingLot_Unpark(&probe.spot, nothing, NULL); }

/* Called with the bucket held. */
static void hold(void *arg, void *parked, int more) {
  (void)arg, (void)parked, (void)more;
  probe.second = true;
  swapcontext(&probe.here, &probe.there);
}

static void bring_about(char *stack) {
  getcontext(&probe.there);
  probe.there.uc_stack.ss_sp = stack;
  probe.there.uc_stack.ss_size = SECOND_STACK;
  probe.there.uc_link = &probe.here;
  makecontext(&probe.there, want, 0);
  _PyParkingLot_Unpark(&probe.spot, hold, NULL);
  swapcontext(&probe.here, &probe.there); /* which has been told, and goes to its end */
}

/* Once: activation may have failed behind it, and who is known to wait for a bucket waits, here for itself. */
void bucket_learn(void) {
  if (load_rlx(&bucket_call_site.after)) return;
  char *stack = PyMem_RawMalloc(SECOND_STACK);
  if (!stack) return;
  probe.hooked = probe.second = false;
  store_rlx(&probe.tid, os_gettid());
  if (hooked()) bring_about(stack);
  store_rlx(&probe.tid, 0);
  PyMem_RawFree(stack);
}
#endif
