/* name.c - names to addresses and back.
 *
 * The C library asks files and servers itself, with calls that nobody can intercept: such a call blocks its
 * thread, so P and licence are handed off before.  An address in figures is a question to nobody. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netdb.h>
#include <string.h>

#include "py/interpose/hooks/hooks.h"

static bool host_in_figures(const char *node) {
  unsigned char out[sizeof(struct in6_addr)];
  return !node || inet_pton(AF_INET, node, out) == 1 || inet_pton(AF_INET6, node, out) == 1;
}

static bool service_in_figures(const char *service) {
  return !service || service[strspn(service, "0123456789")] == '\0';
}

int hook_getaddrinfo(const char *node, const char *service, const void *hints, void **res) {
  if (!host_in_figures(node) || !service_in_figures(service)) call_handoff();
  return real.getaddrinfo(node, service, hints, res);
}

int hook_getnameinfo(const struct sockaddr *a, socklen_t len, char *host, socklen_t hostlen, char *serv,
                     socklen_t servlen, int flags) {
  enum { FIGURES = NI_NUMERICHOST | NI_NUMERICSERV };
  if ((flags & FIGURES) != FIGURES) call_handoff();
  return real.getnameinfo(a, len, host, hostlen, serv, servlen, flags);
}

int hook_gethostbyname_r(const char *name, void *ret, char *buf, size_t len, void **res, int *err) {
  call_handoff();
  return real.gethostbyname_r(name, ret, buf, len, res, err);
}

int hook_gethostbyaddr_r(const void *addr, socklen_t alen, int type, void *ret, char *buf, size_t len,
                         void **res, int *err) {
  call_handoff();
  return real.gethostbyaddr_r(addr, alen, type, ret, buf, len, res, err);
}
