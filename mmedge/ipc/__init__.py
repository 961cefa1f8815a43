"""Between threads and processes: mailboxes, rings in shared memory, child processes."""
