"""The stories of dtmcli for Python: message, saga and TCC over HTTP, with its barrier in MySQL.

The branches are a real service in this program. tests/it/sdk.rs starts what is needed and runs it.
"""

import json
import os
import subprocess
import sys
import threading
import time
import unittest
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pymysql
from dtmcli import barrier, msg, saga, tcc, utils

SERVER = os.environ["RUSHLINE_HTTP"] + "/api/dtmsvr"
END_WAIT_MAX_S = 60
# After that rushline looks after what a dead process left: longer than it lives.
UNDECIDED_S = 3
CRASHED = 86

TABLES = [
    "create database if not exists dtm_barrier",
    """create table if not exists dtm_barrier.barrier (
        id bigint auto_increment primary key, trans_type varchar(45) default '', gid varchar(128) default '',
        branch_id varchar(128) default '', op varchar(45) default '', barrier_id varchar(45) default '',
        reason varchar(45) default '', create_time datetime default now(), update_time datetime default now(),
        unique key uniq_barrier (gid, branch_id, op, barrier_id)) engine=InnoDB""",
    "create table if not exists account (name varchar(64) primary key, balance bigint not null, held bigint not null)",
]
# What a branch does to an account, times the amount: free, held.
MOVES = {
    "out": (-1, 0), "out-undo": (1, 0), "in": (1, 0), "in-undo": (-1, 0),
    "out-try": (-1, 1), "out-confirm": (0, -1), "out-cancel": (1, -1),
    "in-try": (0, 0), "in-confirm": (1, 0), "in-cancel": (0, 0),
}


def connect():
    address = urllib.parse.urlparse(os.environ["SDK_MYSQL"])
    return pymysql.connect(host=address.hostname, port=address.port, user=address.username,
                           password=address.password or "", database=address.path.lstrip("/"))


def move(cursor, name, order):
    balance, held = (times * order["amount"] for times in MOVES[name])
    if (balance, held) == (0, 0):
        return
    changed = cursor.execute(
        "update account set balance = balance + %s, held = held + %s where name = %s and balance + %s >= 0",
        (balance, held, order["account"], balance))
    if changed == 0:
        raise utils.DTMFailureError("too little in the account")


