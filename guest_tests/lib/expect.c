// SPDX-License-Identifier: MIT
/* What the kernel says of an area, against its model and against the hardware. */
#include "inside.h"

static void expect_entry(const struct hgm_area *area, size_t i, uint64_t entry)
{
	uint64_t expected = area->head[i / PIECES] + i % PIECES;

	if (!(entry & HGM_PM_PRESENT) != !area->leaf[i])
		FAIL_HERE("pagemap of base page %zu: expected %s, saw 0x%llx", i, area->leaf[i] ? "a page" : "a hole",
			  (unsigned long long)entry);
	if (area->leaf[i] && (entry & HGM_PM_PFN) != expected)
		FAIL_HERE("page frame of base page %zu: expected 0x%llx, saw 0x%llx", i, (unsigned long long)expected,
			  (unsigned long long)(entry & HGM_PM_PFN));
}

/* What pagemap says of base page i, against what the hardware was seen to map. */
static void expect_same_story(const struct hgm_area *area, size_t i, uint64_t entry)
{
	uint64_t seen = entry & HGM_PM_PRESENT ? (entry & HGM_PM_PFN) * hgm_base : 0;

	if (area->outside[i] != ELSEWHERE && seen != area->outside[i])
		FAIL_HERE("the kernel's story differs: pagemap has base page %zu at 0x%llx, the hardware's tables at 0x%llx "
			  "(0: a hole)",
			  i, (unsigned long long)seen, (unsigned long long)area->outside[i]);
}

void hgm_expect_pagemap(const struct hgm_area *area, bool told)
{
	static __thread uint64_t entries[BATCH];
	size_t total = area->pages * PIECES;

	for (size_t first = 0; first < total; first += BATCH) {
		size_t count = total - first < BATCH ? total - first : BATCH;

		hgm_pagemap_range(area->primary + first * hgm_base, count, entries);
		for (size_t i = 0; told && i < count; i++)
			expect_same_story(area, first + i, entries[i]);
		for (size_t i = 0; i < count; i++)
			expect_entry(area, first + i, entries[i]);
	}
}


static struct outside expect_pieces(const struct hgm_area *area)
{
	struct outside told = hgm_look(area);
	const char *expected = told.text ? hgm_expected_shape(area) : NULL;

	hgm_expect_pagemap(area, told.text);
	for (size_t i = 0; i < area->pages * PIECES; i++) {
		if (!area->leaf[i])
			continue;
		hgm_expect_tag_(area->alias + i * hgm_base, i);
		hgm_expect_tag_(area->primary + i * hgm_base, i);
	}
	if (expected && strcmp(told.text, expected))
		FAIL_HERE("page tables of the primary mapping: expected %s, the hardware has %s", expected, told.text);
	return told;
}

void hgm_expect_pieces_(const struct hgm_area *area)
{
	expect_pieces(area);
}

void hgm_expect_tables_(const struct hgm_area *area)
{
	const char *expected = hgm_expected_shape(area), *seen = expected ? hgm_shape_(area->primary, area->length) : NULL;

	if (seen && strcmp(seen, expected))
		FAIL_HERE("page tables of the primary mapping: expected %s, the hardware has %s", expected, seen);
}

void hgm_expect_one_entry_(const void *at, bool leaf)
{
	const char *seen = hgm_shape_(at, hgm_huge);
	char expected[128], size[8];

	strcpy(size, hgm_size_name(hgm_huge));
	snprintf(expected, sizeof(expected), "tables 0; %s: %s\u00d7%zu@%llx", size, leaf ? size : "hole",
		 leaf ? 1 : PIECES, leaf ? (unsigned long long)hgm_pfn_(at) * hgm_base : 0ULL);
	if (seen && strcmp(seen, expected))
		FAIL_HERE("page tables of a huge page: expected %s, the hardware has %s", expected, seen);
}

/* What the kernel says of the primary, against the model and, where it is known, against the hardware's tables. */
static void expect_kb(const char *what, long seen, long expected, bool told, long outside)
{
	if (told && seen != outside)
		FAIL_HERE("the kernel's story differs: %s of the primary mapping is %ld kB, the hardware's tables have %ld kB",
			  what, seen, outside);
	if (seen != expected)
		FAIL_HERE("%s of the primary mapping: expected %ld kB, saw %ld kB", what, expected, seen);
}

static void expect_counters(const struct hgm_area *area, struct outside told)
{
	long mapped_kb = 0;

	for (size_t i = 0; i < area->pages * PIECES; i++)
		mapped_kb += area->leaf[i] ? hgm_base >> 10 : 0;
	expect_kb("HugetlbPages", hgm_status_kb("HugetlbPages") - area->hugetlb_kb, mapped_kb, told.text, told.mapped_kb);
	expect_kb("VmPTE", hgm_status_kb("VmPTE") - area->table_kb, hgm_table_kb(area), told.text,
		  told.tables * (long)(hgm_base >> 10));
	if (told.text)
		expect_kb("smaps", hgm_smaps_kb(area->primary, area->length), mapped_kb, true, told.mapped_kb);
}

void hgm_expect_counters_(const struct hgm_area *area)
{
	expect_counters(area, (struct outside){ .text = NULL });
}

unsigned hgm_mapcount_rule(enum hgm_dialect dialect, const size_t *leaf, size_t pieces, size_t piece)
{
	unsigned entries = 0;
	size_t i = 0;

	switch (dialect) {
	case HGM_NONE:
	case HGM_RFC1:
		while (i < pieces && !leaf[i])
			i++;
		return i < pieces;
	case HGM_RFC2:
	case HGM_V1:
		for (; i < pieces; i += leaf[i] ? leaf[i] / hgm_base : 1)
			entries += !!leaf[i];
		return entries;
	case HGM_V2:
		return leaf[piece] ? 1 : 0;
	}
	FAIL_HERE("unknown dialect");
}

unsigned hgm_mapcount_share(const struct hgm_area *area, size_t page, size_t piece)
{
	return hgm_mapcount_rule(hgm_dialect(), area->leaf + page * PIECES, PIECES, piece);
}

void hgm_expect_mapcount_(const struct hgm_area *area, unsigned others)
{
	static __thread uint64_t counts[BATCH];
	bool each = hgm_dialect() == HGM_V2;

	for (size_t page = 0; page < area->pages; page++) {
		unsigned share = hgm_mapcount_share(area, page, 0);

		if (!each) {
			hgm_expect_count_(area->head[page], others + share);
			continue;
		}
		for (size_t i = 0; i < PIECES; i++) {
			if (i % BATCH == 0)
				hgm_read_entries("/proc/kpagecount", area->head[page] + i,
					     PIECES - i < BATCH ? PIECES - i : BATCH, counts);
			share = hgm_mapcount_share(area, page, i);
			if (counts[i % BATCH] != others + share)
				FAIL_HERE("kpagecount of base page %zu of huge page %zu: expected %u, saw %llu", i, page,
					  others + share, (unsigned long long)counts[i % BATCH]);
		}
	}
}

void hgm_expect_shape_(const struct hgm_area *area)
{
	expect_counters(area, expect_pieces(area));
	hgm_expect_mapcount_(area, 1);
}
