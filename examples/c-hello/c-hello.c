/* A greeting from C: an ordinary server on a socket, one loop over all its connections. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { CONNECTIONS_MAX = 64, HEAD_MAX = 4096, FIRST_SOCKET = 3 };

struct connection {
  size_t length;
  char head[HEAD_MAX + 1];
};

static struct pollfd polled[1 + CONNECTIONS_MAX];
static struct connection connections[1 + CONNECTIONS_MAX];
static nfds_t count = 1;

static void answer(int fd, const char *head) {
  char path[HEAD_MAX] = "/", body[HEAD_MAX + 32], all[HEAD_MAX + 256];
  sscanf(head, "%*s %4095s", path);
  int is_health = strcmp(path, "/healthz") == 0;
  int length = is_health ? sprintf(body, "ok\n") : snprintf(body, sizeof body, "Hello from C at %s\n", path);
  int size = snprintf(all, sizeof all,
                      "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
                      length, body);
  /* As much as this always fits into what a connection buffers. */
  if (send(fd, all, size, 0) == size) shutdown(fd, SHUT_WR);
}

/* Reads what is there. False: the connection is over. */
static int go_on(int fd, struct connection *connection) {
  ssize_t n = recv(fd, connection->head + connection->length, HEAD_MAX - connection->length, 0);
  if (n < 0) return errno == EAGAIN;
  if (n == 0) return 0;
  connection->length += n;
  connection->head[connection->length] = 0;
  if (strstr(connection->head, "\r\n\r\n") == NULL) return connection->length < HEAD_MAX;
  answer(fd, connection->head);
  return 0;
}

static void forget(nfds_t i) {
  close(polled[i].fd);
  count--;
  polled[i] = polled[count];
  connections[i] = connections[count];
}

int main(void) {
  /* WASI preview 1 makes no sockets: the container is given one that listens for each containerPort, from number 3 on. */
  if (getenv("LISTEN_FDS") == NULL) {
    fprintf(stderr, "no socket was given: name a containerPort\n");
    return 1;
  }
  polled[0] = (struct pollfd){.fd = FIRST_SOCKET, .events = POLLIN};
  printf("listening\n");
  fflush(stdout);
  for (;;) {
    polled[0].events = count <= CONNECTIONS_MAX ? POLLIN : 0;
    if (poll(polled, count, -1) < 0) {
      perror("poll");
      return 1;
    }
    for (nfds_t i = count; i-- > 1;)
      if (polled[i].revents && !go_on(polled[i].fd, &connections[i])) forget(i);
    if (!polled[0].revents || count > CONNECTIONS_MAX) continue;
    int fd = accept4(polled[0].fd, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) continue;
    polled[count] = (struct pollfd){.fd = fd, .events = POLLIN};
    connections[count].length = 0;
    count++;
  }
}
