"""A worker pool for a cluster on this machine: starts a Python worker when a TaskManager asks for one.

As `apache_beam.runners.worker.worker_pool_main`, but on loopback only (that one listens on every interface, and starts
whatever it is asked for) and it takes its workers along when it is told to end.
"""

import signal
import sys
import threading

import grpc
from apache_beam.portability.api import beam_fn_api_pb2_grpc
from apache_beam.runners.worker.worker_pool_main import BeamFnExternalWorkerPoolServicer, kill_process_gracefully
from apache_beam.utils.thread_pool_executor import shared_unbounded_instance


def main(port: int) -> None:
  """Serves until SIGTERM."""
  ended = threading.Event()
  signal.signal(signal.SIGTERM, lambda *_: ended.set())
  pool = BeamFnExternalWorkerPoolServicer(use_process=True)
  server = grpc.server(shared_unbounded_instance())
  beam_fn_api_pb2_grpc.add_BeamFnExternalWorkerPoolServicer_to_server(pool, server)
  server.add_insecure_port(f"127.0.0.1:{port}")
  server.start()
  ended.wait()
  server.stop(0)
  for worker in pool._worker_processes.values():
    kill_process_gracefully(worker)


if __name__ == "__main__":
  main(int(sys.argv[1]))
