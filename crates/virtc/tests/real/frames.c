/* frames LINK COUNT FROM_MAC TO_MAC FROM_IP TO_IP PORT BYTES TEXT
 *
 * Sends datagrams as whole Ethernet frames, with whatever addresses are asked for; without an end where
 * COUNT is 0. */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static unsigned char frame[1514];

static void mac(const char *text, unsigned char *to)
{
	unsigned m[6];
	if (sscanf(text, "%x:%x:%x:%x:%x:%x", m, m + 1, m + 2, m + 3, m + 4, m + 5) != 6)
		exit(2);
	for (int i = 0; i < 6; i++)
		to[i] = m[i];
}

static unsigned short checksum(const unsigned short *words, int count)
{
	unsigned long sum = 0;
	while (count--)
		sum += *words++;
	sum = (sum >> 16) + (sum & 0xffff);
	return ~(sum + (sum >> 16));
}

int main(int argc, char **argv)
{
	if (argc != 10)
		return 2;
	unsigned long count = strtoul(argv[2], NULL, 10);
	size_t bytes = strtoul(argv[8], NULL, 10), text = strlen(argv[9]);
	if (bytes < text)
		bytes = text;
	if (bytes > sizeof frame - 42)
		return 2;
	mac(argv[4], frame);
	mac(argv[3], frame + 6);
	frame[12] = 8;
	struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP};
	ip.tot_len = htons(28 + bytes);
	inet_pton(AF_INET, argv[5], &ip.saddr);
	inet_pton(AF_INET, argv[6], &ip.daddr);
	ip.check = checksum((void *)&ip, 10);
	/* Without a checksum of its own. */
	struct udphdr udp = {.source = htons(4000), .dest = htons(atoi(argv[7])), .len = htons(8 + bytes)};
	memcpy(frame + 14, &ip, 20);
	memcpy(frame + 34, &udp, 8);
	memcpy(frame + 42, argv[9], text);
	int out = socket(AF_PACKET, SOCK_RAW, htons(ETH_P_ALL));
	struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(argv[1])};
	if (out < 0 || bind(out, (void *)&link, sizeof link))
		return perror("bind"), 1;
	for (unsigned long n = 0; !count || n < count; n++)
		if (send(out, frame, 42 + bytes, 0) < 0 && errno != ENOBUFS)
			return perror("send"), 1;
	return 0;
}
