// SPDX-License-Identifier: MIT
/* Moving pages to another NUMA node, and out of the way of an error to come: done whole, or refused and left alone. */
#include "hgm.h"

#include <sys/syscall.h>

/* Where the headers of a C library do not have them. */
#define MPOL_BIND 2
#define MPOL_MF_MOVE (1 << 1)
#define MPOL_MF_MOVE_ALL (1 << 2)
#define MADV_SOFT_OFFLINE 101 /* linux/mman.h */

static int node_of(const void *at)
{
	void *page = (void *)at;
	int status = -ENODEV;

	CHECKED(syscall(SYS_move_pages, 0, 1, &page, NULL, &status, 0));
	return status;
}

/* move_pages of the page at `at`, mapped by others or not: the node it is on then, or -errno. */
static int move(const void *at, int node)
{
	void *page = (void *)at;
	int status = -ENODEV;
	long left = syscall(SYS_move_pages, 0, 1, &page, &node, &status, MPOL_MF_MOVE_ALL);

	/* A page that would not move is counted, and its status not written (mm/migrate.c:do_pages_move). */
	return left < 0 ? -errno : left > 0 ? -EAGAIN : status;
}

static void need_two_nodes(void)
{
	if (access("/sys/devices/system/node/node1", F_OK))
		hgm_skip("not applicable: one NUMA node");
}

/* The page that moves must find a free one of its size on the other node. */
static int other_node_with_pages(const void *at)
{
	int node = 1 - node_of(at);
	char path[128];

	EXPECT(node == 0 || node == 1);
	snprintf(path, sizeof(path), "/sys/devices/system/node/node%d/hugepages/hugepages-%zukB/free_hugepages", node,
		 hgm_huge >> 10);
	if (hgm_read_number(path) < 1)
		HGM_FAIL("node %d has no free huge page to move to", node);
	return node;
}

STOCK_CASE(whole_page_moves, "move_pages moves a huge page that is mapped whole, twice, to the other node: new frames, "
	   "same content, same counters [mm/migrate.c:unmap_and_move_huge_page]")
{
	struct hgm_area area;
	uint64_t old;
	int node;

	need_two_nodes();
	hgm_area_open(&area, 1, HGM_PLAIN);
	hgm_expect_tag(area.primary, 0);
	hgm_now_faulted(&area, 0);
	node = other_node_with_pages(area.primary);
	old = area.head[0];
	EXPECT_EQ(move(area.primary, node), node);
	EXPECT_EQ(node_of(area.primary), node);
	area.head[0] = hgm_pfn(area.alias);
	EXPECT(area.head[0] != old);
	hgm_expect_shape(&area);
	EXPECT_EQ(hgm_kpagecount(old), 0);
}

HGM_CASE(page_in_pieces, "move_pages of a huge page that is mapped in pieces moves it, or says why not; both mappings "
	 "show the same frames with the right content afterwards [RFC v1: not supported; RFC v2 patch 29: is]")
{
	struct hgm_area area;
	int node, came;

	need_two_nodes();
	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 0, hgm_base);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_continue_each_size(&area, 0);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	node = other_node_with_pages(area.primary);
	came = move(area.primary, node);
	/* Either it is there, or the reason is one that move_pages(2) has for a page that cannot move. */
	if (came != node && came != -EAGAIN && came != -EBUSY && came != -EACCES)
		HGM_FAIL("move_pages to node %d: expected it to move or to be refused, saw %d", node, came);
	hgm_note("move_pages of a page in pieces: %s", came == node ? "moved" : strerror(-came));
	area.head[0] = hgm_pfn(area.alias);
	EXPECT_EQ(node_of(area.alias), came == node ? node : 1 - node);
	hgm_expect_shape(&area);
}

/* mbind of the primary, moving what it maps: 0 or errno. */
static int bind_primary(const struct hgm_area *area, int node)
{
	unsigned long mask = 1UL << node;
	long failed = syscall(SYS_mbind, area->primary, area->length, MPOL_BIND, &mask, 8 * sizeof(mask), MPOL_MF_MOVE);

	return failed ? errno : 0;
}

STOCK_CASE(bind_whole_page, "mbind with MPOL_MF_MOVE leaves a huge page that is mapped twice where it is, and moves it "
	   "once nobody else maps it [mm/mempolicy.c:queue_pages_hugetlb]")
{
	struct hgm_area area;
	uint64_t old;
	int node;

	need_two_nodes();
	hgm_area_open(&area, 1, HGM_PLAIN);
	hgm_expect_tag(area.primary, 0);
	hgm_now_faulted(&area, 0);
	node = other_node_with_pages(area.primary);
	old = area.head[0];
	EXPECT_ERRNO(bind_primary(&area, node), 0);
	hgm_expect_shape(&area);
	CHECKED(madvise(area.alias, hgm_huge, MADV_DONTNEED));
	EXPECT_ERRNO(bind_primary(&area, node), 0);
	EXPECT_EQ(node_of(area.primary), node);
	area.head[0] = hgm_pfn(area.primary);
	EXPECT(area.head[0] != old);
	EXPECT_EQ(hgm_kpagecount(old), 0);
	hgm_expect_tag(area.alias, 0);
	hgm_expect_shape(&area);
}

