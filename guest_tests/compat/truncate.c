// SPDX-License-Identifier: MIT
/* Truncation, hole punching and MADV_DONTNEED, above all when only a later piece of a page is mapped. */
#include "hgm.h"

#include <fcntl.h>

static void punch(const struct hgm_area *area, size_t offset, size_t length)
{
	EXPECT_EQ(CHECKED(fallocate(area->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length)), 0);
}

STOCK_CASE(truncate_unmaps, "ftruncate unmaps a huge page from every mapping and gives it back to the pool "
	   "[fs/hugetlbfs/inode.c:remove_inode_hugepages]")
{
	struct hgm_area area;
	long free_before;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, 0, area.length);
	free_before = hgm_pool("free");
	EXPECT_EQ(CHECKED(ftruncate(area.fd, hgm_huge)), 0);
	EXPECT_EQ(hgm_present(area.primary, area.length), hgm_huge / hgm_base);
	EXPECT_EQ(hgm_present(area.alias, area.length), hgm_huge / hgm_base);
	EXPECT_EQ(hgm_pool("free"), free_before + 1);
	/* Behind the end of the file is SIGBUS; before it nothing has changed. */
	EXPECT(hgm_sigbus(area.alias + hgm_huge, NULL, NULL));
	hgm_expect_tag(area.primary, 0);
	EXPECT_EQ(hgm_kpagecount(area.head[0]), 2);
}

STOCK_CASE(punch_shows_zeroes, "a page that was punched out reads as zeroes afterwards, at every base page "
	   "[fs/hugetlbfs/inode.c:hugetlbfs_punch_hole]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, HGM_PLAIN);
	hgm_expect_tag(area.primary, 0);
	punch(&area, 0, hgm_huge);
	EXPECT_EQ(hgm_present(area.primary, hgm_huge), 0);
	EXPECT_EQ(hgm_present(area.alias, hgm_huge), 0);
	for (size_t i = 0; i < hgm_huge; i += hgm_base)
		EXPECT_EQ(*(volatile uint64_t *)(area.primary + i), 0);
}

STOCK_CASE(dontneed_alignment, "MADV_DONTNEED of huge pages: EINVAL unless it starts at a huge page; its end is "
	   "rounded down; what is left of nothing is no error; the contents stay "
	   "[mm/madvise.c:madvise_dontneed_free_valid_vma]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, 0, area.length);
	EXPECT_ERRNO(madvise(area.primary + hgm_base, hgm_huge, MADV_DONTNEED) ? errno : 0, EINVAL);
	EXPECT_ERRNO(madvise(area.primary, hgm_huge, MADV_FREE) ? errno : 0, EINVAL);
	hgm_expect_shape(&area);
	EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge - hgm_base, MADV_DONTNEED)), 0);
	hgm_expect_shape(&area);
	EXPECT_EQ(CHECKED(madvise(area.primary, 2 * hgm_huge - hgm_base, MADV_DONTNEED)), 0);
	hgm_now_empty(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	hgm_continue(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
}

STOCK_CASE(unaligned_calls, "munmap and mprotect of part of a huge page are EINVAL [mm/hugetlb.c:hugetlb_vm_op_split]")
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_huge);
	EXPECT_ERRNO(munmap(area.primary + hgm_base, hgm_huge - hgm_base) ? errno : 0, EINVAL);
	EXPECT_ERRNO(mprotect(area.primary + hgm_base, hgm_huge - hgm_base, PROT_READ) ? errno : 0, EINVAL);
	EXPECT_ERRNO(mprotect(area.primary, hgm_huge - hgm_base, PROT_READ) ? errno : 0, EINVAL);
	hgm_expect_shape(&area);
}

HGM_CASE(dontneed_pieces, "MADV_DONTNEED of granular pages keeps its rule: whole huge pages only, and then all "
	 "pieces go, their tables and their count with them [RFC v1 patch 15]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, 2 * hgm_huge - hgm_base, hgm_base);
	/* Again and again: a translation that was left may go by chance, with that of another process. */
	for (int round = 0; round < 16; round++) {
		hgm_continue(&area, 5 * hgm_base, 2 * hgm_base);
		EXPECT_ERRNO(madvise(area.primary + 5 * hgm_base, hgm_base, MADV_DONTNEED) ? errno : 0, EINVAL);
		EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge - hgm_base, MADV_DONTNEED)), 0);
		for (size_t piece = 5; piece < 7; piece++)
			hgm_expect_tag(area.primary + piece * hgm_base, piece);
		EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge, MADV_DONTNEED)), 0);
		hgm_now_empty(&area, 0, hgm_huge);
		for (size_t piece = 5; piece < 7; piece++)
			if (!hgm_sigbus(area.primary + piece * hgm_base, NULL, NULL))
				HGM_FAIL("round %d: base page %zu, which had been in use, was read after it had been unmapped",
					 round, piece);
	}
	hgm_expect_pieces(&area);
	hgm_expect_mapcount(&area, 1);
	/* The same pieces again, which must find nothing left over. */
	hgm_continue(&area, 5 * hgm_base, 2 * hgm_base);
	EXPECT_EQ(CHECKED(madvise(area.primary, hgm_huge - hgm_base, MADV_DONTNEED)), 0);
	hgm_expect_shape(&area);
}

