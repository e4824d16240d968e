// SPDX-License-Identifier: MIT
/* The program: which case, at which size, and the KTAP around it. */
#include "inside.h"

#include <signal.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>

size_t hgm_base;
size_t hgm_huge;
const struct hgm_case *hgm_current;
int hgm_current_number;

static struct hgm_case *cases;

void hgm_declare(struct hgm_case *declared)
{
	struct hgm_case **end = &cases;

	while (*end)
		end = &(*end)->next;
	*end = declared;
}

size_t hgm_random(size_t bound)
{
	static uint64_t state = 0x9e3779b97f4a7c15ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % bound;
}

static bool about_this_size(const struct hgm_case *declared)
{
	char words[128], *rest = words;

	if (!declared->sizes)
		return true;
	snprintf(words, sizeof(words), "%s", declared->sizes);
	for (char *word; (word = strsep(&rest, " ")); )
		if (!strcmp(word, hgm_size_name(hgm_huge)))
			return true;
	return false;
}

_Noreturn static void run(struct hgm_case *declared, int number)
{
	const struct sigaction action = { .sa_sigaction = hgm_on_sigbus, .sa_flags = SA_SIGINFO };
	struct utsname system;

	hgm_current = declared;
	hgm_current_number = number;
	if (sigaction(SIGBUS, &action, NULL) || uname(&system))
		FAIL_HERE("%s", strerror(errno));
	if (!about_this_size(declared))
		hgm_skip("not applicable: only about huge pages of %s", declared->sizes);
	if (declared->arch && strcmp(declared->arch, strcmp(system.machine, "aarch64") ? system.machine : "arm64"))
		hgm_skip("not applicable: only about %s", declared->arch);
	const size_t *size = hgm_all_sizes();
	while (*size && *size != hgm_huge)
		size++;
	if (!*size || *size == hgm_base)
		FAIL_HERE("the kernel has no huge pages of %s", hgm_size_name(hgm_huge));
	/* Asked before anything is counted: what it maps and unmaps may leave a table beside other memory. */
	if (hgm_dialect() == HGM_NONE && declared->needs_hgm)
		hgm_skip("kernel has no HGM");
	hgm_open_shape_port();
	/*
	 * Every page of the program and its stack is touched now: a buffer of the library that is first used later may
	 * lie behind a boundary of 2 MiB, and then VmPTE grows by a table that is none of the case's.
	 */
	if (mlockall(MCL_CURRENT) || munlockall())
		FAIL_HERE("mlockall: %s", strerror(errno));
	/* Locking does not reach the pages of the vDSO, which may have a table of their own. */
	time(NULL);
	declared->run();
	if (hgm_in_child)
		FAIL_HERE("a child ran into the end of the case");
	hgm_finish(PASS, "");
}

/* Each case in a process of its own, so that one that dies leaves the others alone. */
static int run_all(void)
{
	bool failed = false, passed = false;
	int number = 0;

	for (struct hgm_case *declared = cases; declared; declared = declared->next) {
		pid_t pid;
		int status;

		number++;
		fflush(stdout);
		pid = fork();
		if (pid == 0)
			run(declared, number);
		if (pid < 0 || waitpid(pid, &status, 0) != pid) {
			printf("# fork or waitpid: %s\nnot ok %d %s\n", strerror(errno), number, declared->name);
			failed = true;
		} else if (WIFSIGNALED(status)) {
			printf("# killed by signal %d (%s)\nnot ok %d %s\n", WTERMSIG(status),
			       strsignal(WTERMSIG(status)), number, declared->name);
			failed = true;
		} else {
			failed |= WEXITSTATUS(status) != PASS && WEXITSTATUS(status) != SKIP;
			passed |= WEXITSTATUS(status) == PASS;
		}
	}
	return failed ? FAIL : passed ? PASS : SKIP;
}

static int count_cases(void)
{
	int count = 0;

	for (struct hgm_case *declared = cases; declared; declared = declared->next)
		count++;
	return count;
}

static int usage(const char *program)
{
	fprintf(stderr, "usage: %s [--list | --case NAME] [--huge-page-size BYTES]\n", program);
	return USAGE;
}

static size_t default_huge_page_size(void)
{
	FILE *file = fopen("/proc/meminfo", "re");
	size_t kilobytes = 0;
	char line[256];

	while (file && fgets(line, sizeof(line), file))
		if (sscanf(line, "Hugepagesize: %zu kB", &kilobytes) == 1)
			break;
	if (file)
		fclose(file);
	return kilobytes << 10;
}

int main(int argc, char **argv)
{
	const char *wanted = NULL;
	struct hgm_case *declared = cases;

	setvbuf(stdout, NULL, _IOLBF, 0);
	hgm_base = sysconf(_SC_PAGESIZE);
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--list") && argc == 2) {
			for (; declared; declared = declared->next)
				printf("%s\t%s\t%s\n", declared->name, declared->needs_hgm ? "hgm" : "stock",
				       declared->claim);
			return PASS;
		} else if (!strcmp(argv[i], "--case") && i + 1 < argc) {
			wanted = argv[++i];
		} else if (!strcmp(argv[i], "--huge-page-size") && i + 1 < argc) {
			char *end;

			hgm_huge = strtoull(argv[++i], &end, 0);
			if (*end || !hgm_huge || hgm_huge & (hgm_huge - 1))
				return usage(argv[0]);
		} else {
			return usage(argv[0]);
		}
	}
	if (!hgm_huge)
		hgm_huge = default_huge_page_size();
	if (!hgm_huge) {
		fprintf(stderr, "%s: /proc/meminfo has no huge page size; give --huge-page-size\n", argv[0]);
		return USAGE;
	}
	while (wanted && declared && strcmp(declared->name, wanted))
		declared = declared->next;
	if (!declared) {
		fprintf(stderr, "%s: no case is called %s; --list prints them\n", argv[0], wanted ? wanted : "anything");
		return USAGE;
	}
	printf("KTAP version 1\n1..%d\n", wanted ? 1 : count_cases());
	if (wanted)
		run(declared, 1);
	return run_all();
}
