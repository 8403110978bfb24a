"""Old mailboxes: readers, workers, and the import as a whole."""
