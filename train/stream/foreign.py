"""Other people's shards: which member of a sample is which sensor, and how its bytes become what our format holds.

A foreign data set is a finished one of ours (manifest, index, statistics) whose shards are tars that somebody else
wrote, with `foreign.json` beside the manifest; `train/index.py` makes it. `members_for` is all that a reader
needs: for any data set it says in which tar a member lies and decodes its bytes; nothing else sees a difference.

Why a decoder must be offered by its module: `foreign.json` travels with the data and names a function to call, and a
data set must not be able to run anything that was not written for this.

Axes: C bands, H W pixels.
"""

import dataclasses
import importlib
import io
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pipeline import index, record
from pipeline.bands import S1_NAMES, S2_NAMES
from pipeline.codec import Codec, MemberSpec, decode_array
from pipeline.errors import ContractError, UsageError
from pipeline.index import MemberRef
from pipeline.manifest import Manifest
from pipeline.sample import DTYPES
from pipeline.store import Store
from train.stream.source import Source

FOREIGN_NAME = "foreign.json"
MAKER = "train/index.py"
"""Ends `created_by` of a foreign data set: a reader then looks for `foreign.json`."""
OFFERED = "DECODERS"
"""Name in a plug-in's module: the functions in it that data sets may name."""
NAMES: Mapping[str, tuple[str, ...]] = {"s1": S1_NAMES, "s2": S2_NAMES, "label": ("label",)}
"""Bands that are kept, by member; others of the source are dropped."""
S1_FLOOR_DB = -50.0
"""Lowest stored backscatter, as FORMAT.md says."""
_NODATA: Mapping[str, float | None] = {"s1": None, "s2": 0.0, "label": None}
_DECIBELS = {"power": 10.0, "amplitude": 20.0}

Array = NDArray[Any]
Decoder = Callable[[bytes], Array]
"""A member's bytes to its array, as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One sensor in the foreign samples. Stored value = scale x (value, or its decibels) + offset."""

    suffix: str
    """What follows the key's dot, in lower case: `s2.npy`, `zarr.zip`."""
    bands: tuple[str, ...]
    """Names along the band axis, ours where they are ours: `B02`, `VV`. Others are dropped."""
    decoder: str = "npy"
    """`npy`, `npz:KEY`, or `package.module:function`: bytes to an array, called from many threads."""
    layout: Literal["CHW", "HWC"] = "CHW"
    """Axes of the array; (H, W) is taken for one band."""
    quantity: Literal["value", "power", "amplitude"] = "value"
    """`power` becomes 10 log10, `amplitude` 20 log10, where what is not above 0 is missing."""
    scale: float = 1.0
    """To digital numbers (s2) or dB (s1): 10000 for reflectance."""
    offset: float = 0.0
    """In digital numbers or dB: -1000 where the offset of baseline 04.00 is still in the values."""
    nodata: float | None = None
    """Value in the source that is missing, beside NaN and infinity. None: 0 for s2, none for the others."""
    tar: tuple[str, str] | None = None
    """In another tar, found by replacing the first text in the tar's URL by the second: `["S2L2A", "S1RTC"]`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meta:
    """Where a sample says where and when it is: dotted paths into a JSON member, `properties.bbox.0`."""

    suffix: str | None = None
    """The member; None: nothing is known."""
    lon: str | None = None
    """Path to degrees, EPSG:4326."""
    lat: str | None = None
    """Path to degrees, EPSG:4326."""
    time: str | None = None
    """Path to an ISO time, UTC where it names no zone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """What is for validation: some tars, or a share of the ground."""

    val_tars: tuple[str, ...] = ()
    """Patterns of URLs: `*/val/*`."""
    val_percent: float = 0.0
    """Of blocks of 0.05 degrees, or of keys where no place is known."""
    seed: int = 0
    """Chooses the blocks, and the samples that statistics are taken of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreign:
    """What the members of foreign samples are; a map file, and `foreign.json`."""

    s2: Member | None = None
    """Sentinel-2."""
    s1: Member | None = None
    """Sentinel-1."""
    label: Member | None = None
    """Class of each pixel, 0 unknown."""
    meta: Meta = Meta()
    """Place and time."""
    split: Split = Split()
    """Training or validation."""

    def __post_init__(self) -> None:
        """Refuse what cannot be read."""
        for name, member in self.members.items():
            _check(name, member)
        if all(member is None or member.tar is not None for member in (self.s2, self.s1)):
            raise UsageError("the map has neither an `s2` nor an `s1` that lies in the tars themselves. Name one.")
        if self.split.val_tars and self.split.val_percent:
            raise UsageError("the map's `split` has both `val_tars` and `val_percent`. Give one of them.")
        if not 0 <= self.split.val_percent < 100:
            raise UsageError(f"`val_percent` is {self.split.val_percent}. Give 0 or more, and less than 100.")

    @property
    def members(self) -> dict[str, Member]:
        """By our name, in shard order."""
        found = {"s2": self.s2, "s1": self.s1, "label": self.label}
        return {name: member for name, member in found.items() if member is not None}

    def tar_of(self, name: str, tar: str) -> str:
        """Where `name` of the samples in `tar` lies."""
        member = self.members.get(name)
        return tar if member is None or member.tar is None else tar.replace(*member.tar)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Members:
    """Where the bytes of a data set's members lie and what they mean; safe to use from many threads."""

    store: Store
    """The data set."""
    specs: Mapping[str, MemberSpec]
    """What the manifest promises, by member."""
    codec: Codec
    """Of a data set of ours."""
    foreign: Foreign | None = None
    """None: the data set is ours."""
    decoders: Mapping[str, Decoder] = field(default_factory=dict)
    """Of a foreign one, by member."""

    def tars(self, shard: str, names: Collection[str]) -> dict[str, list[str]]:
        """The members `names` of a sample of `shard`, by the tar that they lie in."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(shard if self.foreign is None else self.foreign.tar_of(name, shard), []).append(name)
        return found

    def fetch(self, source: Source, shard: str, refs: Mapping[str, MemberRef]) -> dict[str, bytes] | None:
        """The members' bytes from `source`; None where they are not what the index promises."""
        parts: dict[str, bytes] = {}
        for tar, names in self.tars(shard, refs).items():
            spans = [(refs[name].offset, refs[name].size) for name in names]
            try:
                parts |= dict(zip(names, source.read(tar, spans), strict=True))
            except FileNotFoundError:
                return None
        return parts if all(index.check(parts[name], ref) for name, ref in refs.items()) else None

    def decode(self, name: str, data: bytes, *, key: str) -> Array:
        """One member's array.

        Raises:
            ContractError: the bytes do not decode to what the manifest promises.
        """
        if self.foreign is None:
            return decode_array(data, self.specs[name], codec=self.codec, key=key)
        array = _decode(name, self.foreign.members[name], data, self.decoders[name], key=key)
        spec = self.specs.get(name)
        if spec is not None and (array.dtype.str, array.shape) != (spec.dtype, spec.shape):
            raise ContractError(
                f"{name} of {key} is {array.dtype.str} {array.shape} and that of the first sample {spec.dtype} "
                f"{spec.shape}. Leave its tar out, or crop in a decoder of your own."
            )
        return array


