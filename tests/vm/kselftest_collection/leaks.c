// SPDX-License-Identifier: MIT
/* Ends well, and leaves a huge page behind. */
#define _GNU_SOURCE
#include <string.h>
#include <sys/mman.h>
#include <sys/shm.h>

int main(void)
{
	int id = shmget(IPC_PRIVATE, 2 << 20, IPC_CREAT | SHM_HUGETLB | 0600);
	char *area = shmat(id, NULL, 0);

	if (area == (void *)-1)
		return 1;
	memset(area, 1, 2 << 20);
	return 0;
}
