/* The floor: what any server that speaks the NATS protocol must at least spend on a message.
 *
 * One thread, one epoll. It parses CONNECT, PING, SUB, UNSUB, PUB and HPUB, finds exact subjects in
 * a hash table, writes the MSG or HMSG line and copies the payload, in large batches. It does nothing
 * else: no wildcards, no queue groups, no limits, no timers, no checks beyond what keeps it upright,
 * and a slow reader may make it use any amount of memory. It is a yardstick, not a server: the
 * comparison in benches/compare reports it beside real ones.
 *
 * usage: floor PORT    (listens on 127.0.0.1)
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { READ_BYTES = 256 * 1024, EVENTS = 512, OUT_FLUSH = 64 * 1024, SPARES = 256 };

/* Bytes with an end: everything that grows. */
struct bytes {
  char *at;
  size_t len, cap;
};

struct conn {
  int fd;
  char dirty;       /* stands in the list of connections to flush */
  char full;        /* the socket refused bytes: wait for EPOLLOUT */
  struct bytes in;  /* the tail of a read that holds no whole operation */
  struct bytes out; /* what the socket has not taken yet, from out_at on */
  size_t out_at;
  struct sub *subs, **subs_end; /* its subscriptions, the oldest first */
};

struct sub {
  struct conn *conn;
  struct topic *topic;
  struct sub *next;    /* the next one on the same subject */
  struct sub *younger; /* the next one of the same connection */
  char sid[12];
  uint8_t sid_len;
};

/* A subject and who listens to it. */
struct topic {
  struct topic *next; /* the next one in the same bucket */
  struct sub *subs;
  uint32_t hash;
  uint16_t len;
  char name[];
};

static struct topic **buckets;
static size_t bucket_count, topic_count;
static struct conn **dirty;
static size_t dirty_count, dirty_cap;
static struct bytes spares[SPARES]; /* output buffers that nobody uses now */
static size_t spare_count;
static int poll_fd;
static char read_buf[READ_BYTES];

static void *must(void *p) {
  if (!p) {
    fputs("floor: out of memory\n", stderr);
    exit(1);
  }
  return p;
}

static char *room(struct bytes *b, size_t more) {
  if (b->cap == 0 && spare_count > 0)
    *b = spares[--spare_count];
  if (b->len + more > b->cap) {
    b->cap = b->cap * 2 > b->len + more ? b->cap * 2 : b->len + more + 256;
    b->at = must(realloc(b->at, b->cap));
  }
  return b->at + b->len;
}

static void give_back(struct bytes *b) {
  b->len = 0;
  if (b->cap > 0 && spare_count < SPARES)
    spares[spare_count++] = *b;
  else
    free(b->at);
  *b = (struct bytes){0};
}

static uint32_t hash_of(const char *s, size_t len) {
  uint64_t h = 0x9e3779b97f4a7c15u ^ len, word;
  for (; len >= 8; s += 8, len -= 8) {
    memcpy(&word, s, 8);
    h = (h ^ word) * 0xff51afd7ed558ccdu;
    h ^= h >> 32;
  }
  word = 0;
  memcpy(&word, s, len);
  h = (h ^ word) * 0xc4ceb9fe1a85ec53u;
  return (uint32_t)(h ^ h >> 29);
}

static struct topic *find(const char *name, size_t len, uint32_t hash) {
  struct topic *t = buckets[hash & (bucket_count - 1)];
  while (t && (t->hash != hash || t->len != len || memcmp(t->name, name, len)))
    t = t->next;
  return t;
}

static void grow(void) {
  size_t count = bucket_count * 2;
  struct topic **larger = must(calloc(count, sizeof *larger));
  for (size_t i = 0; i < bucket_count; i++) {
    for (struct topic *t = buckets[i], *next; t; t = next) {
      next = t->next;
      t->next = larger[t->hash & (count - 1)];
      larger[t->hash & (count - 1)] = t;
    }
  }
  free(buckets);
  buckets = larger;
  bucket_count = count;
}

static void subscribe(struct conn *c, const char *name, size_t len, const char *sid, size_t sid_len) {
  if (len > UINT16_MAX || sid_len > sizeof((struct sub *)0)->sid)
    return;
  uint32_t hash = hash_of(name, len);
  struct topic *t = find(name, len, hash);
  if (!t) {
    if (topic_count++ == bucket_count)
      grow();
    t = must(malloc(sizeof *t + len));
    t->subs = NULL;
    t->hash = hash;
    t->len = (uint16_t)len;
    memcpy(t->name, name, len);
    t->next = buckets[hash & (bucket_count - 1)];
    buckets[hash & (bucket_count - 1)] = t;
  }
  struct sub *s = must(malloc(sizeof *s));
  s->conn = c;
  s->topic = t;
  s->sid_len = (uint8_t)sid_len;
  memcpy(s->sid, sid, sid_len);
  s->next = t->subs;
  t->subs = s;
  s->younger = NULL;
  *c->subs_end = s;
  c->subs_end = &s->younger;
}