HGM_CASE(truncate_later_piece, "ftruncate unmaps a page of which only a later piece is mapped, and gives it back to "
	 "the pool [James Houghton on PATCH v1 patch 17: hugetlb_vma_maps_page looks at the first address only]")
{
	struct hgm_area area;
	long free_before = hgm_pool("free");
	size_t piece = hgm_huge - 2 * hgm_base;
	uint64_t head;

	hgm_area_open(&area, 1, 0);
	head = area.head[0];
	hgm_continue(&area, piece, hgm_base);
	/* Alone: the alias must not be what makes the kernel look. */
	EXPECT_EQ(CHECKED(munmap(area.alias, hgm_huge)), 0);
	EXPECT_EQ(CHECKED(ftruncate(area.fd, 0)), 0);
	EXPECT_EQ(hgm_present(area.primary, hgm_huge), 0);
	EXPECT(hgm_sigbus(area.primary + piece, NULL, NULL));
	hgm_expect_count(head, 0);
	EXPECT_EQ(hgm_pool("free"), free_before);
}

/* Maps one later piece and nothing else, by anybody, and punches its page out of the file. */
static void punch_under_piece(struct hgm_area *area, size_t piece)
{
	hgm_area_open(area, 1, 0);
	hgm_continue(area, piece, hgm_base);
	EXPECT_EQ(CHECKED(madvise(area->alias, hgm_huge, MADV_DONTNEED)), 0);
	punch(area, 0, hgm_huge);
	hgm_now_empty(area, 0, hgm_huge);
	hgm_expect_pieces(area);
	hgm_expect_count(area->head[0], 0);
}

HGM_CASE(punch_later_piece, "after a hole is punched where only a later piece was mapped, the piece is gone, and "
	 "what is mapped there next is the new page, not the old one [James Houghton on PATCH v1 patch 17]")
{
	struct hgm_area area;
	size_t piece = 5 * hgm_base;

	punch_under_piece(&area, piece);
	/* A new page, all zeroes, written through the alias. */
	EXPECT_EQ(*(volatile uint64_t *)(area.alias + piece), 0);
	*(volatile uint64_t *)(area.alias + piece) = 4711;
	area.head[0] = hgm_pfn(area.alias);
	hgm_expect_mapcount(&area, 1);
	hgm_continue(&area, piece, hgm_base);
	EXPECT_EQ(*(volatile uint64_t *)(area.primary + piece), 4711);
	EXPECT_EQ(hgm_pfn(area.primary + piece), area.head[0] + 5);
	hgm_expect_mapcount(&area, 1);
}

HGM_CASE(touch_after_punch, "a touch of the piece after its page was punched out finds a new page of zeroes: no old "
	 "data, and no minor fault, since the page was missing [James Houghton on PATCH v1 patch 17]")
{
	struct hgm_area area;
	size_t piece = hgm_huge - hgm_base;

	punch_under_piece(&area, piece);
	EXPECT_EQ(*(volatile uint64_t *)(area.primary + piece), 0);
	EXPECT_EQ(hgm_kpagecount(hgm_pfn(area.primary + piece)), 1);
}

HGM_CASE(truncate_beside_pieces, "ftruncate of the second of two granular pages leaves the first alone "
	 "[fs/hugetlbfs/inode.c:hugetlb_vmtruncate]")
{
	struct hgm_area area;

	hgm_area_open(&area, 2, 0);
	hgm_continue(&area, hgm_huge - hgm_base, 2 * hgm_base);
	EXPECT_EQ(CHECKED(ftruncate(area.fd, hgm_huge)), 0);
	EXPECT_EQ(hgm_present(area.primary, area.length), 1);
	EXPECT_EQ(hgm_pfn(area.primary + hgm_huge - hgm_base), area.head[0] + hgm_huge / hgm_base - 1);
	hgm_expect_tag(area.primary + hgm_huge - hgm_base, hgm_huge / hgm_base - 1);
	EXPECT_EQ(hgm_kpagecount(area.head[0]), 1 + hgm_mapcount_share(&area, 0, 0));
}
