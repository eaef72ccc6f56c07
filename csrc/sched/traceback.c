/* traceback.c - words for dumps: Go's wait reasons, so that a dump reads like Go's. */
#include "sched/g.h"

const char *waitreason_name(uint8_t why) {
  static const char *const names[waitReasonCount] = {
      [waitReasonZero] = "",
      [waitReasonIOWait] = "IO wait",
      [waitReasonSleep] = "sleep",
      [waitReasonChanReceive] = "chan receive",
      [waitReasonChanSend] = "chan send",
      [waitReasonSelect] = "select",
      [waitReasonSelectNoCases] = "select (no cases)",
      [waitReasonSemacquire] = "semacquire",
      [waitReasonMutexLock] = "sync.Mutex.Lock",
      [waitReasonRWMutexRLock] = "sync.RWMutex.RLock",
      [waitReasonRWMutexLock] = "sync.RWMutex.Lock",
      [waitReasonCondWait] = "sync.Cond.Wait",
      [waitReasonWaitGroupWait] = "sync.WaitGroup.Wait",
      [waitReasonJoin] = "join",
      [waitReasonSignal] = "wait for signal",
  };
  return why < waitReasonCount ? names[why] : "?";
}
