"""Old mailboxes as input: mbox, Maildir, MH and single mails, compressed and in archives, as one stream.

`separators` and `mbox` split bytes, `streams`, `archives` and `folders` open what holds them, `kinds` tells
from content what it is: pure readers that know neither providers nor the archive. `reading` and `workers`
turn mails into items in processes of their own, `importing` writes them in the order of the files.
"""
