/* inject.c (arm64) - native goroutines are not preempted.  Contract in arch/arch.h.
 *
 * To go back to an arbitrary instruction takes a register that holds its address, and compiled C code leaves
 * none free.  (Go's compiler keeps one.)  Going back through rt_sigreturn would do; nobody has tried. */
#define _GNU_SOURCE
#include <ucontext.h>

#include "arch/arch.h"

bool arch_preempt_init(void (*yield)(void)) {
  (void)yield;
  return false;
}

uintptr_t arch_context_pc(void *ucontext) { return (uintptr_t)((ucontext_t *)ucontext)->uc_mcontext.pc; }

bool arch_inject(void *ucontext, char *lo) {
  (void)ucontext, (void)lo;
  return false;
}
