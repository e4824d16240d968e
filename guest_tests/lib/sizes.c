// SPDX-License-Identifier: MIT
/* The sizes of huge pages and of their pieces. */
#include "inside.h"

#include <dirent.h>

const char *hgm_size_name(size_t size)
{
	static __thread char name[32];
	int shift = size >= 1UL << 30 ? 30 : size >= 1UL << 20 ? 20 : 10;

	snprintf(name, sizeof(name), "%zu%c", size >> shift, shift == 30 ? 'G' : shift == 20 ? 'M' : 'K');
	return name;
}

static int larger_first(const void *a, const void *b)
{
	size_t left = *(const size_t *)a, right = *(const size_t *)b;

	return left < right ? 1 : left > right ? -1 : 0;
}

const size_t *hgm_all_sizes(void)
{
	static size_t sizes[16];
	struct dirent *entry;
	size_t count = 0;
	DIR *directory;

	if (sizes[0])
		return sizes;
	directory = opendir("/sys/kernel/mm/hugepages");
	if (!directory)
		FAIL_HERE("/sys/kernel/mm/hugepages: %s", strerror(errno));
	while ((entry = readdir(directory)) && count < 14) {
		size_t kilobytes;

		if (sscanf(entry->d_name, "hugepages-%zukB", &kilobytes) == 1)
			sizes[count++] = kilobytes << 10;
	}
	closedir(directory);
	qsort(sizes, count, sizeof(*sizes), larger_first);
	sizes[count] = hgm_base;
	return sizes;
}

const size_t *hgm_piece_sizes(void)
{
	const size_t *size = hgm_all_sizes();

	while (*size >= hgm_huge)
		size++;
	return size;
}

size_t hgm_step(size_t offset, size_t length)
{
	for (const size_t *size = hgm_all_sizes(); *size; size++)
		if (*size <= hgm_huge && offset % *size == 0 && *size <= length)
			return *size;
	FAIL_HERE("0x%zx bytes at 0x%zx are no multiple of a base page", length, offset);
}