class Branches(BaseHTTPRequestHandler):
    """/MOVE under the SDK's barrier, /query-prepared, and /ongoing, which asks for patience twice."""

    steps = {}  # by gid: op/branch_id
    lost = set()  # gids of which each branch's first answer gets lost
    lock = threading.Lock()

    def answer(self, body):
        url = urllib.parse.urlparse(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        gid, step = query["gid"], query["op"] + "/" + query["branch_id"]
        with self.lock:
            self.steps.setdefault(gid, []).append(step)
            seen = self.steps[gid].count(step)
        if url.path == "/ongoing":
            return self.say(425 if seen < 3 else 200, {"answer": "patience"})
        connection = connect()
        try:
            bb = barrier.BranchBarrier(query["trans_type"], gid, query["branch_id"], query["op"])
            if url.path == "/query-prepared":
                bb.query_prepared(connection.cursor())
            else:
                order = json.loads(body)
                bb.call(connection.cursor(), lambda cursor: move(cursor, url.path[1:], order))
            self.say(500 if gid in self.lost and seen == 1 else 200, {"answer": "done"})
        except utils.DTMFailureError as error:
            self.say(409, {"dtm_result": "FAILURE", "message": str(error)})
        except Exception as error:
            self.say(500, {"message": repr(error)})
        finally:
            connection.close()

    def do_GET(self):
        self.answer(b"")

    def do_POST(self):
        self.answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def say(self, status, body):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


def query(gid):
    with urllib.request.urlopen(SERVER + "/query?gid=" + gid) as answer:
        return json.load(answer)


class Stories(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        connection = connect()
        for statement in TABLES:
            connection.cursor().execute(statement)
        connection.close()
        service = ThreadingHTTPServer(("127.0.0.1", 0), Branches)
        threading.Thread(target=service.serve_forever, daemon=True).start()
        cls.shop = "http://127.0.0.1:%d/" % service.server_address[1]

    def setUp(self):
        self.gid = utils.gen_gid(SERVER)
        self.orders = []
        connection = connect()
        for name in ("from", "to"):
            self.orders.append({"account": "python-%s-%s" % (name, self.gid), "amount": 30})
            connection.cursor().execute("insert into account values (%s, 100, 0)", (self.orders[-1]["account"],))
        connection.commit()
        connection.close()

    def wait_for(self, status):
        deadline = time.monotonic() + END_WAIT_MAX_S
        while (found := query(self.gid))["transaction"]["status"] != status:
            self.assertLess(time.monotonic(), deadline, "it does not become %s: %s" % (status, found))
            time.sleep(0.02)

    def has(self, *expected):
        connection = connect()
        cursor = connection.cursor()
        for order, there in zip(self.orders, expected):
            cursor.execute("select balance, held from account where name = %s", (order["account"],))
            self.assertEqual(cursor.fetchone(), there, order)
        connection.close()

    def steps(self):
        return Branches.steps.get(self.gid, [])

    def transfer(self):
        transfer = saga.Saga(SERVER, self.gid)
        for order, name in zip(self.orders, ("out", "in")):
            transfer.add(order, self.shop + name, self.shop + name + "-undo")
        return transfer

    def test_saga(self):
        Branches.lost.add(self.gid)  # each is called twice, and has its effect once
        self.transfer().submit()
        self.wait_for("succeed")
        self.assertEqual(self.steps(), ["action/01", "action/01", "action/02", "action/02"])
        self.has((70, 0), (130, 0))

    def test_saga_refused(self):
        refused = self.transfer()
        refused.add(dict(self.orders[1], amount=500), self.shop + "out", self.shop + "out-undo")
        refused.trans_base.wait_result = True
        with self.assertRaises(utils.DTMFailureError):
            refused.submit()
        self.wait_for("failed")
        self.assertEqual(self.steps()[3:], ["compensate/03", "compensate/02", "compensate/01"])
        self.has((100, 0), (100, 0))

    def test_message(self):
        message = msg.Msg(SERVER, self.gid).set_wait_result()
        message.add(self.orders[1], self.shop + "in").add({}, self.shop + "ongoing")
        message.prepare(self.shop + "query-prepared")
        with self.assertRaises(utils.DTMFailureError):  # it is not over yet; dtm says no more either
            message.submit()
        self.wait_for("succeed")
        self.assertEqual(self.steps(), ["action/01", "action/02", "action/02", "action/02"])
        self.has((100, 0), (130, 0))

    def local_work(self, work):
        connection = connect()
        message = msg.Msg(SERVER, self.gid).add(self.orders[1], self.shop + "in")
        try:
            message.do_and_submit_db(self.shop + "query-prepared", connection.cursor(), work)
        finally:
            connection.close()

    def test_message_with_local_work(self):
        self.local_work(lambda cursor: move(cursor, "out", self.orders[0]))
        self.wait_for("succeed")
        self.has((70, 0), (130, 0))

    def test_message_whose_local_work_is_refused(self):
        self.orders[0]["amount"] = 500
        with self.assertRaises(utils.DTMFailureError):
            self.local_work(lambda cursor: move(cursor, "out", self.orders[0]))
        self.wait_for("failed")
        self.has((100, 0), (100, 0))

    def die(self, when):
        """Another process does the local work, and dies."""
        given = json.dumps({"gid": self.gid, "orders": self.orders, "shop": self.shop, "when": when})
        child = subprocess.run([sys.executable, __file__, "die", given], capture_output=True, text=True)
        self.assertEqual(child.returncode, CRASHED, child.stdout + child.stderr)

    def test_message_after_a_crash_behind_the_commit(self):
        self.die("behind")
        self.wait_for("succeed")
        self.assertEqual(self.steps(), ["msg/00", "action/01"])
        self.has((70, 0), (130, 0))

    def test_message_after_a_crash_before_the_commit(self):
        self.die("before")
        self.wait_for("failed")
        self.assertEqual(self.steps(), ["msg/00"])
        self.has((100, 0), (100, 0))

    def tcc(self):
        def tries(transaction):
            for order, name in zip(self.orders, ("out", "in" if self.orders[1]["amount"] < 100 else "out")):
                url = self.shop + name
                transaction.call_branch(order, url + "-try", url + "-confirm", url + "-cancel")

        return tcc.tcc_global_transaction(SERVER, self.gid, tries)

    def test_tcc(self):
        self.assertEqual(self.tcc(), self.gid)
        self.wait_for("succeed")
        self.assertEqual(self.steps(), ["try/01", "try/02", "confirm/02", "confirm/01"])
        self.has((70, 0), (130, 0))

    def test_tcc_cancelled(self):
        self.orders[1]["amount"] = 500
        self.assertEqual(self.tcc(), "")
        self.wait_for("failed")
        self.assertEqual(self.steps(), ["try/01", "try/02", "cancel/02", "cancel/01"])
        self.has((100, 0), (100, 0))


def die(given):
    connection = connect()
    message = msg.Msg(SERVER, given["gid"]).add(given["orders"][1], given["shop"] + "in")
    message.trans_base.timeout_to_fail = UNDECIDED_S

    def work(bb):
        if given["when"] == "behind":
            bb.call(connection.cursor(), lambda cursor: move(cursor, "out", given["orders"][0]))
        os._exit(CRASHED)

    message.do_and_submit(given["shop"] + "query-prepared", work)


if __name__ == "__main__":
    if sys.argv[1:2] == ["die"]:
        die(json.loads(sys.argv[2]))
    unittest.main()
