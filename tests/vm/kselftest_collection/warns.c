// SPDX-License-Identifier: MIT
/* Ends well, and has the kernel warn. */
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
	int fd = open("/sys/kernel/debug/provoke-crash/DIRECT", O_WRONLY);

	return fd < 0 || write(fd, "WARNING", 7) != 7;
}