/* Takes a subscription, to which `link` points, out of its connection and its topic. */
static void drop(struct sub **link) {
  struct sub *s = *link;
  struct topic *t = s->topic;
  *link = s->younger;
  if (!s->younger)
    s->conn->subs_end = link;
  struct sub **at = &t->subs;
  while (*at != s)
    at = &(*at)->next;
  *at = s->next;
  free(s);
  if (t->subs)
    return;
  struct topic **bucket = &buckets[t->hash & (bucket_count - 1)];
  while (*bucket != t)
    bucket = &(*bucket)->next;
  *bucket = t->next;
  topic_count--;
  free(t);
}

/* Quick for the oldest subscription, which is the one that the load takes out first. */
static void unsubscribe(struct conn *c, const char *sid, size_t sid_len) {
  struct sub **link = &c->subs;
  while (*link && ((*link)->sid_len != sid_len || memcmp((*link)->sid, sid, sid_len)))
    link = &(*link)->younger;
  if (*link)
    drop(link);
}

static void mark_dirty(struct conn *c) {
  if (c->dirty)
    return;
  c->dirty = 1;
  if (dirty_count == dirty_cap) {
    dirty_cap = dirty_cap ? dirty_cap * 2 : 64;
    dirty = must(realloc(dirty, dirty_cap * sizeof *dirty));
  }
  dirty[dirty_count++] = c;
}

/* Writes what the socket takes; a dead socket is noticed by the next read. */
static void flush(struct conn *c) {
  while (c->out_at < c->out.len) {
    ssize_t sent = send(c->fd, c->out.at + c->out_at, c->out.len - c->out_at, MSG_NOSIGNAL);
    if (sent <= 0)
      break;
    c->out_at += (size_t)sent;
  }
  char full = c->out_at < c->out.len;
  if (full != c->full) {
    struct epoll_event e = {.events = full ? EPOLLIN | EPOLLOUT : EPOLLIN, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_MOD, c->fd, &e);
    c->full = full;
  }
  if (!full) {
    give_back(&c->out);
    c->out_at = 0;
  } else if (c->out_at > c->out.len / 2) {
    memmove(c->out.at, c->out.at + c->out_at, c->out.len - c->out_at);
    c->out.len -= c->out_at;
    c->out_at = 0;
  }
}

static void say(struct conn *c, const char *text) {
  size_t len = strlen(text);
  memcpy(room(&c->out, len), text, len);
  c->out.len += len;
  mark_dirty(c);
}

struct word {
  const char *at;
  size_t len;
};

/* Splits a line at blanks and tabs. */
static int split(const char *at, const char *end, struct word *words, int max) {
  int count = 0;
  while (count < max) {
    while (at < end && (*at == ' ' || *at == '\t'))
      at++;
    if (at == end)
      break;
    const char *start = at;
    while (at < end && *at != ' ' && *at != '\t')
      at++;
    words[count++] = (struct word){start, (size_t)(at - start)};
  }
  return count;
}

static size_t number(struct word w) {
  size_t n = 0;
  for (size_t i = 0; i < w.len; i++)
    n = n * 10 + (size_t)(w.at[i] - '0');
  return n;
}

/* Writes one publish to everybody who listens. `words` are those behind PUB or HPUB. */
static void deliver(const struct word *words, int count, int header, const char *body, size_t size) {
  struct word subject = words[0];
  struct topic *t = find(subject.at, subject.len, hash_of(subject.at, subject.len));
  if (!t)
    return;
  /* Reply subject and sizes stand at the end of the line in the same order as in the MSG line. */
  const char *tail = words[1].at;
  size_t tail_len = (size_t)(words[count - 1].at + words[count - 1].len - tail);
  for (struct sub *s = t->subs; s; s = s->next) {
    struct conn *c = s->conn;
    char *at = room(&c->out, subject.len + tail_len + size + sizeof s->sid + 16);
    char *start = at;
    if (header)
      *at++ = 'H';
    memcpy(at, "MSG ", 4);
    at += 4;
    memcpy(at, subject.at, subject.len);
    at += subject.len;
    *at++ = ' ';
    memcpy(at, s->sid, s->sid_len);
    at += s->sid_len;
    *at++ = ' ';
    memcpy(at, tail, tail_len);
    at += tail_len;
    memcpy(at, "\r\n", 2);
    memcpy(at + 2, body, size + 2);
    c->out.len += (size_t)(at - start) + size + 4;
    mark_dirty(c);
    if (c->out.len > OUT_FLUSH && !c->full)
      flush(c);
  }
}

