// SPDX-License-Identifier: MIT
/*
 * Huge pages with and without optimised vmemmap (HVO). With it the struct pages from number 64 on are read-only aliases of
 * the first 64, so what reads them sees the head's flags again, and what writes them dies.
 */
#include "hgm.h"

#include <fcntl.h>
#include <sys/utsname.h>

static const char sysctl[] = "/proc/sys/vm/hugetlb_optimize_vmemmap";

/* Base pages whose struct pages fit in one base page, which HVO keeps. */
static size_t kept_structs(void)
{
	return hgm_base / 64;
}

/* HVO must be on, where the kernel has it at all: vmemmap/saving.py sees to it that a kernel built with it does. */
static void need_hvo(void)
{
	if (hgm_huge / hgm_base <= kept_structs())
		hgm_skip("not applicable: all struct pages of such a huge page lie in one base page");
	if (access(sysctl, F_OK))
		hgm_skip("not applicable: kernel has no HVO");
	EXPECT_EQ(hgm_read_number(sysctl), 1);
}

static bool flagged_as_head(uint64_t head, size_t piece)
{
	return hgm_kpageflags(head + piece) & 1ULL << HGM_KPF_UPTODATE;
}

/*
 * Linux 6.1 shows the raw flags of each struct page, 6.12 those of the head for all base pages (fs/proc/page.c:
 * stable_page_flags), so that aliases do not stand out.
 */
static bool aliases_show(uint64_t head)
{
	struct utsname system;
	int major, minor;

	if (!flagged_as_head(head, 1))
		return true;
	EXPECT(!uname(&system) && sscanf(system.release, "%d.%d", &major, &minor) == 2);
	if (major < 6 || (major == 6 && minor == 1))
		HGM_FAIL("kpageflags of base page 1 shows a flag that only the head has");
	return false;
}

/* Raw flags, such as UPTODATE, are the head's only; where they show up again the struct page is the head's. */
static void expect_aliases(uint64_t head, bool aliased)
{
	EXPECT(flagged_as_head(head, 0));
	if (!aliases_show(head))
		return;
	EXPECT(!flagged_as_head(head, kept_structs() - 1));
	for (size_t piece = kept_structs(); piece < hgm_huge / hgm_base; piece += kept_structs()) {
		if (flagged_as_head(head, piece) != aliased)
			HGM_FAIL("struct page %zu %s the head's flags, HVO %s", piece,
				 aliased ? "does not show" : "shows", aliased ? "is on" : "is off");
		EXPECT(!flagged_as_head(head, piece + 1));
	}
}

static void need_visible_aliases(void)
{
	struct hgm_area area;
	bool show;

	hgm_area_open(&area, 1, HGM_PLAIN);
	show = aliases_show(area.head[0]);
	hgm_area_close(&area);
	if (!show)
		hgm_skip("not applicable: kpageflags shows the head's flags for every base page");
}

STOCK_CASE(far_structs_are_aliases, "with HVO on the head's flags show up again at struct pages 64, 128 and so on, "
	   "and every base page is known as a tail [mm/hugetlb_vmemmap.c:vmemmap_remap_pte, include/linux/page-flags.h:"
	   "page_fixed_fake_head]", .sizes = "2M 32M 512M 1G")
{
	const uint64_t kinds = 1ULL << HGM_KPF_HEAD | 1ULL << HGM_KPF_TAIL | 1ULL << HGM_KPF_HUGE;
	size_t count = hgm_huge / hgm_base;
	uint64_t *flags = calloc(count, sizeof(*flags));
	struct hgm_area area;

	EXPECT(flags);
	need_hvo();
	hgm_area_open(&area, 1, HGM_PLAIN);
	hgm_kpageflags_range(area.head[0], count, flags);
	for (size_t piece = 0; piece < count; piece++)
		if ((flags[piece] & kinds) != (1ULL << HGM_KPF_HUGE | 1ULL << (piece ? HGM_KPF_TAIL : HGM_KPF_HEAD)))
			HGM_FAIL("kpageflags of base page %zu: expected %s of a huge page, saw 0x%llx", piece,
				 piece ? "a tail" : "the head", (unsigned long long)flags[piece]);
	need_visible_aliases();
	expect_aliases(area.head[0], true);
}

/* Grows the pool by one page with HVO off, calls `use` on an area that has this page, and shrinks it again. */
static void with_page_without_hvo(void (*use)(struct hgm_area *area))
{
	char pool[96];
	long size = hgm_pool("nr");
	struct hgm_area area;
	size_t taken = hgm_pool("free") - hgm_pool("resv");
	int all;

	snprintf(pool, sizeof(pool), "/sys/kernel/mm/hugepages/hugepages-%zukB/nr_hugepages", hgm_huge >> 10);
	/* Every page that has HVO is taken, so that the area gets the one that has not. */
	all = hgm_memfd(taken);
	EXPECT_EQ(CHECKED(fallocate(all, 0, 0, taken * hgm_huge)), 0);
	hgm_write_number(sysctl, 0);
	hgm_write_number(pool, size + 1);
	hgm_write_number(sysctl, 1);
	if (hgm_pool("nr") != size + 1)
		HGM_FAIL("the pool did not grow by a page");
	hgm_area_open(&area, 1, 0);
	use(&area);
	hgm_area_close(&area);
	hgm_write_number(pool, size);
	close(all);
	EXPECT_EQ(hgm_pool("nr"), size);
}

