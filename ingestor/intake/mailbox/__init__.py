"""The mailbox: IMAP with IDLE and poll, one thread and one connection a mailbox.

From the outside in: `thread` keeps a connection, `visit` lives on it, `reading` reads a folder by `fetch`,
`pending` does what is left to do. Below them `session`, `answers` and `connection` speak IMAP, `standing`
knows a folder again, and `context` holds what all of them are given.
"""
