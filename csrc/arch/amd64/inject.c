/* inject.c (amd64) - injecting a call into interrupted code.  Contract in arch/arch.h. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <string.h>
#include <ucontext.h>

#include "arch/arch.h"

enum { RED_ZONE = 128, GENERAL = 13 * 8, CALLS = 2048 };
enum { XHEADER = 512, TILES = 1 << 18 };

/* For asyncpreempt.S. */
uint64_t preempt_xsize, preempt_xmask;
uint8_t preempt_xsavec;
void (*preempt_yield)(void);
void gm_async_preempt(void);

static uint64_t xcr0(void) {
  uint32_t lo, hi;
  __asm__ volatile("xgetbv" : "=a"(lo), "=d"(hi) : "c"(0));
  return (uint64_t)hi << 32 | lo;
}

/* All but protection keys, which are the thread's, and matrix tiles, 8 KB that hardly anybody uses. */
bool arch_preempt_init(void (*yield)(void)) {
  preempt_yield = yield;
  uint32_t a, b, c, d;
  if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_OSXSAVE)) return false;
  preempt_xmask = xcr0() & ~(UINT64_C(1) << 9 | UINT64_C(3) << 17);
  preempt_xsize = XHEADER + 64;
  for (uint32_t i = 2; i < 63; i++) {
    if (!(preempt_xmask >> i & 1)) continue;
    __cpuid_count(0xd, i, a, b, c, d);
    uint64_t end = (uint64_t)b + a; /* where XSAVE puts it; XSAVEC needs less */
    if (end > preempt_xsize) preempt_xsize = end;
  }
  __cpuid_count(0xd, 1, a, b, c, d);
  preempt_xsavec = a >> 1 & 1;
  return true;
}

uintptr_t arch_context_pc(void *ucontext) {
  return (uintptr_t)((ucontext_t *)ucontext)->uc_mcontext.gregs[REG_RIP];
}

/* Matrix tiles in use would be lost.  The kernel says which parts of the state it has saved. */
static bool tiles_in_use(const ucontext_t *uc) {
  const char *fp = (const char *)uc->uc_mcontext.fpregs;
  uint64_t saved;
  if (!fp) return false;
  memcpy(&saved, fp + XHEADER, sizeof saved);
  return preempt_xsize > XHEADER + 64 && saved & TILES;
}

bool arch_inject(void *ucontext, char *lo) {
  ucontext_t *uc = ucontext;
  char *sp = (char *)uc->uc_mcontext.gregs[REG_RSP] - RED_ZONE;
  if (sp - GENERAL - preempt_xsize - 64 - CALLS < lo || tiles_in_use(uc)) return false;
  sp -= 8;
  memcpy(sp, &uc->uc_mcontext.gregs[REG_RIP], 8);
  uc->uc_mcontext.gregs[REG_RSP] = (greg_t)(uintptr_t)sp;
  uc->uc_mcontext.gregs[REG_RIP] = (greg_t)(uintptr_t)gm_async_preempt;
  return true;
}
