// SPDX-License-Identifier: MIT
/* Other calls on granular mappings: they work as on whole huge pages, or refuse with a clean error. */
#include "hgm.h"

#include <sys/uio.h>

/* What process_vm_readv copies of this process's own memory: bytes, or -errno. */
static long read_memory(void *to, const void *from, size_t length)
{
	struct iovec local = { .iov_base = to, .iov_len = length };
	struct iovec remote = { .iov_base = (void *)from, .iov_len = length };
	ssize_t got = process_vm_readv(getpid(), &local, 1, &remote, 1, 0);

	return got < 0 ? -errno : got;
}

static bool in_core(const void *at)
{
	unsigned char answer;

	EXPECT_EQ(CHECKED(mincore((void *)at, hgm_base, &answer)), 0);
	return answer & 1;
}

STOCK_CASE(mincore_stays_within, "mincore of part of a huge page answers for that part and writes no byte beyond it "
	   "[mm/mincore.c:mincore_hugetlb]")
{
	struct hgm_area area;
	unsigned char answers[8];

	hgm_area_open(&area, 1, 0);
	EXPECT(!in_core(area.primary + hgm_base));
	hgm_continue(&area, 0, hgm_huge);
	memset(answers, 0x55, sizeof(answers));
	EXPECT_EQ(CHECKED(mincore(area.primary + 3 * hgm_base, 4 * hgm_base, answers)), 0);
	for (size_t i = 0; i < sizeof(answers); i++)
		EXPECT_EQ(answers[i], i < 4 ? 1 : 0x55);
	EXPECT(in_core(area.primary + hgm_huge - hgm_base));
}

STOCK_CASE(mremap_moves, "mremap moves whole huge pages: the same page frames at the new place, counted once "
	   "[mm/hugetlb.c:move_hugetlb_page_tables]")
{
	struct hgm_area area;
	void *place, *moved;

	hgm_area_open(&area, 1, HGM_PLAIN);
	hgm_expect_tag(area.primary, 0);
	hgm_now_faulted(&area, 0);
	place = hgm_map(area.fd, 0, hgm_huge, MAP_SHARED);
	moved = mremap(area.primary, hgm_huge, hgm_huge, MREMAP_MAYMOVE | MREMAP_FIXED, place);
	EXPECT(moved == place);
	area.primary = moved;
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
}

STOCK_CASE(read_by_process, "process_vm_readv reads a mapped huge page at odd offsets, and not one whose fault would "
	   "wait for a pager [mm/hugetlb.c:follow_hugetlb_page]")
{
	struct hgm_area area;
	uint64_t word = 0;

	hgm_area_open(&area, 1, 0);
	EXPECT_EQ(read_memory(&word, area.primary + 7 * hgm_base, 8), -EFAULT);
	hgm_continue(&area, 0, hgm_huge);
	EXPECT_EQ(read_memory(&word, area.primary + 7 * hgm_base, 8), 8);
	EXPECT_EQ(word, hgm_tag(7));
}

HGM_CASE(mincore_of_pieces, "mincore tells mapped pieces from holes, at odd offsets, and writes no byte beyond the "
	 "request [RFC v2 and later write one byte for each base page of the entry]")
{
	struct hgm_area area;
	unsigned char answers[16];

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, hgm_base);
	hgm_continue(&area, 4 * hgm_base, 2 * hgm_base);
	memset(answers, 0x55, sizeof(answers));
	EXPECT_EQ(CHECKED(mincore(area.primary + hgm_base, 6 * hgm_base, answers)), 0);
	const unsigned char expected[] = { 1, 0, 0, 1, 1, 0, 0x55, 0x55 };
	for (size_t i = 0; i < sizeof(expected); i++)
		EXPECT_EQ(answers[i], expected[i]);
	for (size_t i = 0; i < 8; i++)
		EXPECT_EQ(in_core(area.primary + i * hgm_base), area.leaf[i] != 0);
	/* A leaf of the largest size below the huge page, asked for a part. */
	if (hgm_piece_sizes()[0] > hgm_base) {
		size_t size = hgm_piece_sizes()[0];

		hgm_continue(&area, size, size);
		memset(answers, 0x55, sizeof(answers));
		EXPECT_EQ(CHECKED(mincore(area.primary + 2 * size - 2 * hgm_base, 4 * hgm_base, answers)), 0);
		const unsigned char edge[] = { 1, 1, 0, 0, 0x55 };
		for (size_t i = 0; i < sizeof(edge); i++)
			EXPECT_EQ(answers[i], edge[i]);
	}
	hgm_expect_shape(&area);
}

