"""How an answer is asked for, and a proxy before the seller that spoils what is sold."""

import contextlib
import http.server

import httpx

from tinybrain.devnet.upstream import ALIAS

ORDER = {"model": ALIAS, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
REFUSAL = (500, {}, b"")
"""An answer of the proxy instead of the seller's."""


async def ask(agent, answer_id="ans_1"):
    """Asks for one answer."""
    extensions = {"tinybrain_answer_id": answer_id}
    return await agent.post("chat/completions", json=ORDER, extensions=extensions)


class Proxy(http.server.ThreadingHTTPServer):
    """Stands before the seller.

    What `faults` holds happens to the next paid requests; `unpaid` happens to all others.
    """

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _Forward)
        self.url = f"http://127.0.0.1:{self.server_port}/api/v1"
        self.target = target.removesuffix("/api/v1")
        self.challenge = None
        self.unpaid = None
        self.faults = []
        self.signatures = []


class _Forward(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        signature = self.headers["PAYMENT-SIGNATURE"]
        self.server.signatures += [signature] if signature else []
        if self.server.challenge is not None:
            self._answer(402, {"PAYMENT-REQUIRED": self.server.challenge}, b"")
        elif signature:
            fault = self.server.faults.pop() if self.server.faults else None
            self._paid(body, signature, fault)
        elif self.server.unpaid is not None:
            with contextlib.suppress(OSError):  # the agent hangs up
                self.server.unpaid(self, body)
        else:
            sent = self.forward(body)
            self._answer(sent.status_code, payment_headers(sent), sent.content)

    def forward(self, body, headers=None):
        url = self.server.target + self.path
        return httpx.post(url, content=body, headers=headers, timeout=30)

    def _paid(self, body, signature, fault):
        if isinstance(fault, tuple):
            self._answer(*fault)
            return
        sent = self.forward(body, {"PAYMENT-SIGNATURE": signature})
        if fault == "lose":
            return
        headers = payment_headers(sent) | (fault if isinstance(fault, dict) else {})
        self._answer(503 if fault == "break" else sent.status_code, headers, sent.content)

    def _answer(self, status, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def payment_headers(response):
    return {name.upper(): value for name, value in response.headers.items() if "payment" in name}