def members_for(store: Store, known: Manifest) -> Members:
    """How to read the members of the data set that `known` describes.

    Raises:
        ContractError: it is foreign, and its `foreign.json` is missing or another one.
        UsageError: its decoder cannot be imported.
    """
    specs = {spec.name: spec for spec in known.members}
    if not known.created_by.endswith(MAKER):
        return Members(store=store, specs=specs, codec=known.codec)
    return foreign_members(store, _load(store, known), specs)


def foreign_members(store: Store, foreign: Foreign, specs: Mapping[str, MemberSpec]) -> Members:
    """How to read foreign members; without `specs` any size is taken."""
    decoders = {name: decoder(member.decoder) for name, member in foreign.members.items()}
    return Members(store=store, specs=specs, codec="npy", foreign=foreign, decoders=decoders)


def parse(data: bytes, *, where: str) -> Foreign:
    """The map in `data`, with defaults for what it leaves out.

    Raises:
        ContractError: it is no such map.
        UsageError: it describes what cannot be read.
    """
    try:
        given = json.loads(data)
    except ValueError as error:
        raise ContractError(f"{where} is not JSON: {error}. Correct it.") from error
    if isinstance(given, dict):
        filled = {name: _filled(_PARTS[name], part) if name in _PARTS else part for name, part in given.items()}
        given = _defaults(Foreign) | filled
    found: Foreign = record.from_json(Foreign, given, where=where)
    return found


def decoder(name: str) -> Decoder:
    """The function that `Member.decoder` names.

    Raises:
        UsageError: there is none, or its module does not offer it.
    """
    if name == "npy":
        return _npy
    kind, _, rest = name.partition(":")
    return partial(_npz, rest) if kind == "npz" else _plug_in(kind, rest)


def convert(name: str, member: Member, array: Array) -> Array:
    """A decoded array as our format holds it: (C, H, W) uint16 digital numbers or float32 dB, or (H, W) labels.

    Raises:
        ContractError: it has not the axes that the map names.
    """
    chosen = _bands(name, member, array)
    if name == "label":
        labels: Array = np.where(_missing(name, member, chosen), 0, chosen)[0].astype(DTYPES[name])
        return labels
    whole = float(member.offset).is_integer() and member.scale == 1 and member.quantity == "value"
    if name == "s2" and whole and chosen.dtype.kind in "iu":  # digital numbers stay what they are, to the bit
        numbers = chosen.astype(np.int64 if chosen.dtype.itemsize > 2 else np.int32) + int(member.offset)
        return np.where(_missing(name, member, chosen), 0, numbers.clip(1, 65535)).astype(DTYPES[name])
    values = chosen.astype(np.float32)
    missing = _missing(name, member, chosen) | ~np.isfinite(values)
    if member.quantity != "value":
        missing |= values <= 0
        values = np.float32(_DECIBELS[member.quantity]) * np.log10(np.where(missing, np.float32(1), values))
    values = np.where(missing, 0, values) * np.float32(member.scale) + np.float32(member.offset)
    if name == "s2":
        return np.where(missing, 0, values.clip(1, 65535).round()).astype(DTYPES[name])
    return np.where(missing, np.nan, np.maximum(values, S1_FLOOR_DB)).astype(DTYPES[name])


