/* tunables.h - constants of the runtime that are choices, with the reason; one that a single file has stands
 * there.  Go's where Go has one (facts in runtime/proc.go, time.go, chan.go of Go 1.27). */
#ifndef GMPRT_TUNABLES_H
#define GMPRT_TUNABLES_H

enum {
  RUNQ_SIZE = 256,        /* ring of a P and of L (Go) */
  SCHED_TICK_GLOBAL = 61, /* every 61st pick looks at the global queue / overflow list first (Go) */
  GLOBAL_BATCH = 128,     /* most goroutines taken from the global queue at once (Go) */
  MAX_PROCS = 256,        /* upper limit of gomaxprocs(): allp is a static table */
  MAX_MS = 10000,         /* default of set_max_threads() (Go's SetMaxThreads) */

  SPIN_LOOKS = 4,     /* a spinning M looks this often for work before it sleeps (Go: 4 rounds) */
  SPIN_PAUSES = 1000, /* pauses between two looks, about 10 us: a thief that merely looks at a busy
                         owner's indices triples the owner's ping-pong */

  SYSMON_MIN_US = 20,      /* pace of sysmon at its most attentive (Go) */
  SYSMON_MAX_US = 10000,   /* ... and at its laziest (Go) */
  SYSMON_BUSY_US = 1000,   /* laziest while work waits behind a running goroutine */
  SYSMON_POLL_NS = 2000000, /* all Ms busy: descriptors are looked at this often (Go: 10 ms) */
  SYSMON_IDLE_ROUNDS = 50, /* rounds without a retake before the pace starts to double (Go) */
  SLICE_NS = 10000000,     /* one slice (Go's forcePreemptNS) */
  PATIENT_SLICES = 5,     /* a request to yield unanswered for so long: the hog shares the host lock instead */
  TURN_NS = 1000000,       /* a P with both Python and native work changes sides after 1 ms */
  DETACHED_NS = 10000000,  /* a goroutine detached this long counts as blocked, whoever holds the GIL */
  AUDIT_S = 1,             /* a descriptor closed where we do not see it is found out after this long */
  M_IDLE_REAP_S = 10,      /* an M idle this long ends its thread (Go never does) */

  STACK_NATIVE = 64 << 10,  /* slot of a native goroutine */
  STACK_CHUNK_SLOTS = 256,  /* slots reserved by one mmap */
  STACK_COLOURS = 64,       /* page colours of the stack tops */
  STACK_SLACK = 64 << 10,   /* below a waiting goroutine's frames, left to it: an ordinary call's */
  GFREE_KEEP = 256,         /* hosted stacks kept when the process has been idle for long */
  CROWD_MOST = 1 << 16,     /* goroutines that fall asleep as fast as they are made; fewer where their stacks and page tables */
  CROWD_LEAST = 1024,       /* would be more than a quarter of the memory that the process may have (l->crowd) */
  POOL_SHARE = 8,           /* hosted stacks kept for the next goroutines at most: an eighth of that */
  DROP_BATCH = 1024,        /* goroutines of a crowd that fall asleep at once, and stacks that sysmon empties then, 1.5 ms;
                               else a quarter of it */
  TRIM_BATCH = 64,          /* stacks whose pages sysmon drops in one round: some 100 us */
  SHED_S = 1,               /* what a crowd has left beside its stacks goes after this long */
  HEAP_SHARE = 16 << 10,    /* the heap is trimmed if the process has no more memory than so many bytes for each of a crowd */
  STATES_BATCH = 256,       /* host states freed at once, with the host lock held: a quarter of a millisecond */
  GFREE_LOCAL = 64,         /* dead native goroutines a P keeps; above, half go to the depot (Go) */
  G_SLAB_SIZE = 64 << 10,   /* of Gs allocated at once: a page of any kernel */
  M_STACK = 256 << 10,      /* pthread stack of an M: g0 runs only the scheduler */
  MUTEX_SPINS = 4,          /* rounds in which a native Mutex is awaited awake (Go's active_spin) */
  MUTEX_PAUSES = 30,        /* pauses in each (Go's active_spin_cnt) */
  MUTEX_STARVE_NS = 1000000 /* a Mutex waiter older than 1 ms is handed the lock (Go) */
};

#endif
