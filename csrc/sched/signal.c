/* signal.c - the signals that the runtime handles: faults in guard pages, and the kick.
 *
 * A fault in a guard page is a goroutine's stack overflow; every other one belongs to whoever handled it before us, and
 * goes there.  The program's own handlers for these signals are kept behind ours (os_signal_chain).  The kick makes a
 * system call of an M return EINTR, and does nothing else. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sched/sched.h"

static void kicked(int sig) { (void)sig; }

static struct sigaction old_segv, old_bus;

static void say(const char *text) {
  if (write(2, text, strlen(text)) < 0) return;
}

/* In a guard of any slot, or of the main goroutine's stack, which is none. */
static bool overflowed(const G *gp, uintptr_t at) {
  if (stack_overflowed(at)) return true;
  uintptr_t lo = gp ? (uintptr_t)gp->stk.lo : 0;
  return lo && at < lo && at >= lo - stack_page;
}

static void report_overflow(G *gp) {
  char line[128];
  snprintf(line, sizeof line, "fatal: goroutine stack overflow\n\tgoroutine %llu\n",
           gp ? (unsigned long long)gp->goid : 0);
  say(line);
  if (gp && gp->kind == GK_HOST && host->last_words) host->last_words(gp);
}

/* A fault in a guard page is a stack overflow: say so and die.  Anything else goes where it went before
 * the runtime started: to the old handler, or to the default action when the instruction is retried. */
static void sigfault(int sig, siginfo_t *info, void *context) {
  G *gp = curg();
  if (overflowed(gp, (uintptr_t)info->si_addr)) report_overflow(gp);
  struct sigaction *old = sig == SIGSEGV ? &old_segv : &old_bus;
  if (old->sa_flags & SA_SIGINFO && old->sa_sigaction) {
    old->sa_sigaction(sig, info, context);
    return;
  }
  if (old->sa_handler != SIG_DFL && old->sa_handler != SIG_IGN) {
    old->sa_handler(sig);
    return;
  }
  if (old->sa_handler == SIG_IGN && info->si_code <= 0) return;
  signal(sig, SIG_DFL); /* the faulting instruction runs again, and kills the process */
  if (info->si_code <= 0) syscall(SYS_tgkill, getpid(), os_gettid(), sig); /* it was sent: as soon as we return */
}

/* Puts our handler on top of whatever is there. */
static void take_fault(int sig, struct sigaction *old) {
  struct sigaction sa, now;
  if (sigaction(sig, NULL, &now) != 0 || now.sa_sigaction == sigfault) return;
  *old = now;
  memset(&sa, 0, sizeof sa);
  sa.sa_sigaction = sigfault;
  sa.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigemptyset(&sa.sa_mask);
  sigaction(sig, &sa, NULL);
}

/* Now and then, by sysmon: somebody (faulthandler.enable) may have put his handler over ours, without
 * which an overflow is a mere segmentation fault. */
void os_check_signals(void) {
  if (os_signals_left()) return;
  take_fault(SIGSEGV, &old_segv);
  take_fault(SIGBUS, &old_bus);
}

/* The program's own handler for a signal whose handler is ours: kept behind it. false: the signal is not ours. */
bool os_signal_chain(int sig, const struct sigaction *act, struct sigaction *old) {
  struct sigaction *kept = sig == SIGSEGV ? &old_segv : sig == SIGBUS ? &old_bus : NULL;
  if (sig == SIGURG && preempt_enabled() && load_rlx(&sched.started)) {
    preempt_chain(act, old);
    return true;
  }
  struct sigaction now;
  if (!kept || sigaction(sig, NULL, &now) != 0 || now.sa_sigaction != sigfault) return false;
  if (old) *old = *kept;
  if (act) *kept = *act;
  return true;
}

void os_init_signals(void) {
  os_note_mask();
  if (os_signals_left()) return;
  struct sigaction kick = {.sa_handler = kicked}; /* no SA_RESTART */
  sigemptyset(&kick.sa_mask);
  sigaction(os_kick_signal(), &kick, NULL);
  os_check_signals();
}
