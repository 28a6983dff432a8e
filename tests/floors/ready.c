/*
 * The smallest function there is: says "ready" on descriptor 3, stays until the other side closes it, exits 0.
 * Without a descriptor 3 it exits 0 at once, so that the same program can be given to bubblewrap and other peers.
 *
 *     gcc -O2 -static -o ready ready.c
 */
#include <errno.h>
#include <unistd.h>

int main(void)
{
	char byte = 1;
	ssize_t got;

	/* A write and no fcntl before it: one system call less inside the measured time. */
	if (write(3, &byte, 1) != 1)
		return errno == EBADF ? 0 : 1;
	do
		got = read(3, &byte, 1);
	while (got > 0 || (got < 0 && errno == EINTR));
	return 0;
}
