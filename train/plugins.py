"""What a file of `accelerate launch` asks for beyond processes: the trainer does it itself, or says that it does not.

Accelerate's own plugins would wrap the module a second time on a GPU, and do nothing on a CPU without a word (1.15).
"""

from collections.abc import MutableMapping

from pipeline.errors import UsageError

_FSDP = "ACCELERATE_USE_FSDP"
_OTHERS = {"ACCELERATE_USE_DEEPSPEED": "DeepSpeed", "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM", _FSDP: "FSDP"}
_SHARDS = {
    "FSDP_VERSION": "2",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_OFFLOAD_PARAMS": "false",
    "FSDP_ACTIVATION_CHECKPOINTING": "false",
}
"""What `train.sharding` does, as the launcher says it."""


def take_fsdp(environment: MutableMapping[str, str]) -> bool:
    """Whether the launcher was asked for FSDP; Accelerate does not hear of it any more.

    Raises:
        UsageError: for another kind than `train.sharding`.
    """
    if not _is_on(environment, _FSDP):
        return False
    other = {name: environment[name] for name, ours in _SHARDS.items() if environment.get(name, ours).lower() != ours}
    if other:
        asked = ", ".join(f"{name.lower()}: {value}" for name, value in other.items())
        raise UsageError(
            f"the launcher's file asks for {asked}. This trainer shards as infra/accelerate/fsdp2.yaml says; "
            "--recompute saves the memory of activations."
        )
    del environment[_FSDP]
    return True


def refuse(environment: MutableMapping[str, str]) -> None:
    """Raise UsageError where the launcher was asked for what nobody here would do."""
    asked = [name for variable, name in _OTHERS.items() if _is_on(environment, variable)]
    if asked:
        raise UsageError(f"the launcher's file asks for {asked[0]}, which this command does not do. Take another one.")


def _is_on(environment: MutableMapping[str, str], name: str) -> bool:
    return environment.get(name, "false").lower() == "true"
