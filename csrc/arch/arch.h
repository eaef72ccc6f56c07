/* arch.h - the contract of a CPU directory, and the one place where it is chosen.
 *
 * Each directory has switch.S and cpu.h.  switch.S defines
 *
 *   void gm_switch(void **save, void *to)
 *       Push the callee-saved registers, store the stack pointer in *save, load `to`, pop, jump.
 *       The floating-point control words are saved and loaded only when the two sides differ: loading
 *       MXCSR costs 37 ns as soon as merely a sticky exception flag differs.
 *   gm_entry
 *       Where the first switch to a new stack arrives: calls goroutine_main(arg), ends unwinding.
 *
 * and cpu.h defines
 *
 *   void *switch_frame(void *top, void *arg)   lay the first frame below `top`, return the sp
 *   uint64_t cputicks(void)                    a cheap clock that counts at a constant rate
 *   void cpu_relax(void)                       the pause hint of a spin loop */
#ifndef GMPRT_ARCH_H
#define GMPRT_ARCH_H

#include "../base.h"

void gm_switch(void **save, void *to);
void gm_entry(void);

#if defined(__x86_64__)
#include "amd64/cpu.h"
#elif defined(__aarch64__)
#include "arm64/cpu.h"
#else
#error "gmprt runs on x86-64 and arm64"
#endif

#endif
