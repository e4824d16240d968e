// SPDX-License-Identifier: MIT
/* An area of huge pages, mapped twice, and the model of what its primary mapping must look like. */
#include "inside.h"

uint64_t hgm_tag(size_t base_page)
{
	return 0x48474d0000000000ULL + (base_page + 1) * 0x100003ULL;
}

static const volatile uint64_t *last_word(const void *page)
{
	return (const volatile uint64_t *)((const char *)page + hgm_base - 8);
}

void hgm_expect_tag_(const void *at, size_t base_page)
{
	uint64_t first = *(const volatile uint64_t *)at, last = *last_word(at), tag = hgm_tag(base_page);

	if (first != tag || last != ~tag)
		FAIL_HERE("content of base page %zu at %p: expected 0x%llx ... 0x%llx, saw 0x%llx ... 0x%llx", base_page,
			  at, (unsigned long long)tag, (unsigned long long)~tag, (unsigned long long)first,
			  (unsigned long long)last);
}

static void write_tags(struct hgm_area *area)
{
	for (size_t i = 0; i < area->length / hgm_base; i++) {
		unsigned char *at = area->alias + i * hgm_base;

		*(volatile uint64_t *)at = hgm_tag(i);
		*(volatile uint64_t *)last_word(at) = ~hgm_tag(i);
	}
}

/*
 * Address space for both mappings and as much again behind them, aligned so that it lies in one page table of the level
 * that maps huge pages.
 */
