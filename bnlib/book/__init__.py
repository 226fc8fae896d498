"""The book's own wing: what its chapters need, and a user of the library does not.

`notebook` shows, `style` and `figures` draw, `exercises` answers, `data` and `network` are what is
trained, `workers` starts processes. Nothing outside this folder imports it.
"""
