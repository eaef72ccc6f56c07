/* idle.pml - Ms and Ps without work: who sleeps where, and why no wake-up is lost.
 *
 * Protocol: the head of sched/wake.c; sysmon's sleep, sysmon.c.
 *
 * An M that finds nothing puts its P on the idle list, looks once more, and sleeps: in the poller if somebody must
 * and nobody does, else on its note.  Whoever has work for it starts an M with an idle P, unless an M spins, which
 * will see the work.  Others give Ps away (a blocking call), and take them back.  Sysmon serves the poller when all
 * are busy, sees work behind a goroutine that woke nobody for it, and sleeps deeply when all Ps are idle.
 *
 * Parameters
 *   MS, PS     machines (enough for all who block, and the poller), processors
 *   GOS        native goroutines, started by a thread
 *   WAITS      times that one of them waits for its descriptor
 *   BREAKS     times that the poller's sleep ends for nothing
 *   CALLS      blocking calls; each returns only when all other work is done, so nobody can count on its return
 *   HOSTED     Python goroutines that wait for a descriptor
 *   HCALLS     of them, woken, take licence and P along into a call and do not come back
 *   HOGS       native goroutines that, woken from a wait, run until all Python ones are done.  Descriptors are then
 *              ready all at once
 *   QUIET      native goroutines that ready another without a wake (alone in runnext), then run until that is done
 *   SYSMON     there is one.  It mends much, so what does not need it is checked without
 *   SC         no store buffers
 *
 * Broken variants
 *   BROKEN_HANDOFF_FORGETS_POLLER   who gives a P away looks for work behind that, but not at the poller
 *   BROKEN_DRIVER_FORGETS_POLLER    the same when it was the driver's, for whose sake nobody slept in the poller
 *   BROKEN_NO_LOOK_AFTER_RETAKE     who leaves the poller and finds no P looks for work before it sleeps, but not at
 *                                   the poller.  Without calls a store buffer is needed to fail: SC passes
 *   BROKEN_LOOK_FORGETS_L           an M that picks native work leaves to others what it has itself made runnable
 *                                   for L, without a wake
 *   BROKEN_VAIN_WAKE_UNLOCKED       a wake that finds no P gives its count of spinning Ms back outside sched.lock
 *   BROKEN_NO_FENCE_AFTER_PUSH      a push, then wakep, without a fence between
 *   BROKEN_NO_LOOK_AGAIN            a P goes to the idle list, and nothing is looked at again
 *   BROKEN_NO_RESETSPINNING         who finds work while spinning leaves the next wake to nobody
 *   BROKEN_SYSMON_NO_RECHECK        sysmon announces its deep sleep and does not look at the Ps again
 *   BROKEN_SYSMON_NOT_WOKEN         an M that takes a P does not look whether sysmon sleeps
 *
 * Abstracted
 *   Memory is that of x86: what matters is one store that may be late, lastpoll when its sleeper leaves, and the push
 *   of a thread.  They stand in a buffer until a fence or read-modify-write of their thread, or until it pleases the
 *   memory.  Everything else is sequentially consistent.  Deadlines are descriptors: time.c has the protocol by which
 *   a new one shortens a sleep.  Rings, runnext and the global queue are one queue, but for QUIET.  L is driven in one
 *   step: licence.pml has its protocol.  Wake-ups of Ms are one rule: a P that was handed out is taken by any M that
 *   sleeps on its note.
 *
 * Invariants
 *   1. The idle list and the counts are never negative (assertions at each decrement).
 *   2. At rest: all goroutines done, all Ps idle, nobody spins (check). */

#ifndef MS
#define MS 2
#endif
#ifndef PS
#define PS 1
#endif
#ifndef GOS
#define GOS 1
#endif
#ifndef WAITS
#define WAITS 1
#endif
#ifndef BREAKS
#define BREAKS 0
#endif
#ifndef CALLS
#define CALLS 0
#endif
#ifndef HOSTED
#define HOSTED 0
#endif
#ifndef HCALLS
#define HCALLS 0
#endif
#ifndef HOGS
#define HOGS 0
#endif
#ifndef QUIET
#define QUIET 0
#endif
#define TOTAL (GOS + QUIET)

