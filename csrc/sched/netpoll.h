/* netpoll.h - waiting for descriptors: netpoll.c; the poller itself: netpoll_epoll.c. */
#ifndef GMPRT_SCHED_NETPOLL_H
#define GMPRT_SCHED_NETPOLL_H

#include "sched/m.h"

enum { POLL_READ = 0, POLL_WRITE = 1 };
typedef struct pollDesc pollDesc;
typedef struct pollwait { /* one descriptor that a goroutine waits for */
  pollDesc *pd;
  int fd;
  bool want[2];    /* POLL_READ, POLL_WRITE */
  uint32_t seq[2]; /* events before the attempt that failed */
  uint32_t closes; /* before the first */
} pollwait;
pollDesc *netpolldesc(int fd);
bool netpollwatch(pollwait *w, int fd, bool in, bool out);
bool netpollgone(const pollwait *w);
void netpollsample(pollwait *w);
wake_t netpollwait(pollwait *w, uint32_t n, int64_t deadline, bool hosted);
void netpollclosing(int fd);
void netpollclosing_range(unsigned first, unsigned last);
void netpollreplacing(int fd);
void netpollclosed(int fd);
void netpollclosed_range(unsigned first, unsigned last);
void netpollopened(int fd);
uint64_t netpollmodes(void);
void netpollmodechange(void);
bool netpollplain(const pollwait *w);
void netpollsetplain(const pollwait *w, uint64_t modes);
void netpollaudit(void);
bool netpoll_unaudited(void);
uint32_t netpoll_waiters(void);
uint32_t netpoll_native_waiters(void); /* of them */
void netpoll_afterfork(void);
void netpollready(int fd, bool in, bool out, G **list);
void injectglist(G *list);
void netpollreopened(void);

/* netpoll_epoll.c */
int netpollinit(void);
const char *netpoll_mode(void);
void netpollbreak(void);
bool netpoll_broken(void);
void netpollrepair(void);
G *netpoll(int64_t delay_ns);
bool netpolladd(int fd);
void netpolldel(int fd);
void netpoll_epoll_afterfork(void);

#endif
