// SPDX-License-Identifier: MIT
/* Threads and children. */
#include "inside.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

bool hgm_in_child;

static struct hgm_child to_parent;

int hgm_patience(int seconds)
{
	const char *factor = getenv("HGM_SLOWNESS");
	int stretched = factor ? (int)(seconds * atof(factor)) : 0;

	return stretched > 0 ? stretched : seconds;
}

void hgm_thread_start_(pthread_t *thread, void *(*body)(void *), void *argument)
{
	int error = pthread_create(thread, NULL, body, argument);

	if (error)
		FAIL_HERE("pthread_create: %s", strerror(error));
}

void hgm_thread_join_(pthread_t thread)
{
	const int patience = PATIENCE_S;
	struct timespec until;
	int error;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += patience;
	error = pthread_timedjoin_np(thread, NULL, &until);
	if (error == ETIMEDOUT)
		FAIL_HERE("a thread is still asleep or busy after %d s", patience);
	if (error)
		FAIL_HERE("pthread_join: %s", strerror(error));
}

static void *read_word(void *argument)
{
	struct hgm_reader *reader = argument;

	reader->value = *reader->at;
	return NULL;
}

void hgm_reader_start_(struct hgm_reader *reader, const void *at)
{
	reader->at = at;
	reader->value = 0;
	hgm_thread_start_(&reader->thread, read_word, reader);
}

uint64_t hgm_reader_join_(struct hgm_reader *reader)
{
	hgm_thread_join_(reader->thread);
	return reader->value;
}

bool hgm_fork_(struct hgm_child *child)
{
	int ends[2];
	pid_t parent = getpid();

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		FAIL_HERE("socketpair: %s", strerror(errno));
	fflush(stdout);
	child->pid = fork();
	if (child->pid < 0)
		FAIL_HERE("fork: %s", strerror(errno));
	if (child->pid) {
		close(ends[1]);
		child->channel = ends[0];
		return false;
	}
	hgm_in_child = true;
	close(ends[0]);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent)
		_exit(FAIL);
	child->channel = ends[1];
	to_parent = *child;
	return true;
}

void hgm_child_done(void)
{
	fflush(stdout);
	_exit(PASS);
}

void hgm_tell_(const struct hgm_child *child)
{
	/* Without SIGPIPE: an end that is gone is found by the wait or the join that follows, which can say why. */
	if (send(child->channel, "", 1, MSG_NOSIGNAL) != 1 && errno != EPIPE && errno != ECONNRESET)
		FAIL_HERE("a step could not be told: %s", strerror(errno));
}

void hgm_wait_(const struct hgm_child *child)
{
	struct hgm_child ended = *child;
	char byte;

	if (read(child->channel, &byte, 1) == 1)
		return;
	if (!hgm_in_child || child->channel != to_parent.channel)
		hgm_join_(&ended);
	FAIL_HERE("the other process ended before its time");
}

void hgm_join_(struct hgm_child *child)
{
	int status;

	if (waitpid(child->pid, &status, 0) != child->pid)
		FAIL_HERE("waitpid: %s", strerror(errno));
	close(child->channel);
	if (WIFSIGNALED(status))
		FAIL_HERE("a child was killed by signal %d (%s)", WTERMSIG(status), strsignal(WTERMSIG(status)));
	if (WEXITSTATUS(status))
		FAIL_HERE("a child failed (exit status %d)", WEXITSTATUS(status));
}