static unsigned char *reserve(size_t length)
{
	size_t span = hgm_huge;
	unsigned char *at;

	while (span < 4 * length)
		span *= 2;
	at = mmap(NULL, 2 * span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		FAIL_HERE("address space of 0x%zx bytes: %s", 2 * span, strerror(errno));
	return at + (span - (uintptr_t)at % span) % span;
}

static unsigned char *map_at(struct hgm_area *area, unsigned char *at, int flags)
{
	if (mmap(at, area->length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, area->fd, 0) != at)
		FAIL_HERE("mmap of %zu huge pages of %s: %s", area->pages, hgm_size_name(hgm_huge), strerror(errno));
	return at;
}

static int must_open_uffd(uint64_t features)
{
	int uffd = hgm_uffd(features);

	if (uffd < 0)
		FAIL_HERE("UFFDIO_API with features 0x%llx: %s", (unsigned long long)features, strerror(-uffd));
	return uffd;
}

static void must_register(int uffd, void *at, size_t length)
{
	int error = hgm_try_register(uffd, at, length, UFFDIO_REGISTER_MODE_MINOR);

	if (error)
		FAIL_HERE("UFFDIO_REGISTER for minor faults: %s", strerror(error));
}

int hgm_uffd_for_pieces_(uint64_t features)
{
	return must_open_uffd(features | (hgm_dialect() == HGM_RFC2 ? HGM_FEATURE_MINOR_HUGETLBFS_HGM : 0));
}

void hgm_register_for_pieces_(int uffd, void *at, size_t length)
{
	if ((hgm_dialect() == HGM_V1 || hgm_dialect() == HGM_V2) && madvise(at, length, HGM_MADV_SPLIT))
		FAIL_HERE("MADV_SPLIT: %s", strerror(errno));
	must_register(uffd, at, length);
}

static void register_primary(struct hgm_area *area)
{
	bool hgm = hgm_current->needs_hgm && !(area->flags & HGM_PRIVATE);
	uint64_t features = (area->flags & HGM_ROUNDED ? 0 : UFFD_FEATURE_EXACT_ADDRESS) |
			    (area->flags & HGM_MESSAGES ? 0 : UFFD_FEATURE_SIGBUS);

	if (hgm) {
		area->uffd = hgm_uffd_for_pieces_(features);
		hgm_register_for_pieces_(area->uffd, area->primary, area->length);
	} else {
		area->uffd = must_open_uffd(features);
		must_register(area->uffd, area->primary, area->length);
	}
}

void hgm_area_open_(struct hgm_area *area, size_t pages, unsigned flags)
{
	size_t models = pages * PIECES * (sizeof(*area->leaf) + sizeof(*area->outside));
	unsigned char *at;

	*area = (struct hgm_area){ .uffd = -1, .flags = flags, .pages = pages, .length = pages * hgm_huge };
	area->fd = hgm_memfd_(pages);
	area->head = calloc(pages, sizeof(*area->head));
	/* Populated at once, so that its own page tables are not taken for the primary's. */
	area->leaf = mmap(NULL, models, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (!area->head || area->leaf == MAP_FAILED)
		FAIL_HERE("no memory");
	area->outside = (void *)(area->leaf + pages * PIECES);
	at = reserve(area->length);
	area->alias = map_at(area, at, MAP_SHARED);
	area->primary = map_at(area, at + area->length,
			       flags & HGM_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED);
	write_tags(area);
	for (size_t page = 0; page < pages; page++)
		area->head[page] = hgm_pfn_(area->alias + page * hgm_huge);
	if (!(flags & HGM_PLAIN))
		register_primary(area);
	/* Twice: reading them the first time touches pages of the library. */
	for (int i = 0; i < 2; i++) {
		hgm_expect_pagemap(area, false);
		hgm_smaps_kb(area->primary, area->length);
		area->hugetlb_kb = hgm_status_kb("HugetlbPages");
		area->table_kb = hgm_status_kb("VmPTE");
	}
}

void hgm_area_remap_(struct hgm_area *area)
{
	map_at(area, area->alias + area->length, area->flags & HGM_PRIVATE ? MAP_PRIVATE | MAP_NORESERVE : MAP_SHARED);
	area->primary = area->alias + area->length;
	if (area->uffd < 0)
		return;
	close(area->uffd);
	register_primary(area);
}

void hgm_unmap_primary_(struct hgm_area *area)
{
	if (munmap(area->primary, area->length))
		FAIL_HERE("munmap of the primary mapping: %s", strerror(errno));
	hgm_now_empty(area, 0, area->length);
	area->primary = NULL;
}

void hgm_area_close_(struct hgm_area *area)
{
	if (area->primary)
		hgm_unmap_primary_(area);
	if (munmap(area->alias, area->length))
		FAIL_HERE("munmap of the alias mapping: %s", strerror(errno));
	if (area->uffd >= 0)
		close(area->uffd);
	close(area->fd);
	munmap(area->leaf, area->pages * PIECES * (sizeof(*area->leaf) + sizeof(*area->outside)));
	free(area->head);
}

int hgm_try_continue(const struct hgm_area *area, size_t offset, size_t length, long long *mapped)
{
	return hgm_uffd_continue(area->uffd, area->primary + offset, length, mapped);
}

static void set_leaf(struct hgm_area *area, size_t offset, size_t length, size_t size)
{
	for (size_t i = offset / hgm_base; i < (offset + length) / hgm_base; i++)
		area->leaf[i] = size;
}

void hgm_continue_(struct hgm_area *area, size_t offset, size_t length)
{
	long long mapped;
	int error = hgm_try_continue(area, offset, length, &mapped);

	if (error || mapped != (long long)length)
		FAIL_HERE("CONTINUE of 0x%zx bytes at 0x%zx: expected success, saw %s, mapped %lld", length, offset,
			  hgm_error_name(error), mapped);
	for (size_t done = 0, step; done < length; done += step) {
		step = hgm_step(offset + done, length - done);
		set_leaf(area, offset + done, step, step);
	}
}

void hgm_continue_each_size_(struct hgm_area *area, size_t page)
{
	for (const size_t *size = hgm_piece_sizes(); *size > hgm_base; size++)
		hgm_continue_(area, page * hgm_huge + *size, *size);
}

int hgm_try_collapse(const struct hgm_area *area, size_t offset, size_t length)
{
	return madvise(area->primary + offset, length, HGM_MADV_COLLAPSE) ? errno : 0;
}

size_t hgm_largest_leaf(const struct hgm_area *area, size_t offset, size_t length)
{
	size_t largest = 0;

	for (size_t i = offset / hgm_base; i < (offset + length) / hgm_base; i++)
		if (area->leaf[i] > largest)
			largest = area->leaf[i];
	return largest;
}

void hgm_collapse_(struct hgm_area *area, size_t offset, size_t length)
{
	int error = hgm_try_collapse(area, offset, length);

	if (error)
		FAIL_HERE("MADV_COLLAPSE of 0x%zx bytes at 0x%zx: expected success, saw %s", length, offset,
			  hgm_error_name(error));
	for (size_t done = 0, step; done < length; done += step) {
		size_t largest;

		step = hgm_step(offset + done, length - done);
		largest = hgm_largest_leaf(area, offset + done, step);
		if (largest && largest < step)
			set_leaf(area, offset + done, step, step);
	}
}

void hgm_now_empty(struct hgm_area *area, size_t offset, size_t length)
{
	set_leaf(area, offset, length, 0);
}

void hgm_now_faulted(struct hgm_area *area, size_t offset)
{
	const size_t levels[] = { hgm_huge, hgm_pmd_size() };

	for (size_t i = 0; i < 2; i++) {
		size_t start = offset - offset % levels[i];

		if (levels[i] <= hgm_huge && !hgm_largest_leaf(area, start, levels[i])) {
			set_leaf(area, start, levels[i], levels[i]);
			return;
		}
	}
	set_leaf(area, offset - offset % hgm_base, hgm_base, hgm_base);
}

long hgm_table_kb(const struct hgm_area *area)
{
	const size_t levels[] = { hgm_pud_size(), hgm_pmd_size() };
	long tables = 0;

	for (size_t level = 0; level < 2; level++) {
		if (levels[level] > hgm_huge)
			continue;
		for (size_t at = 0; at < area->length; at += levels[level]) {
			size_t largest = hgm_largest_leaf(area, at, levels[level]);

			tables += largest && largest < levels[level];
		}
	}
	return tables * (long)(hgm_base >> 10);
}
