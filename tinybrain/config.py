"""Settings: from the environment, `.env`, or the arguments of a Serve application.

Every setting is read as `TINYBRAIN_<NAME>`; the names of the two systems TinyBrain grew from
(`TREASURY_ADDRESS`, `LARGE_MODEL_URL`, …) are accepted beside it.
"""

import re
from pathlib import Path
from typing import Literal, Self

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from tinybrain.errors import ConfigError
from tinybrain.networks import PUBLIC_RPC_BY_NETWORK, USDC_BY_NETWORK, Asset
from tinybrain.usdc import Usdc, UsdcSetting

ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
PRIVATE_KEY = re.compile(r"(0x)?[0-9a-fA-F]{64}")
BEARER_KEY = re.compile(r"[!-~]+")


Flow = Literal["authorization", "upfront"]
"""When a payment is settled: after the answer, or before it. Source: x402, payment flows."""


class Offer(BaseModel):
    """What an answer costs (atomic USDC) and in which flow it is paid; None takes the default."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    price: UsdcSetting | None = None
    flow: Flow | None = None


def _names(name: str, *others: str) -> AliasChoices:
    return AliasChoices(f"TINYBRAIN_{name}", *others)


class Settings(BaseSettings):
    """All settings of the service, with their defaults. Amounts are dollars as text ("0.01")."""

    model_config = SettingsConfigDict(
        env_file=".env",
        env_ignore_empty=True,
        env_prefix="TINYBRAIN_",  # else a bare field name (HOME, PRICE) is read too
        populate_by_name=True,
        extra="ignore",
        frozen=True,
    )

    # Where things are kept
    home: Path = Field(Path(".tinybrain"), validation_alias=_names("HOME"))
    ledger_url: str | None = Field(None, validation_alias=_names("LEDGER_URL", "DATABASE_URL"))

    # Selling
    network: str = Field("eip155:8453", validation_alias=_names("NETWORK"))
    asset: str | None = Field(None, validation_alias=_names("ASSET"))
    asset_name: str | None = Field(None, validation_alias=_names("ASSET_NAME"))
    asset_version: str | None = Field(None, validation_alias=_names("ASSET_VERSION"))
    pay_to: str | None = Field(None, validation_alias=_names("PAY_TO", "TREASURY_ADDRESS"))
    price: UsdcSetting = Field(Usdc(10_000), validation_alias=_names("PRICE"))
    api_key: SecretStr | None = Field(None, validation_alias=_names("API_KEY", "TINYCHAT_API_KEY"))
    public_url: str = Field("http://127.0.0.1:8000", validation_alias=_names("PUBLIC_URL"))
    prices: dict[str, Offer] = Field(default_factory=dict, validation_alias=_names("PRICES"))
    flow: Flow = Field("authorization", validation_alias=_names("FLOW"))
    trust_after: int = Field(0, ge=0, le=1_000_000, validation_alias=_names("TRUST_AFTER"))
    max_unsettled_per_payer: UsdcSetting = Field(
        Usdc(80_000), validation_alias=_names("MAX_UNSETTLED_PER_PAYER")
    )
    max_unsettled: UsdcSetting = Field(Usdc(25_000_000), validation_alias=_names("MAX_UNSETTLED"))
    max_refusals: int = Field(60, ge=1, le=100_000, validation_alias=_names("MAX_REFUSALS"))
    behind_proxy: bool = Field(False, validation_alias=_names("BEHIND_PROXY"))
    replay_s: float = Field(3600, ge=0, le=2_592_000, validation_alias=_names("REPLAY_S"))
    answer_timeout_s: float = Field(120, gt=0, le=3600, validation_alias=_names("ANSWER_TIMEOUT_S"))
    payment_timeout_s: int = Field(300, gt=0, le=3600, validation_alias=_names("PAYMENT_TIMEOUT_S"))

    ingress_replicas: int = Field(1, ge=1, le=1000, validation_alias=_names("INGRESS_REPLICAS"))

    # Tabs
    refunds: bool | None = Field(None, validation_alias=_names("REFUNDS"))
    tab_min_deposit: UsdcSetting = Field(Usdc(100_000), validation_alias=_names("TAB_MIN_DEPOSIT"))
    tab_max_deposit: UsdcSetting = Field(
        Usdc(5_000_000), validation_alias=_names("TAB_MAX_DEPOSIT")
    )
    bar_tab_max_deposit: UsdcSetting = Field(
        Usdc(500_000), validation_alias=_names("BAR_TAB_MAX_DEPOSIT")
    )
    bar_tab_idle_s: float = Field(1800, gt=0, le=86_400, validation_alias=_names("BAR_TAB_IDLE_S"))
    tab_idle_s: float = Field(2_592_000, gt=0, validation_alias=_names("TAB_IDLE_S"))

    # Settling
    confirmations: int = Field(6, ge=1, le=1000, validation_alias=_names("CONFIRMATIONS"))
    batch_size: int = Field(50, ge=1, le=200, validation_alias=_names("BATCH_SIZE"))
    low_gas_settlements: int = Field(
        500, ge=1, le=1_000_000, validation_alias=_names("LOW_GAS_SETTLEMENTS")
    )
    facilitator: str | None = Field(None, validation_alias=_names("FACILITATOR", "FACILITATOR_URL"))
    rpc_url: str | None = Field(None, validation_alias=_names("RPC_URL"))
    gas_private_key: SecretStr | None = Field(None, validation_alias=_names("GAS_PRIVATE_KEY"))
    cdp_api_key_id: SecretStr | None = Field(
        None, validation_alias=_names("CDP_API_KEY_ID", "CDP_API_KEY_ID")
    )
    cdp_api_key_secret: SecretStr | None = Field(
        None, validation_alias=_names("CDP_API_KEY_SECRET", "CDP_API_KEY_SECRET")
    )

    # TinyChat
    nanochat_base_dir: Path | None = Field(
        None, validation_alias=_names("NANOCHAT_BASE_DIR", "NANOCHAT_BASE_DIR")
    )
    checkpoint: Path | None = Field(None, validation_alias=_names("CHECKPOINT"))
    checkpoint_source: Literal["sft", "mid", "rl", "base"] = Field(
        "sft", validation_alias=_names("CHECKPOINT_SOURCE")
    )
    checkpoint_step: int | None = Field(None, ge=0, validation_alias=_names("CHECKPOINT_STEP"))
    checkpoint_variant: Literal["V1", "V2", "V3", "V4", "V4-march", "V5", "V6"] | None = Field(
        None, validation_alias=_names("CHECKPOINT_VARIANT")
    )
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", validation_alias=_names("DEVICE", "DEVICE_TYPE")
    )
    precision: Literal["fp32", "16-bit", "int8"] = Field(
        "16-bit", validation_alias=_names("PRECISION")
    )
    tinychat_min_replicas: int = Field(
        1, ge=0, le=1000, validation_alias=_names("TINYCHAT_MIN_REPLICAS")
    )
    tinychat_max_replicas: int = Field(
        2, ge=1, le=1000, validation_alias=_names("TINYCHAT_MAX_REPLICAS")
    )
    tinychat_num_gpus: float = Field(
        0, ge=0, le=8, validation_alias=_names("TINYCHAT_NUM_GPUS", "NUM_GPUS")
    )
    tinychat_slots: int = Field(16, ge=1, le=256, validation_alias=_names("TINYCHAT_SLOTS"))

    # A small model behind an API, in TinyChat's place
    small_model_url: str | None = Field(
        None, validation_alias=_names("SMALL_MODEL_URL", "SMALL_MODEL_URL")
    )
    small_model_name: str | None = Field(
        None, validation_alias=_names("SMALL_MODEL_NAME", "SMALL_MODEL_NAME")
    )
    small_model_api_key: SecretStr | None = Field(
        None, validation_alias=_names("SMALL_MODEL_API_KEY", "SMALL_MODEL_API_KEY")
    )

    # Routing
    router: Path | None = Field(None, validation_alias=_names("ROUTER"))
    target_escalation_rate: float | None = Field(
        None, gt=0, lt=1, validation_alias=_names("TARGET_ESCALATION_RATE")
    )
    max_local_error: float | None = Field(
        None, gt=0, lt=1, validation_alias=_names("MAX_LOCAL_ERROR")
    )
    hold_back_tokens: int | None = Field(
        None, ge=1, le=64, validation_alias=_names("HOLD_BACK_TOKENS")
    )
    continue_on_doubt: bool = Field(True, validation_alias=_names("CONTINUE_ON_DOUBT"))
    keyword_rule: bool = Field(True, validation_alias=_names("KEYWORD_RULE"))
    complexity_rule: bool = Field(True, validation_alias=_names("COMPLEXITY_RULE"))
    self_referential_rule: bool = Field(True, validation_alias=_names("SELF_REFERENTIAL_RULE"))

    audit_share: float = Field(0.03, ge=0, le=0.05, validation_alias=_names("AUDIT_SHARE"))
    audit_budget_per_day: UsdcSetting = Field(
        Usdc(50_000), validation_alias=_names("AUDIT_BUDGET_PER_DAY")
    )

    # Buying
    treasury_private_key: SecretStr | None = Field(
        None, validation_alias=_names("TREASURY_PRIVATE_KEY", "TREASURY_PRIVATE_KEY")
    )
    upstream_url: str = Field(
        "https://blockrun.ai/api/v1",
        validation_alias=_names("UPSTREAM_URL", "LARGE_MODEL_URL", "LARGE_MODEL_BASE_URL"),
    )
    upstream_model: str = Field(
        "deepseek/deepseek-reasoner",
        validation_alias=_names("UPSTREAM_MODEL", "LARGE_MODEL_NAME"),
    )
    upstream_api_key: SecretStr | None = Field(
        None, validation_alias=_names("UPSTREAM_API_KEY", "LARGE_MODEL_API_KEY")
    )
    upstream_pay_to: str | None = Field(None, validation_alias=_names("UPSTREAM_PAY_TO"))
    upstream_max_tokens: int = Field(
        1024, ge=1, le=32768, validation_alias=_names("UPSTREAM_MAX_TOKENS")
    )
    max_cost_per_call: UsdcSetting = Field(
        Usdc(5_000), validation_alias=_names("MAX_COST_PER_CALL")
    )
    min_margin: UsdcSetting = Field(Usdc(1_000), validation_alias=_names("MIN_MARGIN"))
    max_cost_per_hour: UsdcSetting = Field(
        Usdc(1_000_000), validation_alias=_names("MAX_COST_PER_HOUR")
    )
    max_cost_per_day: UsdcSetting = Field(
        Usdc(5_000_000), validation_alias=_names("MAX_COST_PER_DAY")
    )
    max_cost_per_provider: UsdcSetting = Field(
        Usdc(5_000_000), validation_alias=_names("MAX_COST_PER_PROVIDER")
    )

    @field_validator("network")
    @classmethod
    def _network_is_caip2(cls, value: str) -> str:
        if not re.fullmatch(r"eip155:[1-9][0-9]{0,17}", value):
            raise ValueError(f"{value!r} is no EVM network; write for example eip155:8453")
        return value

    @field_validator("pay_to", "asset", "upstream_pay_to")
    @classmethod
    def _is_address(cls, value: str | None) -> str | None:
        if value is not None and not ADDRESS.fullmatch(value):
            # Not repeated: it may be a private key in the wrong place.
            raise ValueError("is no address; it is 0x and 40 hexadecimal digits")
        return value

    @field_validator("gas_private_key", "treasury_private_key")
    @classmethod
    def _is_private_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not PRIVATE_KEY.fullmatch(value.get_secret_value()):
            raise ValueError("is no private key; it is 64 hexadecimal digits")
        return value

    @field_validator("small_model_api_key", "upstream_api_key")
    @classmethod
    def _is_bearer_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not BEARER_KEY.fullmatch(value.get_secret_value()):
            raise ValueError("is no key for a header; it is ASCII without spaces or line ends")
        return value

    @field_validator("upstream_url", "small_model_url", "public_url", "rpc_url")
    @classmethod
    def _is_http_url(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("http://", "https://")):
            # Not repeated: it may hold a key or a password.
            raise ValueError("is no URL; it starts with http:// or https://")
        return value.rstrip("/") if value else value

    @model_validator(mode="after")
    def _has_one_target(self) -> Self:
        if self.target_escalation_rate is not None and self.max_local_error is not None:
            raise ValueError(
                "TINYBRAIN_TARGET_ESCALATION_RATE and TINYBRAIN_MAX_LOCAL_ERROR are both set, and "
                "one threshold cannot follow both; set one"
            )
        return self

    @model_validator(mode="after")
    def _names_the_small_model(self) -> Self:
        if (self.small_model_url is None) != (self.small_model_name is None):
            raise ValueError(
                "of TINYBRAIN_SMALL_MODEL_URL and TINYBRAIN_SMALL_MODEL_NAME one is set; a small "
                "model behind an API needs both, TinyChat neither"
            )
        return self

    @property
    def token(self) -> Asset:
        """The token asked for, with its EIP-712 domain."""
        known = USDC_BY_NETWORK.get(self.network)
        address = self.asset or (known.address if known else None)
        name = self.asset_name or (known.name if known else None)
        if address is None or name is None:
            raise ConfigError(
                f"TINYBRAIN_ASSET and TINYBRAIN_ASSET_NAME are missing: the USDC of "
                f"{self.network} is not known here. Set both (and TINYBRAIN_ASSET_VERSION if it "
                f"is not 2), or use a network of: {', '.join(USDC_BY_NETWORK)}."
            )
        return Asset(address, name, self.asset_version or (known.version if known else "2"))

    @property
    def rpc(self) -> str:
        """The JSON-RPC endpoint of the network."""
        url = self.rpc_url or PUBLIC_RPC_BY_NETWORK.get(self.network)
        if url is None:
            raise ConfigError(
                f"TINYBRAIN_RPC_URL is missing: no public endpoint of {self.network} is known "
                "here. Set it to a JSON-RPC URL of that network."
            )
        return url

    @property
    def facilitators(self) -> list[str]:
        """Who settles, in the order in which they are tried: "own", "cdp", or URLs."""
        return [name.strip() for name in (self.facilitator or "").split(",") if name.strip()]

    @property
    def ledger(self) -> str:
        """SQLAlchemy URL of the ledger."""
        if self.ledger_url:
            return self.ledger_url
        return f"sqlite+aiosqlite:///{(self.home / 'ledger.db').absolute()}"

    def require_serving(self) -> Self:
        """Check all that serving needs, and name every fault at once.

        Raises:
            ConfigError: One line for each setting that is missing: which, why, what to do.
        """
        faults = []
        if self.pay_to is None:
            faults.append(
                "TINYBRAIN_PAY_TO (or TREASURY_ADDRESS) is missing: callers must know whom to "
                "pay. Set it to the address that receives the money."
            )
        faults += self._facilitator_faults()
        if self.upstream_api_key is None and self.treasury_private_key is None:
            faults.append(
                "TREASURY_PRIVATE_KEY is missing: the agent buys answers with it. Set it to the "
                "key of a wallet with a little USDC, or set LARGE_MODEL_API_KEY for an upstream "
                "that is not paid over x402."
            )
        if self.payment_timeout_s < self.answer_timeout_s + SETTLE_MARGIN_S:
            faults.append(
                f"TINYBRAIN_PAYMENT_TIMEOUT_S is {self.payment_timeout_s}: an authorization must "
                f"outlast the longest answer and its settlement. Set it to at least "
                f"{self.answer_timeout_s + SETTLE_MARGIN_S:.0f}, or lower "
                "TINYBRAIN_ANSWER_TIMEOUT_S."
            )
        for check in ("token", "rpc"):
            try:
                getattr(self, check)
            except ConfigError as error:
                faults.append(error.message)
        if faults:
            raise ConfigError("\n".join(faults))
        return self

    def _facilitator_faults(self) -> list[str]:
        if not self.facilitators:
            return [
                (
                    "TINYBRAIN_FACILITATOR is missing: nobody would settle the payments. "
                    'Set it to "own" (with TINYBRAIN_GAS_PRIVATE_KEY), "cdp" (with '
                    "CDP_API_KEY_ID and CDP_API_KEY_SECRET), a facilitator's URL, or several of "
                    "them with commas between, in the order to try them."
                )
            ]
        faults = []
        for name in self.facilitators:
            faults += self._faults_of(name)
        return faults

    def _faults_of(self, facilitator: str) -> list[str]:
        match facilitator:
            case "own" if self.gas_private_key is None:
                return [
                    (
                        "TINYBRAIN_GAS_PRIVATE_KEY is missing: the own facilitator pays gas from "
                        "it. Set it to the key of a wallet that holds some native coin."
                    )
                ]
            case "cdp":
                return [
                    f"{name} is missing: Coinbase's facilitator asks for it. Create an API key "
                    "in the Coinbase Developer Platform and set it."
                    for name, value in (
                        ("CDP_API_KEY_ID", self.cdp_api_key_id),
                        ("CDP_API_KEY_SECRET", self.cdp_api_key_secret),
                    )
                    if value is None
                ]
            case str() as url if url != "own" and not url.startswith(("http://", "https://")):
                return [
                    (
                        'TINYBRAIN_FACILITATOR names something that is neither "own", nor "cdp", '
                        "nor a URL that starts with http:// or https://."
                    )
                ]
        return []


SETTLE_MARGIN_S = 30
"""Seconds an authorization must stay valid beyond the longest answer, so it can still settle."""


SERVE_ENVIRONMENT = {
    "RAY_ADDRESS": "local",  # a cluster of our own, whatever else runs on this machine
    # Else Ray writes a token into the home folder, and serve and its cluster must share it.
    "RAY_AUTH_MODE": "disabled",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",  # see benchmarks/README.md
    "RAY_USAGE_STATS_ENABLED": "0",
}
"""What Ray Serve should find in its environment on one machine."""


def load_settings(**overrides: object) -> Settings:
    """Read the settings; `overrides` are field names and win over the environment.

    Raises:
        ConfigError: A value cannot be read, or an override has no such name; each is named.
    """
    if unknown := overrides.keys() - Settings.model_fields.keys():
        raise ConfigError(
            f"There is no setting named {', '.join(sorted(unknown))}. "
            "docs/operations.md lists them."
        )
    try:
        return Settings(**overrides)  # type: ignore[arg-type]  # pydantic validates them
    except ValidationError as error:
        faults = (
            f"{fault['loc'][0] if fault['loc'] else 'settings'}: {fault['msg']}"
            for fault in error.errors(include_input=False, include_url=False)
        )
        raise ConfigError("\n".join(faults)) from None
