"""Every error TinyBrain raises on purpose, each with the HTTP answer it becomes.

TinyBrainError
├── ConfigError              a setting is missing or wrong
├── InvalidRequest      400  the request cannot be understood or exceeds a bound
│   ├── RequestTooLarge 413
│   └── ModelNotFound   404
├── Unauthorized        401  a credential was given and is wrong
├── PaymentRequired     402  no payment, or one that does not pay for this
├── PaymentConflict     409  this authorization already bought an answer
├── DebtOwed            403  the payer owes for an earlier answer
├── TooManyUnsettled    429  the payer has too much that is not paid for yet
├── TooManyRefusals     429  too many payments from this address were refused
├── NotFound            404
├── Busy                503  no capacity now
├── AnswerFailed        502  no model could answer; nothing is charged
│   ├── LocalModelError
│   └── UpstreamError
│       └── BudgetExceeded   a spending cap refused the purchase
├── PaymentServiceError 503  the facilitator or chain could not be asked
├── PaymentPending      503  a payment is on its way and its outcome not known yet
└── LedgerUnavailable   503  the ledger cannot be read or written; nothing was delivered

Not drawn: what never reaches a caller and is raised where it is defined (an illegal transition of
the ledger, a refund that cannot be signed, an audit that cannot be made, a process that failed).
"""

from typing import ClassVar


class TinyBrainError(Exception):
    """Base of all; `code` and `param` follow OpenAI's error object."""

    status: ClassVar[int] = 500
    type: ClassVar[str] = "server_error"
    default_code: ClassVar[str] = "internal_error"
    retry_after_s: int = 1  # where trying again later may help

    def __init__(self, message: str, *, code: str | None = None, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param

    def __reduce__(self) -> tuple[object, ...]:
        # Errors cross process borders inside Ray; keyword-only arguments need help to unpickle.
        return _rebuild, (type(self), self.message, self.code, self.param), vars(self)

    def body(self) -> dict[str, object]:
        """The OpenAI error object."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def _rebuild(
    cls: type[TinyBrainError], message: str, code: str, param: str | None
) -> TinyBrainError:
    return cls(message, code=code, param=param)


class ConfigError(TinyBrainError):
    """A setting is missing or wrong; the message says which, why, and what to do."""

    default_code = "config_error"


class InvalidRequest(TinyBrainError):
    """The request cannot be understood or exceeds a bound."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_request"


class RequestTooLarge(InvalidRequest):
    """The body or a header is larger than accepted."""

    status = 413
    default_code = "request_too_large"


class ModelNotFound(InvalidRequest):
    """No model of that name is sold here."""

    status = 404
    default_code = "model_not_found"


class NotFound(InvalidRequest):
    """No such resource."""

    status = 404
    default_code = "not_found"


class Unauthorized(TinyBrainError):
    """A credential was given and is wrong."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class PaymentRequired(TinyBrainError):
    """No payment, or one that does not pay for this; the answer carries the price."""

    status = 402
    type = "payment_error"
    default_code = "payment_required"


class PaymentConflict(TinyBrainError):
    """This authorization already bought an answer, or is buying one now."""

    status = 409
    type = "payment_error"
    default_code = "payment_already_used"


class DebtOwed(TinyBrainError):
    """The payer owes for an earlier answer, and is served again when that is paid."""

    status = 403
    type = "payment_error"
    default_code = "debt_owed"


class TooManyUnsettled(TinyBrainError):
    """The payer, or all payers together, have too much that is not paid for yet."""

    status = 429
    type = "payment_error"
    default_code = "too_many_unsettled"


class TooManyRefusals(TinyBrainError):
    """Too many payments from one address were refused; verifying each costs work."""

    status = 429
    type = "payment_error"
    default_code = "too_many_refusals"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_s: int = 60,
    ) -> None:
        super().__init__(message, code=code, param=param)
        self.retry_after_s = retry_after_s


class PaymentServiceError(TinyBrainError):
    """The facilitator or the chain could not be asked; the same payment may be sent again."""

    status = 503
    type = "server_error"
    default_code = "payment_service_unavailable"


class PaymentPending(TinyBrainError):
    """A payment is on its way; sending the same one again finds out what became of it."""

    status = 503
    type = "payment_error"
    default_code = "payment_pending"


class LedgerUnavailable(TinyBrainError):
    """The ledger cannot be read or written, so nothing may be sold."""

    status = 503
    default_code = "ledger_unavailable"


class Busy(TinyBrainError):
    """No capacity now; try again."""

    status = 503
    default_code = "capacity"


class AnswerFailed(TinyBrainError):
    """No model could answer. Nothing is charged."""

    status = 502
    default_code = "answer_failed"


class LocalModelError(AnswerFailed):
    """The small model failed."""

    default_code = "local_model_failed"


class UpstreamError(AnswerFailed):
    """The larger model could not be reached, paid or understood."""

    default_code = "upstream_unavailable"


class BudgetExceeded(UpstreamError):
    """A spending cap refused the purchase before anything was signed."""

    default_code = "budget_exceeded"