HGM_CASE(bind_pieces_alone, "mbind with MPOL_MF_MOVE over pieces of a page that nobody else maps: it moves with all "
	 "pieces and holes, or stays as it is [James Houghton: MPOL_MF_MOVE looks at the mapcount; RFC v1: not "
	 "supported]")
{
	struct hgm_area area;
	size_t present;
	int node, error;

	need_two_nodes();
	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_continue_each_size(&area, 0);
	hgm_continue(&area, hgm_huge - hgm_base, hgm_base);
	CHECKED(madvise(area.alias, hgm_huge, MADV_DONTNEED));
	node = other_node_with_pages(area.primary + 3 * hgm_base);
	present = hgm_present(area.primary, hgm_huge);
	error = bind_primary(&area, node);
	hgm_note("mbind of a page in pieces, mapped once: %s", error ? strerror(error) : "success");
	EXPECT_EQ(hgm_present(area.primary, hgm_huge), present);
	area.head[0] = hgm_pfn(area.primary + 3 * hgm_base) - 3;
	hgm_expect_tag(area.alias + 3 * hgm_base, 3);
	hgm_expect_shape(&area);
}

HGM_CASE(bind_in_pieces, "mbind with MPOL_MF_MOVE over a mapping in pieces moves the page or leaves it, and the mapping "
	 "is as it was [mm/mempolicy.c:queue_pages_hugetlb]")
{
	struct hgm_area area;
	int error;

	need_two_nodes();
	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_continue_each_size(&area, 0);
	error = bind_primary(&area, other_node_with_pages(area.primary + 3 * hgm_base));
	hgm_note("mbind of a page in pieces: %s", error ? strerror(error) : "success");
	area.head[0] = hgm_pfn(area.alias);
	hgm_expect_shape(&area);
}

/*
 * Soft-offlining moves the content to another page and retires the old one, which is all that the pool may lose. It may
 * also refuse, or move the content and then not retire what is free by then: EBUSY, and the old page is still in the
 * pool, or out of it and not retired (mm/memory-failure.c:page_handle_poison).
 */
static void soft_offline(struct hgm_area *area, const char *what)
{
	long free_before = hgm_pool("free"), total_before = hgm_pool("nr"), lost;
	uint64_t old = area->head[0];
	int error = madvise(area->alias, hgm_huge, MADV_SOFT_OFFLINE) ? errno : 0;
	bool moved;

	area->head[0] = hgm_pfn(area->alias);
	moved = area->head[0] != old;
	hgm_note("%s: %s, frame 0x%llx is now 0x%llx", what, error ? strerror(error) : "retired",
		 (unsigned long long)old, (unsigned long long)area->head[0]);
	if (moved ? error && error != EBUSY : !error)
		HGM_FAIL("MADV_SOFT_OFFLINE: the content was %s, and it says %s", moved ? "moved" : "not moved",
			 error ? strerror(error) : "success");
	hgm_expect_shape(area);
	hgm_area_close(area);
	lost = total_before - hgm_pool("nr");
	if (moved && error)
		EXPECT(lost == 0 || lost == 1);
	else
		EXPECT_EQ(lost, moved);
	EXPECT_EQ(hgm_pool("free"), free_before + 1 - lost);
	EXPECT_EQ(hgm_pool("resv"), 0);
	EXPECT_EQ(hgm_pool("surplus"), 0);
}

STOCK_CASE(soft_offline_whole, "MADV_SOFT_OFFLINE of a huge page that is mapped whole retires it or refuses; the content "
	   "is all there [mm/memory-failure.c:soft_offline_in_use_page]", .spoils = 1)
{
	struct hgm_area area;

	hgm_area_open(&area, 1, HGM_PLAIN);
	hgm_expect_tag(area.primary, 0);
	hgm_now_faulted(&area, 0);
	soft_offline(&area, "a page mapped whole");
}

HGM_CASE(soft_offline_in_pieces, "MADV_SOFT_OFFLINE of a huge page that is mapped in pieces retires it or refuses; pieces, "
	 "holes and content are as they were [mm/memory-failure.c:soft_offline_in_use_page]", .spoils = 1)
{
	struct hgm_area area;

	hgm_area_open(&area, 1, 0);
	hgm_continue(&area, 3 * hgm_base, hgm_base);
	hgm_continue_each_size(&area, 0);
	hgm_continue(&area, hgm_huge / 2, hgm_base);
	soft_offline(&area, "a page in pieces");
}