def stored_bands(name: str, member: Member) -> tuple[str, ...]:
    """Names along the band axis of what `convert` gives."""
    return tuple(band for band in member.bands if band in NAMES[name])


def _load(store: Store, known: Manifest) -> Foreign:
    try:
        data = store.read(FOREIGN_NAME)
    except FileNotFoundError as error:
        raise ContractError(
            f"{store.url} indexes foreign tars but has no {FOREIGN_NAME}. Copy the data set whole, or index them again."
        ) from error
    foreign: Foreign = record.loads(Foreign, data, where=FOREIGN_NAME)
    if record.fingerprint(foreign) != known.plan_fingerprint:
        raise ContractError(f"{store.url}/{FOREIGN_NAME} is not the one of the manifest. Copy or index again.")
    return foreign


def _decode(name: str, member: Member, data: bytes, run: Decoder, *, key: str) -> Array:
    try:
        array = np.asarray(run(data))
    except Exception as error:  # damaged bytes make decoders raise nearly anything
        raise ContractError(
            f"{member.suffix} of {key} does not decode with {member.decoder}: {type(error).__name__}: {error}. "
            "Correct `decoder` in the map, or leave its tar out."
        ) from error
    try:
        return convert(name, member, array)
    except ContractError as error:
        raise ContractError(f"{member.suffix} of {key}: {error}") from error


@lru_cache(maxsize=1024)
def _check(name: str, member: Member) -> None:
    kept = stored_bands(name, member)
    if not kept or len(set(kept)) != len(kept):
        raise UsageError(
            f"`bands` of {name} are {list(member.bands)}, of which {list(kept)} are known. "
            f"Name the band axis, each once, with some of {list(NAMES[name])}."
        )
    if member.suffix != member.suffix.lower() or "/" in member.suffix or not member.suffix:
        raise UsageError(f"`suffix` of {name} is {member.suffix!r}: give what follows the key's dot, in lower case.")
    if member.quantity != "value" and name != "s1":
        raise UsageError(f"`quantity` of {name} is {member.quantity!r}: only s1 is in decibels. Use `scale`.")


_PARTS: Mapping[str, type] = {"s2": Member, "s1": Member, "label": Member, "meta": Meta, "split": Split}


def _filled(cls: type, value: Any) -> Any:
    return _defaults(cls) | value if isinstance(value, dict) else value


def _defaults(cls: type) -> dict[str, Any]:
    """JSON of what has a default."""
    fields = dataclasses.fields(cls)
    return {field.name: record.to_json(field.default) for field in fields if field.default is not dataclasses.MISSING}


def _npy(data: bytes) -> Array:
    array: Array = np.load(io.BytesIO(data), allow_pickle=False)
    return array


def _npz(key: str, data: bytes) -> Array:
    with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
        if key not in arrays:
            raise KeyError(f"no array {key!r}, only {sorted(arrays)}")
        array: Array = arrays[key]
    return array


def _plug_in(module: str, function: str) -> Decoder:
    name = f"{module}:{function}"
    try:
        found = importlib.import_module(module)
        run: Decoder = getattr(found, function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(
            f"decoder {name!r}: {error}. Use npy, npz:KEY or package.module:function, and install the package "
            "or put its folder on PYTHONPATH."
        ) from error
    if run not in getattr(found, OFFERED, ()):
        raise UsageError(
            f"{module} does not offer {function} as a decoder: data sets may only name functions in its {OFFERED}. "
            f"Write `{OFFERED} = ({function},)` there, if it is yours."
        )
    return run


def _bands(name: str, member: Member, array: Array) -> Array:
    """The bands that are kept, (C, H, W)."""
    if array.ndim == 2:
        array = array[None] if member.layout == "CHW" else array[..., None]
    if array.ndim != 3 or array.dtype.kind not in "iufb":
        raise ContractError(
            f"it is {array.dtype} of shape {array.shape}, and numbers of ({', '.join(member.layout)}) are wanted. "
            "Arrange them in a decoder of your own."
        )
    array = array if member.layout == "CHW" else np.moveaxis(array, -1, 0)
    if len(array) != len(member.bands):
        raise ContractError(
            f"it has {len(array)} bands and the map names {len(member.bands)}: {list(member.bands)}. Correct the map."
        )
    at = [member.bands.index(band) for band in stored_bands(name, member)]
    return array if at == list(range(len(array))) else array[at]


def _missing(name: str, member: Member, values: Array) -> NDArray[np.bool_]:
    nodata = _NODATA[name] if member.nodata is None else member.nodata
    return np.zeros(values.shape, np.bool_) if nodata is None else np.asarray(values == nodata)
