"""The archive: tables and their guards, the one writer, and everything that reads what was committed."""