HGM_CASE(pagemap_of_pieces, "pagemap read one entry at a time shows the same as in one go [RFC v1 patch 22]")
{
	struct hgm_area area;
	uint64_t entries[16];

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_continue(&area, 8 * hgm_base, 4 * hgm_base);
	hgm_pagemap_range(area.primary, 16, entries);
	for (size_t i = 0; i < 16; i++) {
		EXPECT_EQ(hgm_pagemap(area.primary + i * hgm_base), entries[i]);
		EXPECT_EQ(!!(entries[i] & HGM_PM_PRESENT), area.leaf[i] != 0);
	}
	/* An odd number of entries that begins and ends inside leaves. */
	hgm_pagemap_range(area.primary + 9 * hgm_base, 5, entries);
	for (size_t i = 0; i < 5; i++)
		EXPECT_EQ(entries[i] & HGM_PM_PRESENT ? entries[i] & HGM_PM_PFN : 0,
			  area.leaf[9 + i] ? area.head[0] + 9 + i : 0);
}

HGM_CASE(read_pieces_by_process, "process_vm_readv reads mapped pieces, each its own, stops at a hole and never "
	 "shows what lies behind it [RFC v1 patch 13]")
{
	struct hgm_area area;
	unsigned char *buffer = malloc(4 * hgm_base);
	uint64_t word = 0;

	EXPECT(buffer);
	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 5 * hgm_base, 2 * hgm_base);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	EXPECT_EQ(read_memory(buffer, area.primary + 5 * hgm_base, 2 * hgm_base), 2 * hgm_base);
	hgm_expect_tag(buffer, 5);
	hgm_expect_tag(buffer + hgm_base, 6);
	EXPECT_EQ(read_memory(&word, area.primary + hgm_huge - hgm_base, 8), 8);
	EXPECT_EQ(word, hgm_tag(hgm_huge / hgm_base - 1));
	EXPECT_EQ(read_memory(&word, area.primary + 4 * hgm_base, 8), -EFAULT);
	EXPECT_EQ(read_memory(&word, area.primary, 8), -EFAULT);
	/* Two pieces, then a hole: what can be read is read. */
	memset(buffer, 0x55, 4 * hgm_base);
	EXPECT_EQ(read_memory(buffer, area.primary + 5 * hgm_base, 3 * hgm_base), 2 * hgm_base);
	EXPECT_EQ(buffer[2 * hgm_base], 0x55);
	hgm_expect_shape(&area);
}

HGM_CASE(written_by_process, "process_vm_writev into pieces lands in them, across the seam of two, and nowhere else; "
	 "into a hole it is EFAULT and nothing is mapped [RFC v1 patch 13]")
{
	struct hgm_area area;
	uint64_t words[2] = { 4711, 4712 };
	struct iovec local = { .iov_base = words, .iov_len = sizeof(words) }, remote = { .iov_len = sizeof(words) };
	volatile uint64_t *seam;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 5 * hgm_base, 2 * hgm_base);
	remote.iov_base = area.primary + 6 * hgm_base - 8;
	EXPECT_EQ(CHECKED(process_vm_writev(getpid(), &local, 1, &remote, 1, 0)), sizeof(words));
	seam = (uint64_t *)(area.alias + 6 * hgm_base);
	EXPECT_EQ(seam[-1], 4711);
	EXPECT_EQ(seam[0], 4712);
	/* Tags lie at both ends of a base page. */
	seam[-1] = ~hgm_tag(5);
	seam[0] = hgm_tag(6);
	remote.iov_base = area.primary + 4 * hgm_base;
	EXPECT_EQ(process_vm_writev(getpid(), &local, 1, &remote, 1, 0), -1);
	EXPECT_EQ(errno, EFAULT);
	for (size_t i = 0; i < hgm_huge / hgm_base; i++)
		hgm_expect_tag(area.alias + i * hgm_base, i);
	hgm_expect_shape(&area);
}

/* mremap of the primary, of one huge page, to `place`: whether it is moved or not, it is as it was. */
static void move_primary(struct hgm_area *area, void *place)
{
	void *moved = mremap(area->primary, hgm_huge, hgm_huge, MREMAP_MAYMOVE | MREMAP_FIXED, place);

	if (moved == MAP_FAILED)
		hgm_note("this kernel refuses: %s", strerror(errno));
	else
		area->primary = moved;
	hgm_expect_pieces(area);
	hgm_expect_mapcount(area, 1);
}

HGM_CASE(mremap_of_pieces, "mremap of a granular mapping moves its pieces and holes as they are, or refuses with an "
	 "error and leaves them [RFC v2 patch 26; RFC v1 has no support]")
{
	struct hgm_area area;
	void *place;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, 3 * hgm_base);
	hgm_continue_each_size(&area, 0);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	place = hgm_map(area.fd, 0, hgm_huge, MAP_SHARED);
	move_primary(&area, place);
}

