"""Services, Ingresses and Gateways as real clients meet them: gRPC, HTTP/1.1, HTTP/2 and WebSocket, over both.

Run by the end-to-end tests: python network_client.py INGRESS_HOST_AND_PORT GRPC_NODE_PORT_HOST_AND_PORT GRPC_GATEWAY_HOST_AND_PORT
HTTPS_HOST_AND_PORT CERTIFICATE
"""

import socket
import ssl
import sys
import time
import unittest

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import httpx
import websocket
from grpc_health.v1 import health_pb2, health_pb2_grpc

INGRESS, GRPC_NODE_PORT, GATEWAY, HTTPS, CERTIFICATE = (sys.argv.pop(1) for _ in range(5))


class Http2:
    """A connection of HTTP/2 whose events are read one by one."""

    def __init__(self, address):
        host, port = address.split(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.seen = []

    def until(self, kind):
        while True:
            self.socket.sendall(self.h2.data_to_send())
            while self.seen:
                event = self.seen.pop(0)
                if isinstance(event, kind):
                    return event
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(f"no {kind.__name__} came")
            self.seen += self.h2.receive_data(data)


class Network(unittest.TestCase):
    def check(self, target, service, *options):
        with grpc.insecure_channel(target, options=options) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=service)
            return [stub.Check(request, timeout=10).status for _ in range(10)]

    def test_grpc_at_a_node_port(self):
        self.assertEqual(self.check(GRPC_NODE_PORT, "podium"), [health_pb2.HealthCheckResponse.SERVING] * 10)

    def test_grpc_through_an_ingress(self):
        by_host = ("grpc.default_authority", "grpc.localhost")
        self.assertEqual(self.check(INGRESS, "podium", by_host), [health_pb2.HealthCheckResponse.SERVING] * 10)

    def test_grpc_through_a_gateway(self):
        self.assertEqual(self.check(GATEWAY, "podium"), [health_pb2.HealthCheckResponse.SERVING] * 10)
        with self.assertRaises(grpc.RpcError) as refused:
            self.check(GATEWAY, "another")
        self.assertEqual(refused.exception.code(), grpc.StatusCode.NOT_FOUND, "the pod's own answer")
        with grpc.insecure_channel(GATEWAY) as channel:
            # The route is for one method.
            watched = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
            with self.assertRaises(grpc.RpcError) as refused:
                next(watched)
        self.assertEqual(refused.exception.code(), grpc.StatusCode.UNIMPLEMENTED)

    def test_http(self):
        for http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
            with httpx.Client(http1=not http2, http2=http2) as client:
                answers = [client.get(f"http://{INGRESS}/") for _ in range(20)]
            self.assertEqual({(a.http_version, a.status_code) for a in answers}, {(version, 200)})
            self.assertGreater(len({a.text.split(",")[0] for a in answers}), 1, "one connection, several replicas")

    def test_https_through_an_ingress(self):
        trust = ssl.create_default_context(cafile=CERTIFICATE)
        for http2, version in ((False, "HTTP/1.1"), (True, "HTTP/2")):
            with httpx.Client(http1=not http2, http2=http2, verify=trust) as client:
                answer = self.get_securely(client, "shop.test")
            self.assertEqual((answer.http_version, answer.status_code), (version, 200))
        with httpx.Client(verify=trust) as client, self.assertRaises(httpx.TransportError, msg="no certificate for it"):
            self.get_securely(client, "other.test", tries=1)

    def get_securely(self, client, host, tries=300):
        """The Ingress is there; its Secret is looked at then."""
        for left in reversed(range(tries)):
            try:
                return client.get(f"https://{HTTPS}/", headers={"host": host}, extensions={"sni_hostname": host})
            except httpx.TransportError:
                if not left:
                    raise
                time.sleep(0.1)

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

    def test_websocket_over_http2(self):
        client = Http2(INGRESS)
        settings = client.until(h2.events.RemoteSettingsChanged).changed_settings
        self.assertEqual(settings[h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL].new_value, 1)
        stream = client.h2.get_next_available_stream_id()
        asked = {":method": "CONNECT", ":protocol": "websocket", ":scheme": "http", ":path": "/",
                 ":authority": "echo.localhost", "sec-websocket-version": "13"}
        client.h2.send_headers(stream, list(asked.items()))
        answer = dict(client.until(h2.events.ResponseReceived).headers)
        self.assertEqual(answer[":status"], "200")
        frame = websocket.ABNF.create_frame("over HTTP/2", websocket.ABNF.OPCODE_TEXT)
        client.h2.send_data(stream, frame.format())
        expected, heard = b"\x81\x0bover HTTP/2", b""
        while len(heard) < len(expected):
            heard += client.until(h2.events.DataReceived).data
        self.assertEqual(heard, expected)
        client.socket.close()


if __name__ == "__main__":
    unittest.main(verbosity=2)