byte idle = PS;        /* npidle: Ps on the idle list */
byte nmspinning;
bool polling;          /* lastpoll == 0 */
byte handed, handed_spinning; /* Ps with an M that has not woken yet; the M spins */

byte nwork, lwork;     /* runnable: native, L */
bool holder;           /* L is driven */
byte waiters, lwaiters = HOSTED; /* wait for a descriptor */
byte ready, lready;    /* ... and something has happened to it */
bool broken;           /* netpollbreak */

bool sysmonwait, sysmon_poke; /* asleep, or about to be; woken */

byte waits = WAITS, calls = CALLS, hcalls = HCALLS, hogs = HOGS, quiet = QUIET; /* still to come */
byte ncalls;           /* in a call */
byte done, ldone;

/* ---- memory -------------------------------------------------------------------------------------- */

#define THREAD 0
bool late_poll[MS + 1]; /* this M's lastpoll := now */
bool late_push;         /* the thread's push */

/* Fences, and every read-modify-write. */
inline fence(me) {
  if
  :: me == THREAD -> !late_push
  :: else -> !late_poll[me]
  fi
}

proctype memory() {
  byte i = 1;
end_memory:
  if
  :: atomic { late_push -> late_push = false; nwork++ }
  :: atomic { late_poll[1] -> late_poll[1] = false; polling = false }
#if MS > 1
  :: atomic { late_poll[2] -> late_poll[2] = false; polling = false }
#endif
#if MS > 2
  :: atomic { late_poll[3] -> late_poll[3] = false; polling = false }
#endif
  fi;
  goto end_memory
}

/* ---- waking ---------------------------------------------------------------------------------------- */

#define LWAITING (lwork > 0 && !holder)
#define WORK (nwork > 0 || LWAITING)
#define DRIVER_POLLS (holder && waiters == 0)
#define POLLER_MISSING (!polling && waiters + lwaiters > 0 && !DRIVER_POLLS)

/* Two loads, the CAS, and sched.lock. */
inline wakep(me) {
  if
  :: idle == 0
  :: else ->
     if
     :: nmspinning != 0
     :: else ->
        fence(me);
        if
        :: atomic { nmspinning == 0 -> nmspinning = 1 }
#ifdef BROKEN_VAIN_WAKE_UNLOCKED
           if
           :: atomic { idle > 0 -> idle--; handed_spinning++ }
           :: idle == 0 -> nmspinning--
           fi
#else
           d_step {
             if
             :: idle > 0 -> idle--; handed_spinning++
             :: else -> nmspinning--
             fi
           }
#endif
        :: nmspinning != 0
        fi
     fi
  fi
}

/* A P has been taken: is sysmon asleep? */
inline acquired() {
#if defined(SYSMON) && !defined(BROKEN_SYSMON_NOT_WOKEN)
  if
  :: atomic { sysmonwait -> sysmonwait = false; sysmon_poke = true }
  :: !sysmonwait
  fi
#else
  skip
#endif
}

/* ---- M ----------------------------------------------------------------------------------------------- */