HGM_CASE(mremap_far, "mremap of a granular mapping to a place below other page tables moves its pieces and holes as they are, "
	 "or refuses with an error and leaves them [mm/mremap.c:move_pgt_entry; one lock for each table]")
{
	const size_t far = 1UL << 40;
	struct hgm_area area;
	unsigned char *place;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 2 * hgm_base, 2 * hgm_base);
	hgm_continue_each_size(&area, 0);
	hgm_continue(&area, hgm_huge - 3 * hgm_base, hgm_base);
	/* On every level but the uppermost the table is another one. */
	place = mmap(area.primary - far, hgm_huge, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	EXPECT(place == area.primary - far);
	move_primary(&area, place);
}

HGM_CASE(mprotect_of_pieces, "mprotect of whole huge pages reaches each piece: with PROT_READ reads go on and "
	 "process_vm_writev cannot write, with PROT_NONE nobody reads, and after it is lifted the contents are as before "
	 "[RFC v1 patch 17]")
{
	struct hgm_area area;
	uint64_t word = 4711;
	struct iovec local = { .iov_base = &word, .iov_len = 8 };
	struct iovec remote = { .iov_len = 8 };

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, 2 * hgm_base);
	EXPECT_EQ(CHECKED(mprotect(area.primary, hgm_huge, PROT_READ)), 0);
	hgm_expect_shape(&area);
	remote.iov_base = area.primary + hgm_base;
	EXPECT_EQ(process_vm_writev(getpid(), &local, 1, &remote, 1, 0), -1);
	EXPECT_EQ(errno, EFAULT);
	EXPECT_EQ(CHECKED(mprotect(area.primary, hgm_huge, PROT_READ | PROT_WRITE)), 0);
	hgm_expect_shape(&area);
	*(volatile uint64_t *)(area.primary + 2 * hgm_base + 16) = 4711;
	EXPECT_EQ(*(volatile uint64_t *)(area.alias + 2 * hgm_base + 16), 4711);
	EXPECT_EQ(CHECKED(mprotect(area.primary, hgm_huge, PROT_NONE)), 0);
	for (size_t i = 1; i < 3; i++) {
		EXPECT_ERRNO(hgm_try_load(area.primary + i * hgm_base), EFAULT);
		EXPECT_ERRNO(hgm_try_store(area.primary + i * hgm_base + 16), EFAULT);
	}
	EXPECT_EQ(CHECKED(mprotect(area.primary, hgm_huge, PROT_READ | PROT_WRITE)), 0);
	EXPECT_EQ(*(volatile uint64_t *)(area.primary + 2 * hgm_base + 16), 4711);
	hgm_expect_shape(&area);
}

/* At the start, in the middle and at the end of each leaf the processor loads and stores, or refuses with this errno. */
static void expect_access(const struct hgm_area *area, int loading, int storing)
{
	for (size_t i = 0, step; i < hgm_huge / hgm_base; i += step) {
		step = area->leaf[i] ? area->leaf[i] / hgm_base : 1;
		const size_t pieces[] = { i, i + step / 2, i + step - 1 };
		for (size_t k = 0; area->leaf[i] && k < sizeof(pieces) / sizeof(*pieces); k++) {
			unsigned char *at = area->primary + pieces[k] * hgm_base + 16;

			EXPECT_ERRNO(hgm_try_load(at), loading);
			EXPECT_ERRNO(hgm_try_store(at), storing);
		}
	}
}

HGM_CASE(mprotect_reaches_each_leaf, "mprotect changes what the processor may do at each base page of each leaf, whatever its "
	 "size: no store with PROT_READ, no load either with PROT_NONE [mm/hugetlb.c:hugetlb_change_protection]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	/* A hole, two base pages, and a leaf of each larger size. */
	hgm_continue(&area, hgm_base, 2 * hgm_base);
	hgm_continue_each_size(&area, 0);
	expect_access(&area, 0, 0);
	CHECKED(mprotect(area.primary, hgm_huge, PROT_READ));
	expect_access(&area, 0, EFAULT);
	CHECKED(mprotect(area.primary, hgm_huge, PROT_NONE));
	expect_access(&area, EFAULT, EFAULT);
	CHECKED(mprotect(area.primary, hgm_huge, PROT_READ | PROT_WRITE));
	expect_access(&area, 0, 0);
	hgm_expect_shape(&area);
}

/* The base pages at these places of the primary, one by one, all of them in one leaf. */
static void expect_inside(const struct hgm_area *area, const size_t *inside, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		unsigned char *at = area->primary + inside[i];
		uint64_t word = 0;

		EXPECT_EQ(hgm_pfn(at), area->head[0] + inside[i] / hgm_base);
		EXPECT(in_core(at));
		EXPECT_EQ(read_memory(&word, at, 8), 8);
		EXPECT_EQ(word, hgm_tag(inside[i] / hgm_base));
	}
}

