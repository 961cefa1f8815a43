"""Between threads and, later, processes: mailboxes and frame pools."""
