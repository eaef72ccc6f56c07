/* traceback.c - words for dumps: Go's wait reasons, so that a dump reads like Go's. */
#include "sched/g.h"

const char *waitreason_name(uint8_t why) {
  static const char *const names[waitReasonCount] = {
      [waitReasonZero] = "",
      [waitReasonIOWait] = "IO wait",
      [waitReasonSleep] = "sleep",
      [waitReasonChanReceive] = "chan receive",
      [waitReasonChanReceiveNil] = "chan receive (nil chan)",
      [waitReasonChanSend] = "chan send",
      [waitReasonChanSendNil] = "chan send (nil chan)",
      [waitReasonSelect] = "select",
      [waitReasonSelectNoCases] = "select (no cases)",
      [waitReasonSemacquire] = "semacquire",
      [waitReasonMutexLock] = "sync.Mutex.Lock",
      [waitReasonWaitGroupWait] = "sync.WaitGroup.Wait",
      [waitReasonJoin] = "join",
      [waitReasonStopTheWorld] = "stopping the world",
      [waitReasonSignal] = "wait for signal",
      [waitReasonChild] = "wait for process",
  };
  return why < waitReasonCount ? names[why] : "?";
}