HGM_CASE(inside_larger_leaves, "who asks for one base page in the middle or at the end of a larger leaf gets that one, from "
	 "pagemap, mincore and process_vm_readv, at each size [arch/arm64/mm/hugetlbpage.c: a contiguous leaf has many "
	 "entries]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	for (const size_t *size = hgm_piece_sizes(); *size > hgm_base; size++) {
		const size_t inside[] = { *size + hgm_base, *size + *size / 2, 2 * *size - hgm_base };

		hgm_continue(&area, *size, *size);
		expect_inside(&area, inside, sizeof(inside) / sizeof(*inside));
		EXPECT(!in_core(area.primary + 2 * *size));
	}
	hgm_expect_shape(&area);
	/* The largest one is the huge page itself: where pieces were, and at sizes with none but base pages. */
	CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED));
	hgm_now_empty(&area, 0, hgm_huge);
	hgm_continue(&area, 0, hgm_huge);
	const size_t of_all[] = { hgm_base, hgm_huge / 2, hgm_huge - hgm_base };
	expect_inside(&area, of_all, sizeof(of_all) / sizeof(*of_all));
	hgm_expect_tables(&area);
}

/* From linux/mman.h, where the C library's headers do not have it. */
#define POPULATE_READ 22
#define POPULATE_WRITE 23

HGM_CASE(mprotect_is_felt, "mprotect that takes the right to write from a mapping in pieces is felt by the next write to "
	 "each of them, also by those written to just before, and leaves the rest as it is [mm/hugetlb.c:"
	 "hugetlb_change_protection flushes by huge page]")
{
	const size_t used[] = { hgm_base, 2 * hgm_base, 3 * hgm_base, hgm_huge - hgm_base };
	const size_t count = sizeof(used) / sizeof(*used);
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, 3 * hgm_base);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	for (size_t i = 0; i < count; i++)
		EXPECT(!hgm_write_refused(area.primary + used[i]));
	EXPECT_EQ(CHECKED(mprotect(area.primary, hgm_huge, PROT_READ)), 0);
	for (size_t i = 0; i < count; i++)
		if (!hgm_write_refused(area.primary + used[i]))
			HGM_FAIL("base page %zu was written to after mprotect had taken the right", used[i] / hgm_base);
	EXPECT_EQ(CHECKED(mprotect(area.primary, hgm_huge, PROT_READ | PROT_WRITE)), 0);
	for (size_t i = 0; i < count; i++)
		EXPECT(!hgm_write_refused(area.primary + used[i]));
	hgm_expect_shape(&area);
}

HGM_CASE(populate_pieces, "MADV_POPULATE_READ, _WRITE and mlock over pieces take the pages through GUP as they are "
	 "mapped, and say EFAULT and ENOMEM where they meet a hole that only a pager could fill "
	 "[mm/gup.c:faultin_page_range]")
{
	struct hgm_area area;
	size_t mapped = 2 * hgm_piece_sizes()[0] < hgm_huge ? 2 * hgm_piece_sizes()[0] : hgm_huge;

	hgm_area_open(&area, 1, 0);
	/* Two base pages, and from there on the largest pieces that fit. */
	hgm_continue(&area, 0, hgm_base);
	hgm_continue(&area, hgm_base, hgm_base);
	if (mapped > 2 * hgm_base)
		hgm_continue(&area, 2 * hgm_base, mapped - 2 * hgm_base);
	hgm_expect_shape(&area);
	EXPECT_EQ(CHECKED(madvise(area.primary, mapped, POPULATE_READ)), 0);
	hgm_expect_shape(&area);
	EXPECT_EQ(CHECKED(madvise(area.primary, mapped, POPULATE_WRITE)), 0);
	hgm_expect_shape(&area);
	EXPECT_EQ(CHECKED(mlock(area.primary, hgm_base)), 0);
	EXPECT_EQ(CHECKED(munlock(area.primary, hgm_base)), 0);
	hgm_expect_shape(&area);
	if (mapped == hgm_huge) {
		/* Base pages all the way: make the hole at the end. */
		EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED)), 0);
		hgm_now_empty(&area, 0, hgm_huge);
		hgm_continue(&area, 0, hgm_base);
		mapped = hgm_base;
	}
	EXPECT_EQ(madvise(area.primary, mapped + hgm_base, POPULATE_READ), -1);
	EXPECT_EQ(errno, EFAULT);
	EXPECT_EQ(madvise(area.primary, mapped + hgm_base, POPULATE_WRITE), -1);
	EXPECT_EQ(errno, EFAULT);
	EXPECT_EQ(mlock(area.primary + mapped, hgm_base), -1);
	EXPECT_EQ(errno, ENOMEM);
	hgm_expect_shape(&area);
}
