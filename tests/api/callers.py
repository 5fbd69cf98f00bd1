"""Callers of the service: a wallet each, and signatures right and wrong, made by hand."""

import base64
import json
import secrets
import time

import httpx
from x402 import x402Client
from x402.http.clients.httpx import x402AsyncTransport
from x402.mechanisms.evm.exact import register_exact_evm_client

CHAT = "/v1/chat/completions"
HELLO = {"messages": [{"role": "user", "content": "Hello, who are you?"}]}


def challenge(answer):
    """What a 402 asks for."""
    return json.loads(base64.b64decode(answer.headers["payment-required"]))


class Caller:
    """A wallet with money that signs by itself what it is told to, right or wrong."""

    def __init__(self, wallet, usdc):
        self.wallet = wallet
        self.address = wallet.address
        self._usdc = usdc

    def balance(self):
        return self._usdc(self.address)

    def headers(self, service, *, path=CHAT, body=HELLO, signer=None, identifier=None, **changes):
        """PAYMENT-SIGNATURE for one request; `changes` are terms or times that differ."""
        answer = httpx.post(service.url + path, json=body)
        terms = challenge(answer)["accepts"][0] | changes
        payload = {
            "x402Version": 2,
            "payload": self.authorize(terms, signer),
            "accepted": terms,
        }
        if identifier:
            payload["extensions"] = {"payment-identifier": {"info": {"id": identifier}}}
        return {"PAYMENT-SIGNATURE": base64.b64encode(json.dumps(payload).encode()).decode()}

    def authorize(self, terms, signer=None):
        """`authorization` and `signature` of a payment by these terms."""
        now = int(time.time())
        authorization = {
            "from": self.address,
            "to": terms["payTo"],
            "value": str(terms["amount"]),
            "validAfter": str(terms.pop("validAfter", now - 600)),
            "validBefore": str(terms.pop("validBefore", now + terms["maxTimeoutSeconds"])),
            "nonce": "0x" + secrets.token_hex(32),
        }
        signature = self.sign(authorization, terms, signer or self.wallet)
        return {"authorization": authorization, "signature": signature}

    @staticmethod
    def sign(authorization, terms, wallet):
        """EIP-3009's TransferWithAuthorization, as EIP-712 typed data."""
        words = [("from", "address"), ("to", "address"), ("value", "uint256")]
        words += [("validAfter", "uint256"), ("validBefore", "uint256"), ("nonce", "bytes32")]
        numbers = ("value", "validAfter", "validBefore")
        signed = wallet.sign_typed_data(
            {
                "name": terms["extra"]["name"],
                "version": terms["extra"]["version"],
                "chainId": int(terms["network"].removeprefix("eip155:")),
                "verifyingContract": terms["asset"],
            },
            {"TransferWithAuthorization": [{"name": name, "type": kind} for name, kind in words]},
            authorization | {name: int(authorization[name]) for name in numbers},
        )
        return signed.signature.to_0x_hex()

    def spend_elsewhere(self, headers, token, web3):
        """Use up a payment's nonce with a second authorization, to the own wallet."""
        payload = json.loads(base64.b64decode(headers["PAYMENT-SIGNATURE"]))
        other = payload["payload"]["authorization"] | {"to": self.address}
        call = token.functions.transferWithAuthorization(
            self.address,
            self.address,
            *(int(other[name]) for name in ("value", "validAfter", "validBefore")),
            other["nonce"],
            self.sign(other, payload["accepted"], self.wallet),
        )
        self.transact(call, web3)

    def transact(self, call, web3):
        """Send a transaction of the own wallet and wait until it is mined."""
        count = web3.eth.get_transaction_count(self.address)
        transaction = call.build_transaction({"from": self.address, "nonce": count})
        raw = self.wallet.sign_transaction(transaction).raw_transaction
        web3.eth.wait_for_transaction_receipt(web3.eth.send_raw_transaction(raw))

    def open_tab(self, service, deposit="0.50", **headers):
        """A prepaid tab, paid by hand."""
        body = {"deposit": deposit}
        paid = self.headers(service, path="/v1/tabs", body=body)
        return httpx.post(f"{service.url}/v1/tabs", json=body, headers=paid | headers, timeout=30)

    def signed(self, service, amount, **changes):
        """`authorization` and `signature` as the original's page signs them, for an hour."""
        answer = httpx.post(service.url + CHAT, json=HELLO)
        hour = {"amount": amount, "maxTimeoutSeconds": 3600, "validAfter": 0}
        signer = changes.pop("signer", None)
        return self.authorize(challenge(answer)["accepts"][0] | hour | changes, signer)

    def open_session(self, service, amount=250_000, **changes):
        """A bar tab."""
        body = {
            "walletAddress": changes.pop("wallet", self.address),
            "depositAuth": changes.pop("deposit", None) or self.signed(service, amount, **changes),
        }
        return httpx.post(f"{service.url}/api/session/open", json=body, timeout=30)

    def ask(self, service, body, **options):
        """One answer, paid by hand."""
        url = service.url + options.pop("path", CHAT)
        headers = options.pop("headers", None) or self.headers(service)
        return httpx.post(url, json=body, headers=headers, timeout=60, **options)

    def stream(self, service, body, **options):
        """The data of each server-sent event of one answer."""
        answer = self.ask(service, body | {"stream": True}, **options)
        lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
        return [line if line == "[DONE]" else json.loads(line) for line in lines]

    def http(self):
        """The stock x402 client."""
        client = x402Client()
        register_exact_evm_client(client, self.wallet)
        return httpx.AsyncClient(transport=x402AsyncTransport(client), timeout=60)
