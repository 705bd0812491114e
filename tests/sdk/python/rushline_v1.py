"""rushline.v1 by grpcio, with nothing but what server reflection says: no generated code.

The order service is a real one in this program. tests/it/sdk.rs starts a rushline and runs it.
"""

import os
import threading
import unittest
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

ANSWER_MAX_S = 30


class OrderService(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(201)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Client:
    """A service by its full name, as reflection describes it."""

    def __init__(self, channel, pool, name):
        self.channel, self.service = channel, pool.FindServiceByName(name)

    def call(self, method, **fields):
        """The answer; of a streaming method, the messages as they come."""
        found = self.service.FindMethodByName(method)
        kind = self.channel.unary_stream if found.server_streaming else self.channel.unary_unary
        ask = kind(f"/{self.service.full_name}/{method}",
                   request_serializer=lambda message: message.SerializeToString(),
                   response_deserializer=GetMessageClass(found.output_type).FromString)
        return ask(GetMessageClass(found.input_type)(**fields), timeout=ANSWER_MAX_S)


class Stories(unittest.TestCase):
    def setUp(self):
        channel = grpc.insecure_channel(os.environ["RUSHLINE_GRPC"])
        self.addCleanup(channel.close)
        database = ProtoReflectionDescriptorDatabase(channel)
        self.assertLessEqual({"rushline.v1.Orders", "rushline.v1.Sales"}, set(database.get_services()))
        self.pool = DescriptorPool(database)
        self.orders = Client(channel, self.pool, "rushline.v1.Orders")
        self.sales = Client(channel, self.pool, "rushline.v1.Sales")
        shop = ThreadingHTTPServer(("127.0.0.1", 0), OrderService)
        threading.Thread(target=shop.serve_forever, daemon=True).start()
        self.addCleanup(shop.shutdown)
        self.shop = f"http://127.0.0.1:{shop.server_address[1]}/orders"

    def status(self, number):
        return self.pool.FindEnumTypeByName("rushline.v1.OrderStatus").values_by_number[number].name

    def test_an_order_is_placed_watched_and_paid(self):
        self.sales.call("CreateSale", sale="py", items=[{"sku": "a", "units": 2}], durability="memory",
                        order_endpoint={"url": self.shop}, reserve_for_ms=600_000)
        ask = {"sale": "py", "buyer": "u1", "items": [{"sku": "a", "quantity": 2}], "idempotency_key": "k1", "wait_ms": 20_000}
        placed = self.orders.call("PlaceOrder", **ask).placed
        self.assertEqual(self.status(placed.status), "ORDER_STATUS_RESERVED")
        again = self.orders.call("PlaceOrder", **ask).placed
        self.assertEqual((again.gid, again.replayed), (placed.gid, True))
        refused = self.orders.call("PlaceOrder", sale="py", buyer="u2", items=[{"sku": "a", "quantity": 1}]).refused
        self.assertEqual(refused.code, "sold_out")
        events = self.orders.call("WatchOrder", gid=placed.gid)
        self.assertEqual(self.status(next(events).status), "ORDER_STATUS_RESERVED")
        self.orders.call("ConfirmOrder", gid=placed.gid)
        self.assertEqual([self.status(order.status) for order in events], ["ORDER_STATUS_SUCCEED"])
        stock = self.sales.call("GetSale", sale="py").items[0]
        self.assertEqual((stock.loaded, stock.available, stock.reserved, stock.sold), (2, 0, 0, 2))

    def test_a_mistake_is_a_status_with_its_reason(self):
        with self.assertRaises(grpc.RpcError) as caught:
            self.orders.call("GetOrder", gid="nothing")
        self.assertEqual(caught.exception.code(), grpc.StatusCode.NOT_FOUND)
        details = dict(caught.exception.trailing_metadata())["grpc-status-details-bin"]
        status = GetMessageClass(self.pool.FindMessageTypeByName("google.rpc.Status")).FromString(details)
        info = GetMessageClass(self.pool.FindMessageTypeByName("google.rpc.ErrorInfo"))()
        self.assertTrue(status.details[0].Unpack(info))
        self.assertEqual((info.domain, info.reason), ("rushline", "unknown_order"))


if __name__ == "__main__":
    unittest.main()
