"""Our values for all that the SatMAE golden set holds: `tensors()` by file and name, `facts()` by manifest path."""

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from golden import golden, manifest
from torch import Tensor, nn

from train.models.blocks import patchify
from train.models.masking import Mask, mask_from_order
from train.models.positions import wave_code
from train.models.satmae import FIRST_YEAR, Satmae, all_ids, cls_and_places
from train.models.satmae_classifier import SatmaeClassifier
from train.models.satmae_config import SatmaeConfig
from train.models.satmae_target import masked_error, to_image
from train.models.upscale import pyramid, reconstruct
from train.optim import OptimConfig, adamw, finetune_groups, lr_at, set_lr
from train.stream.normalise import standard, to_uint8
from train.stream.transforms import Placement, centre, centre_box, crop, resize, turn

SET = "satmae"
Values = dict[str, Any]
_TABLES = ("pos_embed", "channel_embed", "decoder_pos_embed", "decoder_channel_embed")
_FACTORIES = {
    "mae_vit_base_patch16": {"embed_dim": 768, "depth": 12, "num_heads": 12},
    "mae_vit_large_patch16": {"embed_dim": 1024, "depth": 24, "num_heads": 16},
}


def file(name: str) -> Any:
    return golden(f"{SET}/{name}")


def config_of(given: Mapping[str, Any], variant: str, *, frames: int = 1, **changes: Any) -> SatmaeConfig:
    """A golden configuration as ours; bands are named by their numbers."""
    bands = tuple(str(number) for number in range(given["in_chans"]))
    slot = {"group": ("channel_embed", 256, 128), "temporal": ("temporal_component_dim", 128, 64)}
    name, wide, narrow = slot.get(variant, ("", 256, 128))
    return SatmaeConfig(
        variant=variant,
        bands=bands,
        groups=tuple(tuple(bands[band] for band in group) for group in given.get("channel_groups", ())),
        frames=frames,
        patch=given["patch_size"],
        image_px=given["img_size"],
        encoder_dim=given["embed_dim"],
        depth=given["depth"],
        heads=given["num_heads"],
        mlp_ratio=given.get("mlp_ratio", 4.0),
        decoder_dim=given.get("decoder_embed_dim", 512),
        decoder_depth=given.get("decoder_depth", 8),
        decoder_heads=given.get("decoder_num_heads", 16),
        slot_dim=given.get(name, wide),
        decoder_slot_dim=given.get(f"decoder_{name}", narrow),
        **{"mode": "official", **changes},
    )


