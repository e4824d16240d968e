// SPDX-License-Identifier: MIT
/* The mapcount of huge pages mapped whole, in pieces, and no more. Each dialect has a rule of its own: see hgm.h. */
#include "hgm.h"

STOCK_CASE(each_mapping_counts, "a whole huge page mapped once, twice and three times in one process has mapcount 1, "
	   "2, 3 at every base page, and goes back [fs/proc/page.c:kpagecount_read, mm/util.c:__page_mapcount]")
{
	int fd = hgm_memfd(1);
	unsigned char *at[3];
	uint64_t head;

	for (unsigned i = 0; i < 3; i++) {
		at[i] = hgm_map(fd, 0, hgm_huge, MAP_SHARED);
		*(volatile unsigned char *)(at[i] + i * hgm_base) = 1;
		head = hgm_pfn(at[i]);
		EXPECT_EQ(head, hgm_pfn(at[0]));
		hgm_expect_count(head, i + 1);
	}
	for (unsigned i = 0; i < 2; i++) {
		EXPECT_EQ(CHECKED(munmap(at[i], hgm_huge)), 0);
		hgm_expect_count(head, 2 - i);
	}
	EXPECT_EQ(CHECKED(munmap(at[2], hgm_huge)), 0);
	/* Still in the page cache, mapped by nobody. */
	hgm_expect_count(head, 0);
}

STOCK_CASE(continue_counts, "a whole huge page mapped by CONTINUE counts once, is flagged as mapped, and is back in "
	   "the pool once the file is closed [mm/hugetlb.c:hugetlb_mcopy_atomic_pte]")
{
	struct hgm_area area;
	long free_before = hgm_pool("free"), reserved = hgm_pool("resv");

	hgm_area_open(&area, 1, 0);
	hgm_expect_mapcount(&area, 1);
	hgm_continue(&area, 0, hgm_huge);
	hgm_expect_mapcount(&area, 1);
	EXPECT(hgm_kpageflags(area.head[0]) & 1ULL << HGM_KPF_MMAP);
	hgm_area_close(&area);
	EXPECT_EQ(hgm_pool("free"), free_before);
	EXPECT_EQ(hgm_pool("resv"), reserved);
}

/* Maps only this piece, alone in the world; then unmaps it and closes the file: all counts must go back. */
static void only_piece(size_t piece)
{
	struct hgm_area area;
	long free_before = hgm_pool("free"), reserved = hgm_pool("resv");
	uint64_t head;

	hgm_area_open(&area, 1, 0);
	head = area.head[0];
	hgm_expect_mapcount(&area, 1);
	hgm_continue(&area, piece * hgm_base, hgm_base);
	hgm_expect_mapcount(&area, 1);
	EXPECT_EQ(CHECKED(madvise(area.alias, hgm_huge, MADV_DONTNEED)), 0);
	hgm_expect_mapcount(&area, 0);
	EXPECT(hgm_kpageflags(head) & 1ULL << HGM_KPF_MMAP);
	hgm_unmap_primary(&area);
	hgm_expect_count(head, 0);
	EXPECT(!(hgm_kpageflags(head) & 1ULL << HGM_KPF_MMAP));
	hgm_area_close(&area);
	EXPECT_EQ(hgm_pool("free"), free_before);
	EXPECT_EQ(hgm_pool("resv"), reserved);
}

HGM_CASE(only_the_first_piece, "the first piece alone counts, and not once it is unmapped; the page is back in the "
	 "pool [RFC v1 cover: one for each VMA that maps any piece]")
{
	only_piece(0);
}

HGM_CASE(only_a_later_piece, "piece 1, one in the middle, or the last alone counts, and not once it is unmapped; the "
	 "page is back in the pool [RFC v1 dropped the count only if the first piece was mapped]")
{
	only_piece(1);
	only_piece(hgm_huge / hgm_base / 2 + 1);
	only_piece(hgm_huge / hgm_base - 1);
}

HGM_CASE(more_pieces, "the mapcount after one, two and all pieces is that of the dialect's rule: in RFC v1 it stays "
	 "the same from the first piece on [RFC v1 cover]", .deadline_s = 180)
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, hgm_base);
	hgm_expect_mapcount(&area, 1);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	hgm_expect_mapcount(&area, 1);
	for (size_t i = 2 * hgm_base; i < hgm_huge - hgm_base; i += hgm_base)
		hgm_continue(&area, i, hgm_base);
	hgm_expect_mapcount(&area, 1);
	hgm_continue(&area, 0, hgm_base);
	hgm_expect_mapcount(&area, 1);
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(leaves_of_each_size, "a leaf of each size and a base page in one huge page count by the dialect's rule "
	 "[RFC v1 cover; RFC v2: one for each entry]")
{
	struct hgm_area area;
	size_t offset = 0;

	hgm_area_open(&area, 1, 0);
	for (const size_t *size = hgm_piece_sizes(); *size; size++) {
		hgm_continue(&area, offset, *size);
		offset += *size;
		hgm_expect_mapcount(&area, 1);
	}
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(two_pages_by_themselves, "pieces of one huge page do not count for its neighbour [RFC v1 cover]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	hgm_expect_mapcount(&area, 1);
	hgm_continue(&area, hgm_huge + hgm_base, 2 * hgm_base);
	hgm_expect_mapcount(&area, 1);
	EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED)), 0);
	hgm_now_empty(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
}

HGM_CASE(collapse_keeps_count, "a collapse leaves a mapping that counts once, however many pieces there were "
	 "[RFC v1 patch 18]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, hgm_base, 7 * hgm_base);
	hgm_expect_mapcount(&area, 1);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_count(area.head[0], 2);
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(pieces_hold_one_reference, "a huge page of which several pieces were mapped goes back to the pool, collapsed before "
	 "or not: its mapping holds one reference, however many pieces [James Houghton on RFC v1: one for each CONTINUE]")
{
	struct hgm_area area;
	long free_before = hgm_pool("free");

	for (int collapsed = 0; collapsed < 2; collapsed++) {
		hgm_area_open(&area, 1, 0);
		hgm_continue(&area, hgm_base, hgm_base);
		hgm_continue(&area, 3 * hgm_base, hgm_base);
		hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
		if (collapsed)
			hgm_collapse(&area, 0, hgm_huge);
		hgm_unmap_primary(&area);
		hgm_area_close(&area);
		EXPECT_EQ(hgm_pool("free"), free_before);
	}
}

HGM_CASE(empty_table_counts_nothing, "CONTINUE that fails for want of a page may leave a table, but no count: "
	 "nothing is mapped beneath it [RFC v1 cover; RFC v1 patch 20]")
{
	struct hgm_area area;
	long free_before = hgm_pool("free");

	hgm_area_open(&area, 1, 0);
	EXPECT_EQ(CHECKED(ftruncate(area.fd, 0)), 0);
	EXPECT_EQ(CHECKED(ftruncate(area.fd, area.length)), 0);
	EXPECT_ERRNO(hgm_try_continue(&area, hgm_base, hgm_base, NULL), EFAULT);
	*(volatile uint64_t *)area.alias = 1;
	area.head[0] = hgm_pfn(area.alias);
	EXPECT_EQ(hgm_present(area.primary, area.length), 0);
	hgm_expect_count(area.head[0], 1);
	hgm_area_close(&area);
	EXPECT_EQ(hgm_pool("free"), free_before);
}