static void has_no_aliases(struct hgm_area *area)
{
	expect_aliases(area->head[0], false);
}

STOCK_CASE(sysctl_off_keeps_structs, "a page that joins the pool while vm.hugetlb_optimize_vmemmap is 0 has struct "
	   "pages of its own, also after it is 1 again [mm/hugetlb_vmemmap.c:hugetlb_vmemmap_optimize]",
	   .sizes = "2M")
{
	need_hvo();
	need_visible_aliases();
	with_page_without_hvo(has_no_aliases);
}

static void map_near_and_far(struct hgm_area *area)
{
	/* 3 shares its struct page with 67, 131 and so on; 100 has none that may be written. */
	hgm_continue(area, 100 * hgm_base, hgm_base);
	hgm_expect_shape(area);
	hgm_continue(area, 3 * hgm_base, hgm_base);
	hgm_expect_shape(area);
	hgm_continue(area, hgm_huge - hgm_base, hgm_base);
	hgm_expect_shape(area);
}

HGM_CASE(near_and_far_pieces, "with HVO on pieces 100, 3 and the last are mapped, counted, collapsed and unmapped, "
	 "and no struct page from 64 on is written [PATCH v2 patch 6 excludes HVO for this]", .sizes = "2M 32M 512M 1G")
{
	struct hgm_area area;

	need_hvo();
	hgm_area_open(&area, 1, 0);
	expect_aliases(area.head[0], true);
	map_near_and_far(&area);
	expect_aliases(area.head[0], true);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	expect_aliases(area.head[0], true);
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 1);
}

/* Of no struct page but the head's and its aliases the kernel shows other flags than before. */
static void expect_same_flags(uint64_t head, const uint64_t *before, uint64_t *now, const char *when)
{
	hgm_kpageflags_range(head, hgm_huge / hgm_base, now);
	for (size_t piece = 1; piece < hgm_huge / hgm_base; piece++)
		if (piece % kept_structs() && now[piece] != before[piece])
			HGM_FAIL("kpageflags of base page %zu: 0x%llx before piece 3 was mapped, 0x%llx when it was %s", piece,
				 (unsigned long long)before[piece], (unsigned long long)now[piece], when);
}

HGM_CASE(near_piece_alone, "with HVO on piece 3 alone is mapped and unmapped: no struct page but the head's changes, neither "
	 "that of the piece nor its aliases 67, 131 and so on [mm/hugetlb_vmemmap.c:vmemmap_remap_pte; as far as "
	 "kpageflags and kpagecount show it]",
	 .sizes = "2M 32M 512M 1G")
{
	struct hgm_area area;
	size_t count = hgm_huge / hgm_base;
	uint64_t *before = calloc(count, sizeof(*before)), *after = calloc(count, sizeof(*after));

	EXPECT(before && after);
	need_hvo();
	hgm_area_open(&area, 1, 0);
	hgm_kpageflags_range(area.head[0], count, before);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_expect_mapcount(&area, 1);
	expect_same_flags(area.head[0], before, after, "mapped");
	hgm_unmap_primary(&area);
	hgm_expect_mapcount(&area, 1);
	expect_same_flags(area.head[0], before, after, "unmapped");
}

static void map_and_collapse(struct hgm_area *area)
{
	expect_aliases(area->head[0], false);
	map_near_and_far(area);
	hgm_collapse(area, 0, hgm_huge);
	hgm_expect_shape(area);
}

HGM_CASE(pieces_without_hvo, "the same on a page that has struct pages of its own, in a pool of pages that have not "
	 "[RFC v1 cover]", .sizes = "2M")
{
	need_hvo();
	with_page_without_hvo(map_and_collapse);
}

HGM_CASE(switched_while_live, "switching vm.hugetlb_optimize_vmemmap while pieces are mapped changes nothing about "
	 "them, and the page goes back to the pool [mm/hugetlb_vmemmap.c: acts on pages that are set up later]",
	 .sizes = "2M 32M 512M 1G")
{
	struct hgm_area area;
	long free_before = hgm_pool("free");

	need_hvo();
	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_write_number(sysctl, 0);
	hgm_expect_shape(&area);
	hgm_continue(&area, 100 * hgm_base, 2 * hgm_base);
	hgm_expect_shape(&area);
	expect_aliases(area.head[0], true);
	hgm_write_number(sysctl, 1);
	hgm_expect_shape(&area);
	hgm_collapse(&area, 0, hgm_huge);
	hgm_expect_shape(&area);
	hgm_area_close(&area);
	EXPECT_EQ(hgm_pool("free"), free_before);
}
