/* fatal.c - throw() and fatal(): the last words of a process.
 *
 * What stands above the base (who runs here, in which state) is told by throw_describe, which the scheduler sets. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/base.h"

void (*throw_describe)(char *out, size_t size);

void throw_at(const char *file, int line, const char *fmt, ...) {
  char text[512];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  char who[256] = "no goroutine: the runtime has not started", out[1024];
  if (throw_describe) throw_describe(who, sizeof who);
  int n = snprintf(out, sizeof out, "fatal: gmprt: %s\n\tat %s:%d\n\ton %s\n", text, file, line, who);
  if (write(2, out, n > 0 ? (size_t)n : 0) < 0) _exit(134);
  abort();
}

void fatal(const char *fmt, ...) {
  char text[512], out[600];
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(text, sizeof text, fmt, ap);
  va_end(ap);
  int n = snprintf(out, sizeof out, "fatal: gmprt: %s\n", text);
  if (write(2, out, n > 0 ? (size_t)n : 0) < 0) _exit(FATAL_STATUS);
  _exit(FATAL_STATUS);
}
