// SPDX-License-Identifier: MIT
/* The same few steps in every order, each compared with the rule. */
#include "hgm.h"

enum { FIRST, LAST, COLLAPSE, DONTNEED, ENTER, LEAVE, STEPS };

static const char *const names[STEPS] = { "first piece", "last piece", "collapse", "dontneed", "enter", "leave" };

struct state {
	struct hgm_area area;
	struct hgm_child other; /* a process that has the whole page mapped, if `entered` */
	bool entered;
};

static void continue_or_exist(struct hgm_area *area, size_t offset)
{
	if (area->leaf[offset / hgm_base])
		EXPECT_ERRNO(hgm_try_continue(area, offset, hgm_base, NULL), EEXIST);
	else
		hgm_continue(area, offset, hgm_base);
}

static void take(struct state *state, int step)
{
	struct hgm_area *area = &state->area;

	switch (step) {
	case FIRST:
		continue_or_exist(area, 0);
		break;
	case LAST:
		continue_or_exist(area, hgm_huge - hgm_base);
		break;
	case COLLAPSE:
		hgm_collapse(area, 0, hgm_huge);
		break;
	case DONTNEED:
		CHECKED(madvise(area->primary, hgm_huge, MADV_DONTNEED));
		hgm_now_empty(area, 0, hgm_huge);
		break;
	case ENTER:
		if (hgm_fork(&state->other)) {
			hgm_expect_tag(area->alias + 3 * hgm_base, 3);
			hgm_tell(&state->other);
			hgm_wait(&state->other);
			hgm_child_done();
		}
		hgm_wait(&state->other);
		state->entered = true;
		break;
	case LEAVE:
		if (state->entered) {
			hgm_tell(&state->other);
			hgm_join(&state->other);
		}
		state->entered = false;
		break;
	}
}

/* HugetlbPages and the mapcount as a few base pages have it, with HVO's aliases (from 64 on) among them. */
static void expect_rule(const struct state *state)
{
	const size_t sample[] = { 0, 3, 100, hgm_huge / hgm_base - 1 };
	const struct hgm_area *area = &state->area;

	hgm_expect_counters(area);
	for (size_t i = 0; i < sizeof(sample) / sizeof(*sample); i++) {
		size_t piece = sample[i] % (hgm_huge / hgm_base);

		EXPECT_EQ(hgm_kpagecount(area->head[0] + piece),
			  1 + state->entered + hgm_mapcount_share(area, 0, piece));
	}
}

/* Heap's way through all permutations; returns false after the last one. */
static bool permute(int *steps, int *counters)
{
	for (int i = 1; i < STEPS; i++) {
		int other = i % 2 ? counters[i] : 0, kept;

		if (counters[i] >= i) {
			counters[i] = 0;
			continue;
		}
		kept = steps[i];
		steps[i] = steps[other];
		steps[other] = kept;
		counters[i]++;
		return true;
	}
	return false;
}

HGM_CASE(every_order, "mapping the first and the last piece, a collapse, MADV_DONTNEED, and a process that comes and "
	 "goes, in all 720 orders (of 1G pages each seventh): the mapcount follows the rule after every step "
	 "[RFC v1 cover]", .deadline_s = 240)
{
	int steps[STEPS] = { FIRST, LAST, COLLAPSE, DONTNEED, ENTER, LEAVE }, counters[STEPS] = { 0 };
	struct state state = { .entered = false };
	int order = 0;

	hgm_area_open(&state.area, 1, 0);
	do {
		/* The model of a gigantic page has 262144 entries, and is looked at after each step. */
		if (order++ % (hgm_huge > 1 << 28 ? 7 : 1))
			continue;
		for (int i = 0; i < STEPS; i++) {
			take(&state, steps[i]);
			expect_rule(&state);
		}
		take(&state, LEAVE);
		take(&state, DONTNEED);
		if (hgm_kpagecount(state.area.head[0]) != 1)
			for (int i = 0; i < STEPS; i++)
				hgm_note("step %d: %s", i, names[steps[i]]);
		expect_rule(&state);
	} while (permute(steps, counters));
	hgm_expect_shape(&state.area);
}
