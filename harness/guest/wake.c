// SPDX-License-Identifier: MIT
/*
 * wake SECONDS NANOSECONDS: a guest that was left as it stood goes on elsewhere and later. It gets the time of its new
 * day, and random numbers that no other guest has: from 64 bytes on stdin.
 */
#include <fcntl.h>
#include <linux/random.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#define SEED_BYTES 64

int main(int count, char **words)
{
	struct rand_pool_info *seed = calloc(1, sizeof(*seed) + SEED_BYTES);
	int random = open("/dev/urandom", O_RDWR | O_CLOEXEC);
	struct timespec now;

	if (count != 3 || !seed || fread(seed->buf, SEED_BYTES, 1, stdin) != 1) {
		fprintf(stderr, "usage: wake SECONDS NANOSECONDS < %d random bytes\n", SEED_BYTES);
		return 2;
	}
	now = (struct timespec){ .tv_sec = atoll(words[1]), .tv_nsec = atol(words[2]) };
	seed->entropy_count = 8 * SEED_BYTES;
	seed->buf_size = SEED_BYTES;
	/* What is mixed in is used at once only if the generator is told so (drivers/char/random.c:random_ioctl). */
	if (random < 0 || ioctl(random, RNDADDENTROPY, seed) || ioctl(random, RNDRESEEDCRNG) ||
	    clock_settime(CLOCK_REALTIME, &now)) {
		perror("wake");
		return 1;
	}
	return 0;
}
