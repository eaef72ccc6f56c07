"""An HTTP/1.1 server for WSGI applications, a goroutine for each connection.

gunicorn's worker class (`gunicorn -k gmprt`) and `python -m gmprt serve` are the same code: each of
worker.py and gmprt/_cli/serve.py fills in a Settings.  `import gmprt` imports none of it.

    server.py      listeners, connections, deadlines, the graceful stop
    connection.py  one connection: request after request
    response.py    what the application answers, on its way out
    request.py     requests out of bytes, by httptools
    worker.py      gunicorn's side, with gunicorn's own parser as the other one
"""
