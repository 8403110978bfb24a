"""Old mailboxes as input: mbox, Maildir, MH and single mails, compressed and in archives, as one stream.

`walk` says which files there are and what each holds, `leaves` opens them by way of `streams` and
`containers`, `blocks` cuts them where `mbox` says that a mail ends: readers that know neither providers nor
the archive. `workers` are processes that split and read (`parse`); `importer` has what they made written in
the order of the files, and keeps the `books`.
"""
