/* follow.c - where compiled code has kept the address of its thread, it finds that of the next one.
 *
 * C code takes it for granted that a function ends on the thread on which it began.  On arm64 a thread-local is reached
 * through a register that is read with an instruction (tpidr_el0), and compilers do not read it again behind a call: of the
 * interpreter's functions in Debian's executables 227 (3.13), 353 (3.14) and 342 (3.15) keep the thread pointer, or an
 * address made of it, over calls, many of them over calls of Python: of a class, of __str__, of a finalizer.  Where such a
 * call parks, and its goroutine comes back on another thread, what is read there for the current state is the other
 * thread's, mostly NULL.  (amd64 names thread-locals by %fs and an offset: nothing is kept.  3.11 has none.)
 *
 * So a goroutine that comes back on another thread has its stack looked through, from its saved registers to its first
 * frame: a word that is the old thread's pointer, or lies among the interpreter's thread-locals there, becomes that of the
 * new one.  Nothing else may have such a value: the interpreter hands addresses of its thread-locals to nobody, and the
 * thread pointer itself is the address of the C library's private head of a thread.  Registers that a call preserves lie
 * in the frame of gm_switch, or where the functions between have saved them; others are dead.
 *
 * This presumes that the interpreter's thread-locals lie at the same offset from the pointer in each thread, as those of
 * an executable and of what is loaded with it do.  If they do not (a libpython that was loaded later), the module is
 * refused at import.
 *
 * A change of threads is seldom, as each costs a hand-off; so is the look: 100 ns for the usual stack.
 *
 * Rejected: goroutines that stay on the thread where they began (a thread for each that waits below such a function);
 * to write the current state to the old thread's, too (that one takes the GIL again when its call returns, and the
 * interpreter aborts if it finds a state there, before it has it). */
#include "py/cpython/follow.h"

#if defined(CPU_THREAD_POINTER_KEPT) && defined(HAVE_TLS_CURRENT)

enum { MOST = 1 << 20 }; /* what is farther from the pointer was not laid out with the thread */

static uintptr_t locals_at, locals_size; /* from the thread pointer */

void follow_learn(const void *locals, size_t size) {
  locals_at = (uintptr_t)locals - (uintptr_t)cpu_thread_pointer();
  locals_size = size;
}

bool follow_can(void) { return locals_at < MOST; }

reads_raw void follow(uintptr_t *from, uintptr_t *end, char *old, char *now) {
  for (uintptr_t *word = from; word < end; word++) {
    uintptr_t offset = *word - (uintptr_t)old;
    if (unlikely(offset == 0 || offset - locals_at < locals_size)) *word = (uintptr_t)now + offset;
  }
}
#endif
