"""A receiver of webhooks: prints the key and the body of each request as one line of JSON, and answers.

    receiver.py PORT [STATUS]       STATUS is what it answers, 200 if it is left out
"""

import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = int(sys.argv[1])
STATUS = int(sys.argv[2]) if len(sys.argv) > 2 else 200


class Hook(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        told = {"status": STATUS, "key": self.headers["Idempotency-Key"], "body": json.loads(body)}
        print(json.dumps(told), flush=True)
        self.send_response(STATUS)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_) -> None:
        pass


ThreadingHTTPServer(("127.0.0.1", PORT), Hook).serve_forever()
