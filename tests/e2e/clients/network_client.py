"""Services and Ingresses as real clients meet them: gRPC, HTTP/1.1, HTTP/2 and WebSocket.

Run by the end-to-end tests: python network_client.py INGRESS_HOST_AND_PORT GRPC_NODE_PORT
"""

import sys
import unittest

import grpc
import httpx
import websocket
from grpc_health.v1 import health_pb2, health_pb2_grpc

INGRESS, GRPC_NODE_PORT = sys.argv.pop(1), sys.argv.pop(1)


class Network(unittest.TestCase):
    def check(self, target, service, *options):
        with grpc.insecure_channel(target, options=options) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            return [stub.Check(request, timeout=10).status for _ in range(10)]

    def test_grpc_at_a_node_port(self):
        self.assertEqual(self.check(f"127.0.0.1:{GRPC_NODE_PORT}", "podium"), [health_pb2.HealthCheckResponse.SERVING] * 10)

    def test_grpc_through_an_ingress(self):
        by_host = ("grpc.default_authority", "grpc.localhost")
        self.assertEqual(self.check(INGRESS, "podium", by_host), [health_pb2.HealthCheckResponse.SERVING] * 10)

    def test_http(self):
        for http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
            with httpx.Client(http1=not http2, http2=http2) as client:
                answers = [client.get(f"http://{INGRESS}/") for _ in range(20)]
            self.assertEqual({(a.http_version, a.status_code) for a in answers}, {(version, 200)})
            self.assertGreater(len({a.text.split(",")[0] for a in answers}), 1, "one connection, several replicas")

    def test_websocket(self):
        one = websocket.create_connection(f"ws://{INGRESS}/", host="echo.localhost", timeout=20)
        # Each pod serves one client: another connection goes to another pod.
        other = websocket.create_connection(f"ws://{INGRESS}/", host="echo.localhost", timeout=20)
        for number in range(3):
            one.send(f"one {number}")
            other.send(f"other {number}")
            self.assertEqual((one.recv(), other.recv()), (f"one {number}", f"other {number}"))
        one.send_binary(bytes(1 << 20))
        self.assertEqual(len(one.recv()), 1 << 20)
        one.ping("still there")
        self.assertEqual(one.recv_data_frame(control_frame=True)[1].data, b"still there")
        for socket in (one, other):
            socket.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
