/* stw.pml - stopping the world beside a lock that the world itself needs.
 *
 * Protocol: section 8 (stop-the-world), and the retake of section 3 against it.
 *
 * The world is stopped when every P is STOPPED or on the idle list.  A P in HOST is stopped by CAS, whatever
 * its M does; a RUNNING one is asked and gives way by itself.  Dumps and fork need the GIL as well and take
 * it first; gomaxprocs needs the world only.
 *
 * Parameters
 *   BOTH     threads that stop the world with the GIL (dump, fork)
 *   WORLD    threads that stop it without (gomaxprocs)
 *   PYTHON   Ms that run Python goroutines, each starts with a P
 *   ROUNDS   times each of them takes the GIL and pins its P
 *   PS       processors, PYTHON of them in use, the others idle
 *   TASKS    native goroutines, run by an M of its own
 *   RETAKE   sysmon takes Ps in HOST and hands them off
 *   SHRINK   a stop without the GIL ends P 1
 *
 * Broken variants.  The rules guard against each other's absence: 1 and 2 must both be broken to deadlock.
 *   BROKEN_WORLD_THEN_GIL       rule 1: stop first, then take the GIL
 *   BROKEN_PIN_WAITS_WITH_GIL   rule 2: a failed pin waits for the restart with the GIL in hand
 *   BROKEN_SEMA_WAITS_WITH_GIL  rule 2: the right to stop is waited for with the GIL in hand
 *   BROKEN_HOST_BY_REQUEST      rule 3: a P in HOST is waited for, not stopped by CAS
 *   BROKEN_IDLE_NOT_FROZEN      a P may leave the idle list while a stop is under way
 *   BROKEN_TRANSIT_IS_STOPPED   a P on its way from retake to idle list or M counts as stopped
 *   BROKEN_PIN_LOADS_TWICE      a pin whose CAS fails asks a second load, not the CAS, whether its P is stopped
 *
 * Abstracted
 *   Memory is sequentially consistent.  Preemption requests are answered between any two native goroutines.
 *   Wake-ups of sleeping Ms are conditions to wait for (licence.pml has their protocol).
 *
 * Invariants
 *   1. While the world is stopped no P runs native work, is pinned, or changes hands (asserts on
 *      `stopped`).
 *   2. While it is stopped with the GIL, the stopper has the GIL.
 *   3. At rest: everybody done, GIL and worldsema free, no P STOPPED or in transit, none in HOST (check). */

#ifndef BOTH
#define BOTH 1
#endif
#ifndef WORLD
#define WORLD 1
#endif
#ifndef PYTHON
#define PYTHON 1
#endif
#ifndef ROUNDS
#define ROUNDS 2
#endif
#ifndef PS
#define PS 2
#endif
#ifndef TASKS
#define TASKS 1
#endif

/* P.status.  An IDLE P that is not `listed` is in transit: with sysmon, or with an M about to wake. */
#define IDLE 0
#define RUNNING 1
#define HOST 2
#define STOPPED 3
#define DEAD 4
#define OF(who, state) ((who) * 8 + (state))
#define STATE(p) (pst[p] % 8)

/* Thread ids: Python Ms from 1, then the native M, then the stoppers. */
#define NOBODY 0
#define NATIVE (PYTHON + 1)

byte gil, worldsema;
bool gcwaiting;        /* a stop is under way */
bool stopped;          /* ghost: ... and complete */
byte pst[PS + 1];
bool listed[PS + 1];   /* on the idle list */
byte nextp;            /* the P that startm gave to the native M */
byte tasks = TASKS;
byte rest;             /* processes at their end */

inline take_gil(who) { atomic { gil == NOBODY -> gil = who } }
inline drop_gil(who) { d_step { assert(gil == who); gil = NOBODY } }

/* p := a P from the idle list, or 0; sched.lock makes it one step. */
#ifdef BROKEN_IDLE_NOT_FROZEN
#define FROZEN false
#else
#define FROZEN gcwaiting
#endif
inline pidleget(p, to) {
  d_step {
    p = (FROZEN -> 0 : (listed[1] -> 1 : (PS > 1 && listed[PS] -> PS : 0)));
    if
    :: p -> assert(!stopped); listed[p] = false; pst[p] = to
    :: else
    fi
  }
}
inline pidleput(p) { d_step { pst[p] = IDLE; listed[p] = true; p = 0 } }

/* ---- those who are stopped ----------------------------------------------------------------------- */

/* One CAS.  seen: the state in which it found p; HOST: it has succeeded.  DEAD stands for "another's". */
inline cas_pin(p, me, seen) {
  d_step {
    seen = (pst[p] / 8 == me -> STATE(p) : DEAD);
    if
    :: seen == HOST -> pst[p] = OF(me, RUNNING)
    :: else
    fi
  }
#ifdef BROKEN_PIN_LOADS_TWICE
  if
  :: seen != HOST -> seen = (pst[p] == OF(me, STOPPED) -> STOPPED : DEAD)
  :: else
  fi
#endif
}

