"""gRPC: a thread of a pool for each call."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from answers import ask

address, count = sys.argv[1], int(sys.argv[2])


def serve(request: bytes, context: grpc.ServicerContext) -> bytes:
    return b"%d" % ask(int(request))


server = grpc.server(ThreadPoolExecutor(count))
handlers = {"Ask": grpc.unary_unary_rpc_method_handler(serve)}
server.add_registered_method_handlers("test.Test", handlers)
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Test", handlers),))
server.add_insecure_port(address)
server.start()
signal.signal(signal.SIGTERM, lambda *_: server.stop(grace=10))
server.wait_for_termination()
