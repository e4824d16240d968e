// SPDX-License-Identifier: MIT
/* The page tables as the hardware sees them: asked of the harness, which looks from outside. */
#include "inside.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/random.h>
#include <time.h>

#define SHAPE_PORT "hgm.shape" /* harness/image.py */
#define SHAPE_QUESTIONS 40 /* per case: each one stops the machine for some milliseconds */
#define SHAPE_SECONDS 120
#define SHAPE_TEXT 65536

static int shape_port = -1;
static int shape_questions;
static char shape_answer[SHAPE_TEXT], shape_expected[SHAPE_TEXT];

void hgm_open_shape_port(void)
{
	DIR *ports = opendir("/sys/class/virtio-ports");
	struct dirent *port;

	while (ports && shape_port < 0 && (port = readdir(ports))) {
		char path[320], name[64] = "";
		FILE *file;

		snprintf(path, sizeof(path), "/sys/class/virtio-ports/%s/name", port->d_name);
		file = fopen(path, "re");
		if (!file)
			continue;
		if (fgets(name, sizeof(name), file) && !strcmp(name, SHAPE_PORT "\n")) {
			snprintf(path, sizeof(path), "/dev/%s", port->d_name);
			shape_port = CHECKED(open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC));
		}
		fclose(file);
	}
	if (ports)
		closedir(ports);
	if (shape_port < 0)
		hgm_note("not checked: page tables from outside, since no harness is there to look");
}

/* Stays in user mode, in this address space, with the cookie in a register: by that the harness knows us. */
static void be_seen(uint64_t cookie)
{
	for (int i = 0; i < 20000; i++)
		__asm__ volatile("" : : "r"(cookie));
}

const char *hgm_shape_again_(const void *at, size_t length)
{
	const time_t end = time(NULL) + hgm_patience(SHAPE_SECONDS);
	char question[128], begin[32];
	uint64_t cookie;
	size_t got = 0;
	int size;

	if (shape_port < 0)
		return NULL;
	CHECKED(getrandom(&cookie, sizeof(cookie), 0));
	size = snprintf(question, sizeof(question), "shape %llx %llx %zx %zx\n", (unsigned long long)cookie,
			(unsigned long long)(uintptr_t)at, length, hgm_huge);
	if (write(shape_port, question, size) != size)
		FAIL_HERE("the harness's port: %s", strerror(errno));
	while (!got || shape_answer[got - 1] != '\n') {
		ssize_t more;

		be_seen(cookie);
		more = read(shape_port, shape_answer + got, sizeof(shape_answer) - 1 - got);
		if (more < 0 && errno != EAGAIN)
			FAIL_HERE("the harness's port: %s", strerror(errno));
		got += more > 0 ? more : 0;
		if (time(NULL) > end || got == sizeof(shape_answer) - 1)
			FAIL_HERE("the harness does not say how the memory is mapped");
	}
	shape_answer[got - 1] = 0;
	size = snprintf(begin, sizeof(begin), "%llx ", (unsigned long long)cookie);
	if (strncmp(shape_answer, begin, size) || !strncmp(shape_answer + size, "error", 5))
		FAIL_HERE("the harness could not look at the page tables: %s", shape_answer);
	if (!strcmp(shape_answer + size, "long")) {
		hgm_note("not checked: page tables from outside, since there are too many pieces to be told");
		return NULL;
	}
	return shape_answer + size;
}

const char *hgm_shape_(const void *at, size_t length)
{
	if (shape_port >= 0 && shape_questions++ == SHAPE_QUESTIONS)
		hgm_note("not checked: page tables from outside, after the first %d questions", SHAPE_QUESTIONS);
	return shape_questions > SHAPE_QUESTIONS ? NULL : hgm_shape_again_(at, length);
}

struct outside hgm_look(const struct hgm_area *area)
{
	struct outside told = { .text = hgm_shape_(area->primary, area->length) };
	char *at = (char *)told.text;

	if (!at)
		return told;
	told.tables = strtol(at + strlen("tables "), &at, 10);
	for (size_t page = 0; page < area->pages; page++) {
		char *mark = strchr(at, '@');
		unsigned long long head;

		at = strchr(at, ':') + 1;
		if (!mark || mark < at)
			FAIL_HERE("the harness answers in words that are not known: %s", told.text);
		head = strtoull(mark + 1, NULL, 16);
		for (size_t i = 0; i < PIECES;) {
			char *word = at + strspn(at, " "), *times = strstr(word, "\u00d7");
			size_t count = times && times < mark ? strtoul(times + 2, NULL, 10) : 0, pieces;
			size_t size = strtoul(word, &at, 10);
			bool elsewhere = at[1] == '!';

			if (!count)
				FAIL_HERE("the harness answers in words that are not known: %s", told.text);
			size <<= *at == 'G' ? 30 : *at == 'M' ? 20 : 10;
			pieces = count * (size < hgm_base ? 1 : size > hgm_huge ? PIECES : size / hgm_base);
			for (size_t k = 0; k < pieces && i < PIECES; k++, i++)
				area->outside[i + page * PIECES] = !size ? 0 : elsewhere ? ELSEWHERE : head + i * hgm_base;
			told.mapped_kb += size ? (long)(pieces * (hgm_base >> 10)) : 0;
			at = strpbrk(times + 2, " @");
		}
		at = mark + 1;
	}
	return told;
}

const char *hgm_expected_shape(const struct hgm_area *area)
{
	char *text = shape_expected, *const end = shape_expected + sizeof(shape_expected);

	text += snprintf(text, end - text, "tables %ld;", hgm_table_kb(area) / (long)(hgm_base >> 10));
	for (size_t page = 0; page < area->pages; page++) {
		const size_t *leaf = area->leaf + page * PIECES;
		bool mapped = false;

		text += snprintf(text, end - text, "%s %s:", page ? ";" : "", hgm_size_name(hgm_huge));
		for (size_t i = 0, run; i < PIECES && end - text > 128; i += run) {
			size_t pieces = leaf[i] ? leaf[i] / hgm_base : 1;

			for (run = 0; i + run < PIECES && leaf[i + run] == leaf[i]; run++)
				;
			mapped |= leaf[i];
			text += snprintf(text, end - text, " %s\u00d7%zu", leaf[i] ? hgm_size_name(leaf[i]) : "hole", run / pieces);
		}
		text += snprintf(text, end - text, "@%llx",
				 mapped ? (unsigned long long)area->head[page] * hgm_base : 0ULL);
		if (end - text <= 128)
			return NULL;
	}
	return shape_expected;
}
