/* amd64: first frame, system call, clock, fence, spin hint.  The frame is what gm_switch pops (switch.S). */
#ifndef GMPRT_CPU_H
#define GMPRT_CPU_H

#include <stdint.h>

enum { CPU_MXCSR = 0x1f80, CPU_FCW = 0x037f }; /* the control words of a new thread */

static inline void *switch_frame(void *top, void (*entry)(void *), void *arg) {
  uint64_t *sp = (uint64_t *)((uintptr_t)top & ~(uintptr_t)15);
  *--sp = 0; /* two null words: where gm_entry stands, 16-aligned before its call */
  *--sp = 0;
  *--sp = (uint64_t)(uintptr_t)gm_entry;
  *--sp = 0;                          /* rbp: ends frame-pointer chains */
  *--sp = (uint64_t)(uintptr_t)arg;   /* rbx */
  *--sp = (uint64_t)(uintptr_t)entry; /* r12: what gm_entry calls */
  *--sp = 0;                          /* r13 */
  *--sp = 0;                          /* r14 */
  *--sp = 0;                          /* r15 */
  *--sp = (uint64_t)CPU_MXCSR | (uint64_t)CPU_FCW << 32;
  return sp;
}

/* Leaves errno alone: a failure is -errno. */
static inline long cpu_syscall(long number, long a, long b, long c, long d, long e, long f) {
  register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "+a"(number)
                   : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return number;
}

static inline uint64_t cputicks(void) { return __builtin_ia32_rdtsc(); }
/* A store-load fence behind a read-modify-write, even one in another function: that was one. */
static inline void fence_after_rmw(void) { __asm__ volatile("" ::: "memory"); }
static inline void cpu_relax(void) { __builtin_ia32_pause(); }

#endif
