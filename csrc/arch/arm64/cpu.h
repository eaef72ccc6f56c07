/* arm64: first frame, system call, clock, fence, spin hint.  The frame is what gm_switch loads (switch.S). */
#ifndef GMPRT_CPU_H
#define GMPRT_CPU_H

#include <stdatomic.h>
#include <stdint.h>
#include <string.h>

enum { CPU_FRAME = 176 }; /* d8-d15, x19-x30, fpcr, resume address */

static inline void *switch_frame(void *top, void (*entry)(void *), void *arg) {
  char *sp = (char *)((uintptr_t)top & ~(uintptr_t)15) - CPU_FRAME;
  memset(sp, 0, CPU_FRAME);
  uint64_t *w = (uint64_t *)sp;
  w[8] = (uint64_t)(uintptr_t)arg;       /* x19 */
  w[9] = (uint64_t)(uintptr_t)entry;     /* x20: what gm_entry calls */
  w[19] = (uint64_t)(uintptr_t)gm_entry; /* x30: where the switch arrives */
  return sp;
}

/* Leaves errno alone: a failure is -errno. */
static inline long cpu_syscall(long number, long a, long b, long c, long d, long e, long f) {
  register long x8 __asm__("x8") = number, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d, x4 __asm__("x4") = e, x5 __asm__("x5") = f;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
  return x0;
}

static inline uint64_t cputicks(void) {
  uint64_t t;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(t));
  return t;
}
/* Compiled code reads the thread pointer into a register and keeps it over calls (py/cpython/follow.c). */
#define CPU_THREAD_POINTER_KEPT 1
static inline char *cpu_thread_pointer(void) {
  char *tp;
  __asm__ volatile("mrs %0, tpidr_el0" : "=r"(tp));
  return tp;
}
static inline void fence_after_rmw(void) { atomic_thread_fence(memory_order_seq_cst); }
static inline void cpu_relax(void) { __asm__ volatile("yield"); }

#endif
