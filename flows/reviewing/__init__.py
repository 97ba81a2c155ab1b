"""The review: a small web app on this machine's own address, where people decide about single rows (docs/review.md).

`rows` finds and reads rows, `queues` says which are worth a look, `journal` keeps what was decided, `views` makes what the page shows,
`api` answers the page, `server` keeps strangers out. The page itself is page.html, app.css and the three scripts beside this file.
"""
