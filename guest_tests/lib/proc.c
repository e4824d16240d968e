// SPDX-License-Identifier: MIT
/* What the kernel shows in /proc and /sys. */
#include "inside.h"

#include <fcntl.h>

/* Without stdio, which allocates: VmPTE must not move because it is read. */
static const char *read_file(const char *path)
{
	static __thread char text[16384];
	size_t length = 0;
	ssize_t got;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		FAIL_HERE("%s: %s", path, strerror(errno));
	while ((got = read(fd, text + length, sizeof(text) - 1 - length)) > 0)
		length += got;
	if (got < 0)
		FAIL_HERE("%s: %s", path, strerror(errno));
	close(fd);
	text[length] = 0;
	return text;
}

long hgm_read_number(const char *path)
{
	const char *text = read_file(path);
	char *end;
	long value = strtol(text, &end, 10);

	if (end == text)
		FAIL_HERE("%s: \"%s\" is no number", path, text);
	return value;
}

void hgm_write_number(const char *path, long value)
{
	char text[32];
	int length = snprintf(text, sizeof(text), "%ld\n", value);
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, text, length) != length)
		FAIL_HERE("writing %ld to %s: %s", value, path, strerror(errno));
	close(fd);
}

long hgm_status_kb(const char *field)
{
	const char *text = read_file("/proc/self/status");
	size_t length = strlen(field);

	for (const char *line = text; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
		if (!strncmp(line, field, length) && line[length] == ':')
			return strtol(line + length + 1, NULL, 10);
	FAIL_HERE("/proc/self/status has no %s", field);
}

long hgm_smaps_kb(const void *at, size_t length)
{
	unsigned long start, end, kb;
	bool inside = false;
	char line[512];
	long sum = 0;
	FILE *file = fopen("/proc/self/smaps", "re");

	if (!file)
		FAIL_HERE("/proc/self/smaps: %s", strerror(errno));
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%lx-%lx ", &start, &end) == 2)
			inside = start >= (uintptr_t)at && end <= (uintptr_t)at + length;
		else if (inside && (sscanf(line, "Shared_Hugetlb: %lu kB", &kb) == 1 ||
				    sscanf(line, "Private_Hugetlb: %lu kB", &kb) == 1))
			sum += kb;
	}
	fclose(file);
	return sum;
}

long hgm_pool(const char *counter)
{
	char path[128];

	snprintf(path, sizeof(path), "/sys/kernel/mm/hugepages/hugepages-%zukB/%s_hugepages", hgm_huge >> 10, counter);
	return hgm_read_number(path);
}

void hgm_need_pages_(size_t pages)
{
	long available = hgm_pool("free") - hgm_pool("resv");

	if (available < (long)pages)
		FAIL_HERE("huge page pool of %s has %ld free pages, %zu needed", hgm_size_name(hgm_huge), available, pages);
}

void hgm_read_entries(const char *path, uint64_t first, size_t count, uint64_t *entries)
{
	size_t done = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		FAIL_HERE("%s: %s", path, strerror(errno));
	while (done < count) {
		ssize_t got = pread(fd, entries + done, (count - done) * 8, (first + done) * 8);

		if (got <= 0 || got % 8)
			FAIL_HERE("%s: %zd bytes at entry %llu: %s", path, got, (unsigned long long)(first + done),
				  strerror(errno));
		done += got / 8;
	}
	close(fd);
}

void hgm_pagemap_range(const void *at, size_t count, uint64_t *entries)
{
	hgm_read_entries("/proc/self/pagemap", (uintptr_t)at / hgm_base, count, entries);
}

uint64_t hgm_pagemap(const void *at)
{
	uint64_t entry;

	hgm_pagemap_range(at, 1, &entry);
	return entry;
}

size_t hgm_present(const void *at, size_t length)
{
	static __thread uint64_t entries[BATCH];
	size_t present = 0, left = length / hgm_base;

	for (const char *next = at; left; ) {
		size_t count = left < BATCH ? left : BATCH;

		hgm_pagemap_range(next, count, entries);
		for (size_t i = 0; i < count; i++)
			present += !!(entries[i] & HGM_PM_PRESENT);
		next += count * hgm_base;
		left -= count;
	}
	return present;
}

uint64_t hgm_pfn_(const void *at)
{
	uint64_t entry = hgm_pagemap(at);

	if (!(entry & HGM_PM_PRESENT))
		FAIL_HERE("pagemap: expected a page at %p, saw none (0x%llx)", at, (unsigned long long)entry);
	if (!(entry & HGM_PM_PFN))
		FAIL_HERE("pagemap hides page frame numbers: CAP_SYS_ADMIN is needed");
	return entry & HGM_PM_PFN;
}

uint64_t hgm_kpagecount(uint64_t pfn)
{
	uint64_t count;

	hgm_read_entries("/proc/kpagecount", pfn, 1, &count);
	return count;
}

uint64_t hgm_kpageflags(uint64_t pfn)
{
	uint64_t flags;

	hgm_read_entries("/proc/kpageflags", pfn, 1, &flags);
	return flags;
}

void hgm_kpageflags_range(uint64_t pfn, size_t count, uint64_t *flags)
{
	hgm_read_entries("/proc/kpageflags", pfn, count, flags);
}

void hgm_expect_count_(uint64_t head, unsigned count)
{
	static __thread uint64_t counts[BATCH];
	size_t total = hgm_huge / hgm_base;

	for (size_t first = 0; first < total; first += BATCH) {
		size_t batch = total - first < BATCH ? total - first : BATCH;

		hgm_read_entries("/proc/kpagecount", head + first, batch, counts);
		for (size_t i = 0; i < batch; i++)
			if (counts[i] != count)
				FAIL_HERE("kpagecount of base page %zu: expected %u, saw %llu", first + i, count,
					  (unsigned long long)counts[i]);
	}
}