proctype M(byte me) {
  bool spinning, got;
  byte claimed, lclaimed; /* by netpoll, not made runnable yet */

asleep: /* stopm: no P */
end_asleep:
  if
  :: atomic { handed > 0 -> handed-- }
  :: atomic { handed_spinning > 0 -> handed_spinning--; spinning = true }
  fi;
taken:
  acquired();

look: /* with a P; the goroutines that it readies itself wake nobody */
  if
  :: atomic { ready + lready > 0 && !polling ->
       waiters = waiters - ready; nwork = nwork + ready; ready = 0;
       lwaiters = lwaiters - lready; lwork = lwork + lready; lready = 0 }
  :: !(ready + lready > 0 && !polling)
  fi;
  if
  :: atomic { nwork > 0 -> nwork-- }
     goto found
  :: atomic { LWAITING -> holder = true }
     goto drive
  :: !WORK
  fi;
  if
  :: !spinning -> nmspinning++; spinning = true; goto look /* once more, to steal */
  :: true
  fi;
  atomic { /* sched.lock: nothing in the global queue, and the P is idle */
    if
    :: nwork > 0 -> goto look
    :: else -> idle++
    fi
  }
#ifdef BROKEN_NO_LOOK_AGAIN
  if
  :: spinning -> spinning = false; nmspinning--
  :: else
  fi;
  goto poller;
#endif
  if
  :: spinning -> spinning = false; assert(nmspinning > 0); nmspinning--
  :: else
  fi;
  if
  :: WORK -> /* regainp */
     atomic {
       if
       :: idle > 0 -> idle--
       :: else -> goto poller
       fi
     }
     atomic { nmspinning++; spinning = true }
     goto taken
  :: else
  fi;

poller:
  if
  :: waiters + lwaiters == 0 || DRIVER_POLLS -> goto asleep
  :: else
  fi;
  atomic { /* xchg */
    if
    :: polling -> goto asleep
    :: else -> polling = true
    fi
  }
end_poller:
  atomic {
    ready + lready > 0 || broken;
    broken = false;
    waiters = waiters - ready; claimed = ready; ready = 0;
    lwaiters = lwaiters - lready; lclaimed = lready; lready = 0
  }
  atomic { nmspinning++; spinning = true }
#ifdef SC
  polling = false;
#else
  late_poll[me] = true;
#endif
  if /* regainp: a load, then sched.lock */
  :: idle == 0 -> got = false
  :: else ->
     fence(me);
     d_step {
       got = (idle > 0);
       if
       :: got -> idle--
       :: else
       fi
     }
  fi;
  atomic { /* injectglist: somebody spins, so it wakes nobody */
    nwork = nwork + claimed; claimed = 0;
    lwork = lwork + lclaimed; lclaimed = 0
  }
  if
  :: got -> got = false; goto taken
  :: else
  fi;
  fence(me);
  atomic { spinning = false; assert(nmspinning > 0); nmspinning-- }
#ifdef BROKEN_NO_LOOK_AFTER_RETAKE
  if
  :: WORK -> wakep(me)
  :: else
  fi;
#else
  if
  :: WORK || POLLER_MISSING -> wakep(me)
  :: else
  fi;
#endif
  goto asleep;

drive: /* L: the licence is ours */
  if
  :: spinning ->
     atomic { spinning = false; assert(nmspinning > 0); nmspinning-- }
     if
     :: WORK -> wakep(me)
     :: else
     fi
  :: !spinning && nwork > 0 -> wakep(me)
  :: !spinning && nwork == 0
  fi;
  do
  :: atomic { lwork > 0 -> lwork--; ldone++ }
#if HCALLS
     if
     :: atomic { hcalls > 0 -> hcalls--; holder = false }
        goto blocks_hosted
     :: true
     fi
#endif
  :: lwork == 0 -> break
  od;
  holder = false;
  goto look;

found: /* a native goroutine */
  if
  :: spinning ->
     atomic { spinning = false; assert(nmspinning > 0); nmspinning-- }
#ifndef BROKEN_NO_RESETSPINNING
     if
     :: WORK -> wakep(me)
     :: else
     fi
#endif
#ifndef BROKEN_LOOK_FORGETS_L
  :: !spinning && LWAITING -> wakep(me)
  :: !spinning && !LWAITING
#else
  :: !spinning
#endif
  fi;
  if
  :: atomic { waits > 0 -> waits--; waiters++ } /* parks */
     goto look
#if QUIET
  :: atomic { quiet > 0 -> quiet--; nwork++ } /* alone in runnext */
     done == TOTAL - 1
#endif
#if HOGS
  :: atomic { waits == 0 && hogs > 0 -> hogs-- }
     ldone == HOSTED
#endif
#if CALLS
  :: atomic { calls > 0 -> calls--; ncalls++ }
     goto blocks
#endif
  :: quiet + hogs == 0
  fi;
  done++;
  goto look;

#if HCALLS
blocks_hosted: /* entersyscall_host, sysmon: handoffp */
#ifdef BROKEN_DRIVER_FORGETS_POLLER
  if
  :: WORK -> handed++
  :: else ->
     idle++;
     if
     :: WORK -> wakep(me)
     :: else
     fi
  fi;
#else
  if
  :: (WORK || POLLER_MISSING) -> handed++
  :: else ->
     idle++; /* sched.lock: a fence */
     if
     :: WORK || POLLER_MISSING -> wakep(me)
     :: else
     fi
  fi;
#endif
  goto asleep;
#endif

#if CALLS
blocks: /* handoffp: the P is ours to give */
  if
  :: (WORK || POLLER_MISSING) -> handed++
  :: else ->
     idle++; /* sched.lock: a fence */
#ifdef BROKEN_HANDOFF_FORGETS_POLLER
     if
     :: WORK -> wakep(me)
     :: else
     fi
#else
     if
     :: WORK || POLLER_MISSING -> wakep(me)
     :: else
     fi
#endif
  fi;
end_call:
  done == TOTAL - ncalls && ldone == HOSTED;
  ncalls--;
  d_step { /* exitsyscall */
    got = (idle > 0);
    if
    :: got -> idle--
    :: else
    fi
  }
  if
  :: got ->
     got = false;
     acquired();
     done++;
     goto look
  :: else ->
     nwork++;
     wakep(me);
     goto asleep
  fi
#endif
}

