/* hibernate.c - which goroutines may sleep without their stack (sched/hibernate.c), and what is seen of them meanwhile.
 *
 * A Python goroutine's stack may go if nothing but the goroutine refers to it:
 *   - no C code of others has frames there.  The interpreter and the modules of the standard library keep no address of
 *     their stacks anywhere, but for who waits in the parking lot (from 3.13 on; the locks of `threading` too, but for 3.13.0's): he
 *     stands in its list with what he waits for, a semaphore, on his stack.  An extension module may: pybind11 has a list
 *     of its frames;
 *   - it does not collect garbage, and waits in a finalizer: the collector's lists of objects begin on its stack, and who
 *     frees one of those objects meanwhile writes there.  Whose collection it is is not to be seen, so while there is one
 *     nobody falls asleep;
 *   - nobody holds one of its frames: a generator's lies elsewhere and refers to its caller's, a traceback's or a
 *     debugger's has an object;
 *   - its frames lie in the chunk above its C stack, and its state is not lent by a thread.  One that is a thread to Python
 *     (pythread.c) parks in the life of T2 only, which has frames and chunk then.
 *
 * While it sleeps its state shows no frames: the collector does not look at frames that have no objects, and who looks
 * from outside the process, or in a crash, finds none.  Who asks the handle (stack(), frame(), dumps) rouses it, who
 * asks for all frames rouses all (shim.c); where that is not replaced, nobody sleeps. */
#include "sync/sema.h"
#include "py/host/above.h"
#include "py/host/hibernate.h"
#include "py/host/host.h"

static bool own_state(const Goroutine *self) {
  return self && self->started && !self->done && !self->lent && !self->greenlets && !has_homes(self);
}

/* A post is the last that its sender does with it. */
static bool in_parking_lot(const G *gp) {
  const char *semaphore = semroot_addr(gp);
  return semaphore >= gp->stk.lo && semaphore < gp->stk.hi;
}

bool host_still(void) { return !collecting(); }

char *host_drowsy(G *gp) {
  const Goroutine *self = gp->handle;
  if (interposed.nothing || !own_state(self) || in_parking_lot(gp)) return NULL;
  PyThreadState *ts = ts_of(gp);
  char *end = tstate_chunk_end(ts, gp);
  if (!end || entered_below(gp) || !frames_private(ts, gp->sp, end)) return NULL;
  return above.private_stack(gp->sp, gp->stk.hi) ? end : NULL;
}

void *host_hide(G *gp) { return frames_hide(ts_of(gp)); }
void host_show(G *gp, void *hidden) { frames_show(ts_of(gp), hidden); }
