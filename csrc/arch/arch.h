/* arch.h - the contract of a CPU folder, and the one place where it is chosen.  It stands on nothing.
 *
 * Each directory has switch.S and cpu.h.  switch.S defines
 *
 *   void gm_switch(void **save, void *to)
 *       Push the callee-saved registers, store the stack pointer in *save, load `to`, pop, jump.
 *       The floating-point control words are saved and loaded only when the two sides differ: loading
 *       MXCSR costs 37 ns as soon as merely a sticky exception flag differs.
 *   gm_entry
 *       Where the first switch to a new stack arrives: calls entry(arg), ends unwinding.
 *
 * and cpu.h defines
 *
 *   void *switch_frame(void *top, void (*entry)(void *), void *arg)
 *                                              lay the first frame below `top`, return the sp
 *   uint64_t cputicks(void)                    a cheap clock that counts at a constant rate
 *   void cpu_relax(void)                       the pause hint of a spin loop
 *   void fence_after_rmw(void)                 a store-load fence behind a read-modify-write
 *   long cpu_syscall(long number, ...)         a system call that leaves errno alone: a failure is -errno
 *   CPU_THREAD_POINTER_KEPT, char *cpu_thread_pointer(void)
 *                                              where compiled code keeps the address of its thread's thread-locals in
 *                                              registers.  (amd64's addresses them through %fs.)
 *
 * and inject.c, with what it needs in asyncpreempt.S:
 *
 *   bool arch_preempt_init(void (*yield)(void))
 *       yield: what interrupted code is made to call.  false: native goroutines cannot be preempted on this CPU.
 *   uintptr_t arch_context_pc(void *ucontext)
 *       Where a signal has interrupted the thread.
 *   bool arch_inject(void *ucontext, char *lo)
 *       When the handler returns, the interrupted code calls yield(), all its registers kept.
 *       lo: the end of its stack; false: there is no room, or a register cannot be kept. */
#ifndef GMPRT_ARCH_H
#define GMPRT_ARCH_H

#include <stdbool.h>
#include <stdint.h>

void gm_switch(void **save, void *to);
void gm_entry(void);
bool arch_preempt_init(void (*yield)(void));
uintptr_t arch_context_pc(void *ucontext);
bool arch_inject(void *ucontext, char *lo);

#if defined(__x86_64__)
#include "arch/amd64/cpu.h"
#elif defined(__aarch64__)
#include "arch/arm64/cpu.h"
#else
#error "gmprt runs on x86-64 and arm64"
#endif

#endif