/* ---- the others ----------------------------------------------------------------------------------------- */

#ifdef SYSMON
#define ALL_REST (idle == PS && !holder)

proctype sysmon() {
end_sysmon:
  if
  :: atomic { !polling && ready + lready > 0 -> /* serve */
       waiters = waiters - ready; nwork = nwork + ready; ready = 0;
       lwaiters = lwaiters - lready; lwork = lwork + lready; lready = 0 }
     if
     :: WORK -> wakep(THREAD)
     :: else
     fi
  :: nwork > 0 && idle > 0 && nmspinning == 0 -> wakep(THREAD)
  :: ALL_REST ->
     sysmonwait = true;
#ifndef BROKEN_SYSMON_NO_RECHECK
     if
     :: ALL_REST
     :: else -> goto awake
     fi;
#endif
end_deep:
     sysmon_poke;
awake:
     atomic { sysmonwait = false; sysmon_poke = false }
  fi;
  goto end_sysmon
}
#endif

/* Starts goroutines: globrunqput, unlock, wakep. */
proctype thread() {
  byte n = GOS;

  do
  :: n > 0 ->
#ifdef BROKEN_NO_FENCE_AFTER_PUSH
     !late_push;
     late_push = true;
#else
     nwork++;
#endif
     wakep(THREAD);
     n--
  :: else -> break
  od
}

/* Something happens to a descriptor; somebody breaks the poller's sleep. */
proctype kernel() {
  byte breaks = BREAKS;
end_kernel:
  if
#if HOGS
  :: atomic { waiters > 0 && ready == 0 -> ready = waiters; lready = lwaiters } /* seen by one look */
#else
  :: atomic { waiters > ready -> ready++ }
#if HOSTED
  :: atomic { lwaiters > lready -> lready++ }
#endif
#endif
#if BREAKS
  :: atomic { breaks > 0 && polling -> breaks--; broken = true }
#endif
  fi;
  goto end_kernel
}

/* Everything sleeps. */
proctype check() {
  timeout ->
  assert(done == TOTAL - quiet && ldone == HOSTED);
  assert(nwork == 0 && lwork == 0 && waiters + lwaiters == 0 && !holder);
  assert(idle == PS && nmspinning == 0 && handed + handed_spinning == 0)
}

init {
  atomic {
    run M(1);
#if MS > 1
    run M(2);
#endif
#if MS > 2
    run M(3);
#endif
#ifdef SYSMON
    run sysmon();
#endif
    run thread();
    run kernel();
    run memory();
    run check()
  }
}
