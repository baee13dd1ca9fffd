/* The guest's side of what is measured beside iperf3: one process, so that nothing is forked meanwhile.
 *
 *   port 5007  sends back what it receives
 *   port 5008  closes each connection at once
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int listening(int port)
{
	int on = 1, off = 0, s = socket(AF_INET6, SOCK_STREAM, 0);
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	setsockopt(s, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
	if (s < 0 || bind(s, (struct sockaddr *)&any, sizeof any) || listen(s, 128)) {
		perror("serve");
		exit(1);
	}
	return s;
}

int main(void)
{
	struct pollfd fds[3] = {
		{.fd = listening(5008), .events = POLLIN},
		{.fd = listening(5007), .events = POLLIN},
		{.fd = -1, .events = POLLIN},
	};
	char buffer[4096];
	/* Whoever started it waits for this. */
	write(1, "serving\n", 8);
	for (;;) {
		poll(fds, 3, -1);
		if (fds[0].revents)
			close(accept(fds[0].fd, NULL, NULL));
		if (fds[1].revents) {
			int on = 1;
			close(fds[2].fd);
			fds[2].fd = accept(fds[1].fd, NULL, NULL);
			setsockopt(fds[2].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
		} else if (fds[2].revents) {
			ssize_t n = read(fds[2].fd, buffer, sizeof buffer);
			if (n <= 0 || write(fds[2].fd, buffer, n) != n) {
				close(fds[2].fd);
				fds[2].fd = -1;
			}
		}
	}
}