def splitmix(seed: int, shape: tuple[int, ...]) -> np.ndarray:
    """The stream of the golden README, float64 in [0, 1)."""
    with np.errstate(over="ignore"):
        z = np.uint64(seed) + np.arange(1, int(np.prod(shape)) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    return ((z >> np.uint64(40)).astype(np.float64) / 2**24).reshape(shape)


def stream(text: str, default: tuple[int, ...] | None = None, **sizes: int) -> Tensor:
    """`2*(2*splitmix(7)-1), shape (1,C,4S,4S)` as a tensor."""
    parts = re.fullmatch(r"(.*)splitmix\((?:seed=)?(\d+)\)([^,]*)(?:, shape \(([^)]*)\))?(?:, cast to float32)?", text)
    assert parts, text
    before, seed, after, shape = parts.groups()
    dims = re.sub(r"(\d)([A-Z])", r"\1*\2", shape or "")
    wanted = default if shape is None else eval(f"({dims},)", {**sizes})
    assert wanted is not None
    return torch.from_numpy(eval(f"{before}x{after}", {"x": splitmix(int(seed), wanted)})).float()


def fill(model: nn.Module, names: list[str], *, base: int, only: tuple[str, ...] = ("",)) -> None:
    """Formula weights of the golden README."""
    state = model.state_dict()
    for k, name in enumerate(names):
        if name.rpartition(".")[2] in _TABLES or not name.startswith(only):
            continue
        shape = tuple(state[name].shape)
        v = 2 * splitmix(base + k * 2**32, shape) - 1
        if name.endswith(".weight"):
            v = 1 + 0.1 * v if len(shape) == 1 else v * 1.5 / np.sqrt(np.prod(shape) / shape[0])
        else:
            v = v * (0.05 if name.endswith(".bias") else 0.1)
        state[name].copy_(torch.from_numpy(v).float())


def dates_of(stamps: Tensor | None) -> Tensor | None:
    return None if stamps is None else stamps + torch.tensor([FIRST_YEAR, 1, 0])


def frames_of(variant: str) -> int:
    return file("temporal_cases").tensors["imgs"].shape[1] if variant == "temporal" else 1


# ── the tiny models' cases ──────────────────────────────────────────────────────────────────────────────────────────


class Case:
    """One masking case of one model, at one precision."""

    def __init__(self, variant: str, name: str, *, dtype: torch.dtype = torch.float32, **changes: Any) -> None:
        self.variant, self.name, self.data = variant, name, file(f"{variant}_cases")
        facts = manifest(SET)[variant]["cases"][name]
        consistent = facts.get("spatial_mask", facts.get("same_mask"))
        changes = {"consistent": consistent, "mask_ratio": facts["mask_ratio"], **changes}
        changes |= {"frames": frames_of(variant)}
        self.model = Satmae(config_of(manifest(SET)[variant]["config"], variant, **changes))
        self.model.load_state_dict(file(f"{variant}_weights").under(""))
        self.model.to(dtype)
        self.images = self.data["imgs"].to(dtype)
        self.dates = dates_of(self.data["timestamps"]) if variant == "temporal" else None
        self.mask = self._mask(given=facts.get("ids_given", False))

    def _mask(self, *, given: bool) -> Mask:
        if given:
            return mask_from_order(self.data[f"{self.name}/ids_shuffle"], kept=self.model.config.kept_tokens)
        return self.model.mask(self.data[f"{self.name}/noise"])

    @functools.cached_property
    def latent(self) -> Tensor:
        return self.model.encode_visible(self.images, self.mask, self.dates)

    @functools.cached_property
    def predicted(self) -> Tensor:
        return self.model.decode(self.latent, self.mask, self.dates)

    @functools.cached_property
    def loss(self) -> Tensor:
        return self.model.losses(self.predicted, (self.images,), self.mask).total

    @functools.cached_property
    def grads(self) -> Values:
        named = dict(self.model.named_parameters())
        found = torch.autograd.grad(self.loss, list(named.values()), retain_graph=True)
        return dict(zip(named, found, strict=True))

    def ids(self) -> tuple[Tensor, Tensor]:
        """Order and its inverse; of band groups with one mask, over places as the golden stores them."""
        order, config = self.mask.restore_ids_BL.argsort(dim=1), self.model.config
        if self.variant == "group" and config.consistent:
            kept = config.kept_tokens // config.slots
            rest = config.slots * kept
            order = torch.cat((order[:, :kept], order[:, rest : rest + config.places - kept]), dim=1)
        return order, order.argsort(dim=1)


def case_values(variant: str, name: str) -> Iterator[tuple[str, Any]]:
    case, normed = Case(variant, name), Case(variant, name, norm_pix=True)
    order, restore = case.ids()
    removed = case.mask.removed_BL
    yield "ids_shuffle", order
    yield "ids_restore", restore
    yield "mask", removed.unflatten(1, (case.model.config.slots, -1)) if variant == "group" else removed
    yield "tokens", case.model.tokens(case.images, all_ids(case.images, case.model.config), case.dates)
    yield "latent", case.latent
    yield "pred", case.predicted
    yield "loss", case.loss.reshape(1)
    yield "loss_norm_pix", normed.loss.reshape(1)
    yield from ((f"grad/{parameter}", grad) for parameter, grad in case.grads.items())


def case_facts(variant: str, name: str) -> Iterator[tuple[str, Any]]:
    doubles = {}
    for suffix, norm_pix in (("", False), ("_norm_pix", True)):
        case = Case(variant, name, norm_pix=norm_pix)
        doubles[suffix] = double = Case(variant, name, norm_pix=norm_pix, dtype=torch.float64)
        yield f"loss{suffix}", case.loss.item()
        yield f"loss{suffix}_f64", double.loss.item()
        yield from ((f"grad_norms{suffix}/{n}", g.double().norm().item()) for n, g in case.grads.items())
        if variant == "group":
            exact = Case(variant, name, norm_pix=norm_pix, mode="exact")
            yield f"nonofficial_loss_if_pred_reordered_to_channel_order{suffix}", exact.loss.item()
    difference = Case(variant, name).predicted.double() - doubles[""].predicted
    yield "max_abs_pred_f32_minus_f64", difference.abs().max().item()


def classifier(variant: str, name: str) -> tuple[SatmaeClassifier, Any, Tensor, Tensor | None]:
    facts, data = manifest(SET)[variant], file(f"{variant}_cases")
    pool = name.removeprefix("ft_").replace("pool", "mean")
    classes = data[f"{name}/extra/head.bias"].shape[0]
    model = SatmaeClassifier(config_of(facts["config"], variant), classes=classes, pool=pool)
    report = model.load_state_dict(file(f"{variant}_weights").under(""), strict=False)
    model.load_state_dict(data.under(f"{name}/extra/"), strict=False)
    stamps = dates_of(data["timestamps"]) if variant == "temporal" else None
    return model.eval(), report, data["imgs"], stamps


def classifier_facts(variant: str, name: str) -> Values:
    model, report, _, _ = classifier(variant, name)
    return {
        "missing_keys": sorted(report.missing_keys),
        "unexpected_keys": sorted(report.unexpected_keys),
        "num_classes": model.head.out_features,
    }


def variant_tensors(variant: str) -> Values:
    facts, data = manifest(SET)[variant], file(f"{variant}_cases")
    values = {f"{name}/{key}": x for name in facts["cases"] for key, x in case_values(variant, name)}
    for name in (name for name in facts if name.startswith("ft_")):
        model, _, images, stamps = classifier(variant, name)
        values |= {f"{name}/features": model.features(images, stamps), f"{name}/logits": model(images, stamps)}
    if variant == "group":
        values["patchify"] = patchify(data["imgs"][:1], facts["config"]["patch_size"])
    return values


def variant_facts(variant: str) -> Values:
    facts = manifest(SET)[variant]
    values = {f"cases/{name}/{key}": x for name in facts["cases"] for key, x in case_facts(variant, name)}
    for name in (name for name in facts if name.startswith("ft_")):
        values |= {f"{name}/{key}": x for key, x in classifier_facts(variant, name).items()}
    if "finetune_param_groups" in facts:
        model = classifier(variant, "ft_pool")[0]
        groups = finetune_groups(model, depth=model.config.depth, layer_decay=0.75, weight_decay=0.05)
        values["finetune_trainable"] = sorted(groups)
        values |= {f"finetune_param_groups/{n}/lr_scale": scale for n, (scale, _) in groups.items()}
        values |= {f"finetune_param_groups/{n}/weight_decay": decay for n, (_, decay) in groups.items()}
    values["norm_eps"] = Case(variant, next(iter(facts["cases"]))).model.norm.eps
    return {f"{variant}/{key}": x for key, x in values.items()}


# ── the trajectory ──────────────────────────────────────────────────────────────────────────────────────────────────


@functools.cache
def trajectory() -> Values:
    """Losses, rates, gradient norms and final weights of the recorded AdamW run, in the released loop's order."""
    facts = manifest(SET)["group_training"]
    asked, given = facts["config"], manifest(SET)["group"]["config"]
    ratio, norm_pix = asked["mask_ratio"], asked["norm_pix_loss"]
    model = Satmae(config_of(given, "group", mask_ratio=ratio, norm_pix=norm_pix))
    model.load_state_dict(golden(f"{SET}/{facts['initial_weights'].removesuffix('.safetensors')}").under(""))
    optim = OptimConfig(
        base_lr=1.0,
        betas=tuple(asked["betas"]),
        weight_decay=asked["weight_decay"],
        decay_tokens=True,
        warmup=asked["warmup_epochs"] / asked["epochs"],
        floor=asked["min_lr"] / asked["lr"],
    )
    optimizer = adamw(model, optim)
    assert optimizer.defaults["eps"] == asked["eps"]
    each, accum = asked["iters_per_epoch"], asked["accum_iter"]
    count, side = asked["epochs"] * each, given["img_size"]
    images = stream(facts["imgs"], iters=count, C=given["in_chans"], H=side, W=side)
    noise = stream(facts["noise"], iters=count, G=model.config.slots, L=model.config.places)
    losses, lrs, norms = [], [], []
    for step in range(count):
        within = step % each
        if within == 0:
            optimizer.zero_grad()
        if within % accum == 0:
            set_lr(optimizer, lr_at(step / each, total=asked["epochs"], peak=asked["lr"], config=optim))
        loss = model(images[step], noise=noise[step]).total
        (loss / accum).backward()
        losses.append(loss.item())
        lrs.append(optimizer.param_groups[0]["lr"])
        if (within + 1) % accum == 0:
            norms.append(nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
            optimizer.step()
            optimizer.zero_grad()
    named = dict(model.named_parameters())
    decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    return {
        "losses": losses,
        "lrs": lrs,
        "grad_norms_at_updates": norms,
        "final": {name: parameter.detach() for name, parameter in named.items()},
        "weight_decay_per_param": {name: decays[id(parameter)] for name, parameter in named.items()},
    }


def trajectory_tensors() -> Values:
    done = trajectory()
    values = {key: torch.tensor(done[key], dtype=torch.float64) for key in ("losses", "lrs", "grad_norms_at_updates")}
    return values | {f"final/{name}": x for name, x in done["final"].items()}


def trajectory_facts() -> Values:
    done = trajectory()
    values = {key: done[key] for key in ("losses", "lrs")}
    values |= {f"weight_decay_per_param/{name}": x for name, x in done["weight_decay_per_param"].items()}
    values |= {f"final_param_norms/{name}": x.double().norm().item() for name, x in done["final"].items()}
    return {f"group_training/{key}": x for key, x in values.items()}


# ── models with weights from a formula ──────────────────────────────────────────────────────────────────────────────


@functools.cache
def formula(name: str) -> Values:
    facts = manifest(SET)["formula"][name]
    given = facts["desc"]["config"] | _FACTORIES.get(facts["desc"].get("factory"), {})
    variant = "group" if "channel_groups" in given else "temporal" if "timestamps" in facts["desc"] else "plain"
    stamps = facts["desc"].get("timestamps")
    frames = len(stamps[0]) if stamps else 1
    model = Satmae(config_of(given, variant, frames=frames, mask_ratio=facts["mask_ratio"]))
    fill(model, sorted(model.state_dict()), base=facts["base"])
    noise = stream(facts["desc"]["noise"])
    side = given["img_size"]
    lead = (len(noise), frames) if stamps else (len(noise),)
    images = stream(facts["desc"]["imgs"], (*lead, given["in_chans"], side, side))
    dates = None if stamps is None else dates_of(torch.tensor(stamps))
    mask = model.mask(noise)
    with torch.no_grad():
        latent = model.encode_visible(images, mask, dates)
        predicted = model.decode(latent, mask, dates)
    losses = [
        masked_error(
            predicted, images, mask.removed_BL, config=config_of(given, variant, frames=frames, norm_pix=norm_pix)
        )
        for norm_pix in (False, True)
    ]
    return {
        "mask": mask.removed_BL.unflatten(1, (model.config.slots, -1)) if variant == "group" else mask.removed_BL,
        "latent": latent,
        "pred": predicted,
        "latent_rows": latent[:, [0, 1, 2, -1]],
        "pred_slice": predicted[:, :, :4, :8] if variant == "group" else predicted[:, :4, :64],
        "loss": losses[0].item(),
        "loss_norm_pix": losses[1].item(),
        "n_state_dict_keys": len(model.state_dict()),
    }


def summary(x: Tensor) -> Values:
    x = x.double()
    found = {"mean": x.mean(), "std": x.std(), "abs_sum": x.abs().sum(), "min": x.min(), "max": x.max()}
    return {name: value.item() for name, value in found.items()}


@functools.cache
def plus_plus() -> Values:
    facts, given = manifest(SET)["satmaepp"], manifest(SET)["group"]["config"]
    model = Satmae(config_of(given, "group", upscales=2))
    shared = golden(f"{SET}/{facts['base_weights'].removesuffix('.safetensors')}").under("")
    report = model.load_state_dict(shared, strict=False)
    base = int(re.search(r"base=(\d+)", facts["extra"])[1])
    fill(model, facts["all_keys_sorted"], base=base, only=("proj_up", "up_block"))
    images = stream(facts["img_4x"], C=given["in_chans"], S=given["img_size"])
    mask = model.mask(stream(facts["noise"], G=model.config.slots, L=model.config.places))
    scales = pyramid(images, 2)
    with torch.no_grad():
        predicted = model.decode(model.encode_visible(scales[0], mask), mask)
        larger = reconstruct(model, to_image(predicted, model.config), 2)
        losses = model.losses(predicted, scales, mask)
    state = model.state_dict()
    return {
        "model": model,
        "extra": {name: list(state[name].shape) for name in report.missing_keys},
        "mask": mask.removed_BL.unflatten(1, (model.config.slots, -1)),
        "img": scales[0],
        "pred": predicted,
        "pred_2x": larger[0],
        "pred_4x": larger[1],
        "losses": losses,
    }


def plus_plus_tensors() -> Values:
    done, cut = plus_plus(), file("formula_cases").tensors
    values = {name: done[name] for name in ("img", "mask", "pred")}
    for name in ("pred_2x", "pred_4x"):
        height, width = cut[f"satmaepp/{name}"].shape[-2:]
        values[name] = done[name][:, :2, :height, :width]
    return {f"satmaepp/{name}": x for name, x in values.items()}


def plus_plus_facts() -> Values:
    done = plus_plus()
    parts = {name: x.item() for name, x in done["losses"].parts.items()}
    values = {
        "all_keys_sorted": sorted(done["model"].state_dict()),
        "mse_loss": parts["mae"],
        "l1_2x": parts["l1_2x"],
        "l1_4x": parts["l1_4x"],
        "l1_ms_loss": (parts["l1_2x"] + parts["l1_4x"]) / 2,
        "total_0.6_0.4": done["losses"].total.item(),
    }
    values |= {f"extra_keys/{name}": shape for name, shape in done["extra"].items()}
    for name in ("pred_2x", "pred_4x"):
        values |= {f"{name}/{key}": x for key, x in summary(done[name]).items()}
    return {f"satmaepp/{key}": x for key, x in values.items()}


def formula_tensors() -> Values:
    names = manifest(SET)["formula"]
    return plus_plus_tensors() | {f"{name}/{key}": x for name in names for key, x in formula(name).items()}


def formula_facts() -> Values:
    values = {}
    for name in manifest(SET)["formula"]:
        done = formula(name)
        values |= {f"{name}/{key}": done[key] for key in ("loss", "loss_norm_pix", "n_state_dict_keys")}
        values |= {f"{name}/{what}/{key}": x for what in ("latent", "pred") for key, x in summary(done[what]).items()}
    return {f"formula/{key}": x for key, x in values.items()}


# ── encodings, values, schedules ────────────────────────────────────────────────────────────────────────────────────


def encoding(name: str) -> Tensor:
    kind, _, sizes = name.partition("/")
    width, last = sizes.removeprefix("d").split("_")
    if kind == "timestamp":
        first, _, end = last.partition("to")
        return wave_code(torch.arange(int(first), int(end) + 1), width=int(width))
    count = int(last[1:])
    if kind == "sincos1d":
        return wave_code(torch.arange(count), width=int(width))
    table = cls_and_places(count, int(width))[0]
    large = len(file("components").tensors[name]) < len(table)
    return table[[0, 1, 2, count, count + 1, count**2]] if large else table


def component_tensors() -> Values:
    data, facts = file("components"), manifest(SET)
    values = {n: encoding(n) for n in data.tensors if n.startswith(("sincos", "timestamp"))}
    raw = data["sentinel/raw_hwc"].movedim(-1, 0)
    mean, std = (torch.tensor(facts[f"sentinel_{x}"], dtype=torch.float64) for x in ("mean", "std"))
    levels = to_uint8(raw, mean, std)
    values["sentinel/uint8_hwc"] = levels.movedim(0, -1)
    for name in (name for name in data.tensors if name.startswith("sentinel/uint8_hwc_masked_bands_")):
        masked = raw.double()
        for band in map(int, name.rpartition("bands_")[2].split("_")):
            masked[band] = mean[band]
        values[name] = to_uint8(masked, mean, std).movedim(0, -1)
    image = (levels / 255)[facts["sentinel"]["keep"]]
    top, left, height, width = facts["sentinel"]["crop_ijhw"]
    cut = Placement(top=top, left=left, height=height, width=width, symmetry=4)
    side = facts["sentinel"]["out"]
    values["sentinel/train_crop"] = small = resize(torch.from_numpy(crop(image.numpy(), cut).copy()), side, side)
    values["sentinel/train_crop_hflip"] = torch.from_numpy(turn(small.numpy(), cut).copy())
    values["sentinel/eval"] = centre(image, facts["sentinel"]["eval_input_size"])
    rgb = (torch.tensor(facts[f"rgb_{x}"]) for x in ("mean", "std"))
    values["rgb/normalized"] = standard(data["rgb/uint8_chw"] / 255, *rgb)
    return values


def component_facts() -> Values:
    from train.recipes.satmae import BANDS, FMOW_RGB, FMOW_SENTINEL

    facts, raw = manifest(SET), file("components")["sentinel/raw_hwc"]
    size, corner = centre_box(raw.shape[0], raw.shape[1], facts["sentinel"]["eval_input_size"])
    return {
        "sentinel_mean": [mean for mean, _ in FMOW_SENTINEL.values()],
        "sentinel_std": [std for _, std in FMOW_SENTINEL.values()],
        "rgb_mean": list(FMOW_RGB.mean),
        "rgb_std": list(FMOW_RGB.std),
        "sentinel/keep": [list(FMOW_SENTINEL).index(band) for band in BANDS],
        "sentinel/eval_resize": list(size),
        "sentinel/eval_topleft": list(corner),
        "lr_schedule": [schedule(one) for one in facts["lr_schedule"]],
    }


def schedule(asked: Values) -> Values:
    warmup, floor = asked["warmup_epochs"] / asked["epochs"], asked["min_lr"] / asked["lr"]
    optim = OptimConfig(base_lr=1.0, warmup=warmup, floor=floor)
    rates = [[e, lr_at(e, total=asked["epochs"], peak=asked["lr"], config=optim)] for e, _ in asked["table"]]
    return asked | {"table": rates}


def layout_facts() -> Values:
    values = {}
    for variant in manifest(SET)["weights_layout"]:
        state = Satmae(config_of(manifest(SET)[variant]["config"], variant)).state_dict()
        values |= {f"weights_layout/{variant}/{name}": list(x.shape) for name, x in state.items()}
    return values


def weight_tensors(variant: str) -> Values:
    """As our model holds them after loading; the fixed tables as our model makes them."""
    fresh = Satmae(config_of(manifest(SET)[variant]["config"], variant))
    tables = {name: x.clone() for name, x in fresh.state_dict().items() if name in _TABLES}
    fresh.load_state_dict(file(f"{variant}_weights").under(""))
    return fresh.state_dict() | tables


TENSORS = {
    "components": component_tensors,
    "formula_cases": formula_tensors,
    "group_cases": lambda: variant_tensors("group"),
    "group_training": trajectory_tensors,
    "group_weights": lambda: weight_tensors("group"),
    "temporal_cases": lambda: variant_tensors("temporal"),
    "temporal_weights": lambda: weight_tensors("temporal"),
}


@functools.cache
def tensors(name: str) -> Values:
    """Our values of the file `satmae/NAME`."""
    return TENSORS[name]()


@functools.cache
def facts() -> Values:
    """Our values of the manifest's leaves, by path."""
    values = variant_facts("group") | variant_facts("temporal") | trajectory_facts()
    return values | formula_facts() | plus_plus_facts() | component_facts() | layout_facts()
