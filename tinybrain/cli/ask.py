"""`tinybrain ask` and `tinybrain chat`: answers to standard output, receipts to standard error."""

import asyncio
import sys
from typing import Any

import orjson
from rich.console import Console

from tinybrain.cli.client import Answer, Asker
from tinybrain.usdc import format_usdc


async def ask_once(asker: Asker, question: str, *, as_json: bool) -> None:
    """Ask one question and print the answer with its receipt."""
    try:
        answer = await _print_answer(asker, [{"role": "user", "content": question}], quiet=as_json)
        receipt = await asker.settled_receipt(answer.receipt["receipt"])
    finally:
        await asker.aclose()
    if as_json:
        document = {
            "answer": answer.text,
            "reasoning": answer.reasoning or None,
            "receipt": answer.receipt | {"payment": receipt.get("payment")},
            "cost_atomic": receipt.get("cost"),
        }
        sys.stdout.write(orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        Console(stderr=True).print(
            receipt_line(answer.receipt, receipt), style="dim", soft_wrap=True
        )


async def converse(asker: Asker) -> None:
    """Ask in turns until the input ends; the conversation so far goes along."""
    console = Console(stderr=True)
    messages: list[dict[str, str]] = []
    try:
        while question := await _read_line():
            messages.append({"role": "user", "content": question})
            answer = await _print_answer(asker, messages, quiet=False)
            messages.append({"role": "assistant", "content": answer.text})
            receipt = await asker.settled_receipt(answer.receipt["receipt"])
            console.print(receipt_line(answer.receipt, receipt), style="dim", soft_wrap=True)
    finally:
        await asker.aclose()


def receipt_line(told: dict[str, Any], receipt: dict[str, Any]) -> str:
    """One line: who answered and why, how sure it was, how fast, for how much, and where paid."""
    payment = receipt.get("payment") or {}
    parts = [
        f"{told['answered_by']} ({told['model']})",
        f"escalation: {told['escalation_reason']}",
        _number("perplexity", told["perplexity"], ".1f"),
        _number("confidence", told["confidence"], ".2f"),
        _number("first token", told["ttft_ms"], ".0f", " ms"),
        f"price {format_usdc(told['price_atomic'])}",
        f"cost {format_usdc(receipt['cost'])}" if receipt.get("cost") else "",
        f"{payment.get('state', 'free')} {payment.get('transaction') or ''}".strip(),
    ]
    return " · ".join(part for part in parts if part)


def _number(name: str, value: float | None, style: str, unit: str = "") -> str:
    return "" if value is None else f"{name} {value:{style}}{unit}"


async def _print_answer(asker: Asker, messages: list[dict[str, str]], *, quiet: bool) -> Answer:
    answer = Answer()
    async for text, so_far in asker.ask(messages):
        answer = so_far
        if not quiet:
            sys.stdout.write(text)
            sys.stdout.flush()
    if not quiet:
        sys.stdout.write("\n")
    return answer


async def _read_line() -> str:
    sys.stderr.write("> ")
    sys.stderr.flush()
    line: str = await asyncio.to_thread(sys.stdin.readline)
    return line.strip()