/* Handles one operation; returns its bytes, or 0 if it is not whole yet. */
static size_t operation(struct conn *c, const char *at, const char *end) {
  const char *nl = memchr(at, '\n', (size_t)(end - at));
  if (!nl)
    return 0;
  const char *line_end = nl > at && nl[-1] == '\r' ? nl - 1 : nl;
  size_t used = (size_t)(nl + 1 - at);
  int header = *at == 'H';
  struct word words[4];
  if (header || (*at == 'P' && used > 2 && at[1] == 'U')) {
    int count = split(at + (header ? 4 : 3), line_end, words, 4);
    if (count < (header ? 3 : 2))
      return used;
    size_t size = number(words[count - 1]);
    if ((size_t)(end - nl - 1) < size + 2)
      return 0;
    deliver(words, count, header, nl + 1, size);
    return used + size + 2;
  }
  if (*at == 'P' && used > 2 && at[1] == 'I') {
    say(c, "PONG\r\n");
  } else if (*at == 'S') {
    int count = split(at + 3, line_end, words, 3);
    if (count >= 2)
      subscribe(c, words[0].at, words[0].len, words[count - 1].at, words[count - 1].len);
  } else if (*at == 'U') {
    if (split(at + 5, line_end, words, 1) == 1)
      unsubscribe(c, words[0].at, words[0].len);
  }
  return used;
}

static void hang_up(struct conn *c) {
  while (c->subs)
    drop(&c->subs);
  for (size_t i = 0; i < dirty_count; i++) {
    if (dirty[i] == c)
      dirty[i] = dirty[--dirty_count];
  }
  close(c->fd);
  give_back(&c->in);
  give_back(&c->out);
  free(c);
}

/* Reads once and handles every whole operation. */
static void serve(struct conn *c) {
  ssize_t got = recv(c->fd, read_buf, sizeof read_buf, 0);
  if (got <= 0) {
    if (got == 0 || (errno != EAGAIN && errno != EINTR))
      hang_up(c);
    return;
  }
  const char *at = read_buf, *end = read_buf + got;
  if (c->in.len > 0) {
    memcpy(room(&c->in, (size_t)got), read_buf, (size_t)got);
    c->in.len += (size_t)got;
    at = c->in.at;
    end = at + c->in.len;
  }
  size_t used;
  while (at < end && (used = operation(c, at, end)) > 0)
    at += used;
  size_t left = (size_t)(end - at);
  if (left == 0) {
    give_back(&c->in);
  } else if (c->in.len > 0) {
    memmove(c->in.at, at, left);
    c->in.len = left;
  } else {
    memcpy(room(&c->in, left), at, left);
    c->in.len = left;
  }
}

static void greet(int listener) {
  int fd;
  while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
    struct conn *c = must(calloc(1, sizeof *c));
    int on = 1;
    c->fd = fd;
    c->subs_end = &c->subs;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(poll_fd, EPOLL_CTL_ADD, fd, &e);
    say(c, "INFO {\"server_id\":\"FLOOR\",\"version\":\"0.0.0\",\"proto\":1,\"headers\":true,"
           "\"max_payload\":1048576}\r\n");
  }
}

int main(int argc, char **argv) {
  if (argc != 2) {
    fputs("usage: floor PORT\n", stderr);
    return 2;
  }
  signal(SIGPIPE, SIG_IGN);
  bucket_count = 1024;
  buckets = must(calloc(bucket_count, sizeof *buckets));
  int on = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  struct sockaddr_in here = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
  here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  if (bind(listener, (struct sockaddr *)&here, sizeof here) || listen(listener, 4096)) {
    perror("floor");
    return 1;
  }
  poll_fd = epoll_create1(0);
  struct epoll_event e = {.events = EPOLLIN}, events[EVENTS];
  epoll_ctl(poll_fd, EPOLL_CTL_ADD, listener, &e);
  for (;;) {
    int count = epoll_wait(poll_fd, events, EVENTS, -1);
    for (int i = 0; i < count; i++) {
      struct conn *c = events[i].data.ptr;
      if (c && events[i].events & EPOLLOUT)
        mark_dirty(c);
      if (!c)
        greet(listener);
      else if (events[i].events & ~(uint32_t)EPOLLOUT)
        serve(c);
    }
    for (size_t i = 0; i < dirty_count; i++) {
      dirty[i]->dirty = 0;
      flush(dirty[i]);
    }
    dirty_count = 0;
  }
}