/* Runs Python goroutines that ready native ones: takes the GIL, pins, touches the P. */
proctype python(byte me) {
  byte p = me, n = ROUNDS, seen;

again:
  take_gil(me);
pin:
  if
  :: p == 0 -> pidleget(p, OF(me, HOST)); goto unpinned
  :: else -> cas_pin(p, me, seen)
  fi;
  if
  :: seen == HOST
  :: seen == STOPPED ->
#ifndef BROKEN_PIN_WAITS_WITH_GIL
     drop_gil(me);
#endif
     pst[p] != OF(me, STOPPED);
#ifndef BROKEN_PIN_WAITS_WITH_GIL
     take_gil(me);
#endif
     goto pin
  :: else -> p = 0; goto pin
  fi;
  assert(!stopped && pst[p] == OF(me, RUNNING));
  pst[p] = OF(me, HOST);
unpinned:
  drop_gil(me);
  n--;
  if
  :: n -> goto again
  :: else
  fi;

  /* The M ends; its P, if it still has it, is given up. */
leave:
  if
  :: p == 0 -> seen = DEAD
  :: else -> cas_pin(p, me, seen)
  fi;
  if
  :: seen == HOST -> assert(!stopped); pidleput(p)
  :: seen == STOPPED -> pst[p] != OF(me, STOPPED); goto leave
  :: else -> p = 0
  fi;
  rest++
}

proctype native() {
  byte p;

idle:
end_idle:
  if
  :: atomic { nextp -> p = nextp; nextp = 0 }
     assert(!stopped);
     pst[p] = OF(NATIVE, RUNNING)
  :: atomic { tasks && !FROZEN && (listed[1] || listed[PS]) -> skip }
     pidleget(p, OF(NATIVE, RUNNING));
     if
     :: p
     :: else -> goto idle
     fi
  fi;
schedule:
  if
  :: gcwaiting -> pidleput(p); goto idle
  :: else
  fi;
  if
  :: atomic { tasks -> tasks-- }
     assert(!stopped && pst[p] == OF(NATIVE, RUNNING));
     goto schedule
  :: tasks == 0
  fi;
  pidleput(p);
  goto idle
}

#ifdef RETAKE
proctype sysmon() {
  byte p;

end_sysmon:
  if
  :: atomic { STATE(1) == HOST -> p = 1; pst[1] = IDLE }
#if PS > 1
  :: atomic { STATE(PS) == HOST -> p = PS; pst[PS] = IDLE }
#endif
  fi;
  if
  :: tasks && !gcwaiting && nextp == 0 -> d_step { nextp = p; p = 0 }
  :: else -> pidleput(p)
  fi;
  goto end_sysmon
}
#endif

/* ---- those who stop ------------------------------------------------------------------------------ */

#ifdef BROKEN_TRANSIT_IS_STOPPED
#define RESTS(p) (listed[p] || STATE(p) == IDLE || STATE(p) == STOPPED || STATE(p) == DEAD)
#else
#define RESTS(p) (listed[p] || STATE(p) == STOPPED || STATE(p) == DEAD)
#endif

inline stop(i) {
  gcwaiting = true;
  i = 1;
  do
  :: i > PS -> break
  :: else ->
     if
     :: RESTS(i) -> i++
#ifndef BROKEN_HOST_BY_REQUEST
     :: atomic { STATE(i) == HOST -> pst[i] = pst[i] - HOST + STOPPED }
#endif
     fi
  od;
  stopped = true
}

/* One step at a time is seen by Ms that poll: gcwaiting first, then the Ps, then the right to stop. */
inline start(i) {
  d_step { stopped = false; gcwaiting = false; i = 1 }
  do
  :: i > PS -> break
  :: i <= PS && STATE(i) == STOPPED -> pst[i] = pst[i] - STOPPED + HOST; i++
  :: i <= PS && STATE(i) != STOPPED -> i++
  od;
  worldsema = NOBODY
}

proctype both(byte me) {
  byte i;

#ifdef BROKEN_WORLD_THEN_GIL
#ifdef BROKEN_SEMA_WAITS_WITH_GIL
  /* a Python goroutine: has the GIL, gives it up for the stop only */
  take_gil(me);
  atomic { worldsema == NOBODY -> worldsema = me }
  drop_gil(me);
#else
  atomic { worldsema == NOBODY -> worldsema = me }
#endif
  stop(i);
  take_gil(me);
#else
  take_gil(me);
#ifdef BROKEN_SEMA_WAITS_WITH_GIL
  atomic { worldsema == NOBODY -> worldsema = me }
#else
  do
  :: atomic { worldsema == NOBODY -> worldsema = me; break }
  :: worldsema != NOBODY ->
     drop_gil(me);
     worldsema == NOBODY;
     take_gil(me)
  od;
#endif
  stop(i);
#endif
  assert(gil == me && worldsema == me);
  start(i);
  drop_gil(me);
  rest++
}

proctype world(byte me) {
  byte i;

  atomic { worldsema == NOBODY -> worldsema = me }
  stop(i);
  assert(worldsema == me);
#ifdef SHRINK
  d_step { pst[1] = DEAD; listed[1] = false }
#endif
  start(i);
  rest++
}

/* Nothing moves any more. */
proctype check() {
  timeout ->
  assert(rest == PYTHON + BOTH + WORLD && tasks == 0 && nextp == 0);
  assert(gil == NOBODY && worldsema == NOBODY && !gcwaiting && !stopped);
  assert(listed[1] || STATE(1) == DEAD);
  assert(listed[PS] || STATE(PS) == DEAD)
}

init {
  atomic {
    pst[1] = OF(1, HOST);
#if PYTHON > 1
    pst[2] = OF(2, HOST);
#endif
#if PS > PYTHON
    listed[PS] = true;
#endif
    run python(1);
#if PYTHON > 1
    run python(2);
#endif
    run native();
#ifdef RETAKE
    run sysmon();
#endif
#if BOTH > 0
    run both(PYTHON + 2);
#endif
#if BOTH > 1
    run both(PYTHON + 3);
#endif
#if WORLD > 0
    run world(PYTHON + 4);
#endif
#if WORLD > 1
    run world(PYTHON + 5);
#endif
    run check()
  }
}
