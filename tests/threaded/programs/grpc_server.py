"""gRPC: a thread of a pool for each call."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from answers import ask

address, count = sys.argv[1], int(sys.argv[2])


def serve(request: bytes, context: grpc.ServicerContext) -> bytes:
    return b"%d" % ask(int(request))


# Beyond these gRPC turns calls away that no thread has taken yet: 1000 and 3000 if not said.
pending = [
    ("grpc.server.max_pending_requests", count),
    ("grpc.server.max_pending_requests_hard_limit", 2 * count),
]
server = grpc.server(ThreadPoolExecutor(count), options=pending)
handlers = {"Ask": grpc.unary_unary_rpc_method_handler(serve)}
server.add_registered_method_handlers("test.Test", handlers)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
server.add_insecure_port(address)
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=10))
server.wait_for_termination()
