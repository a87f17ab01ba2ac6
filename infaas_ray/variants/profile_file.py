"""Profiles as a JSON file, so that what was measured on one machine serves planning on another.

The file holds architectures, variants with their profiles, and whether each was offered. Rules: its version is
checked, unknown keys are ignored and missing ones have the domain's defaults; an import adds what is not there and
replaces nothing unless told to; a variant whose artifact is not in the repository is kept for planning, not offered.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import msgspec

from infaas_ray.domain import Architecture, Profile, Variant
from infaas_ray.errors import InvalidInput, one_of
from infaas_ray.storage.metadata import Metadata

FORMAT = "infaas-profiles"
VERSION = 1


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A variant and what was measured of it."""

    variant: Variant
    profile: Profile
    offered: bool = True


class ProfileFile(msgspec.Struct, frozen=True, kw_only=True):
    """The whole file."""

    format: str = FORMAT
    version: int = VERSION
    architectures: list[Architecture]
    variants: list[Entry]


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """Names of the variants that an import added or replaced, and of those that were there already and left alone."""

    added: tuple[str, ...]
    left: tuple[str, ...]


def export_profiles(metadata: Metadata, path: Path, architectures: Collection[str] = ()) -> int:
    """Write all variants, or those of the named architectures; how many. InvalidInput for a name that is unknown."""
    found = profiles_of(metadata, architectures)
    write_profiles(path, found.architectures, found.variants)
    return len(found.variants)


def profiles_of(metadata: Metadata, architectures: Collection[str] = ()) -> ProfileFile:
    """The content that a file of these would have; InvalidInput for a name that is unknown."""
    known = metadata.architectures()
    for name in architectures:
        if name not in known:
            raise InvalidInput(one_of("architecture", name, list(known)))
    chosen = [x for name, x in known.items() if not architectures or name in architectures]
    offered = {x.name for x, _ in metadata.variants(offered=True)}
    entries = [
        Entry(variant=variant, profile=profile, offered=variant.name in offered)
        for architecture in chosen
        for variant, profile in metadata.variants(architecture.name)
    ]
    return ProfileFile(architectures=chosen, variants=entries)


def write_profiles(path: Path, architectures: list[Architecture], entries: list[Entry]) -> None:
    """Write the file; it appears whole or not at all."""
    content = msgspec.json.encode(ProfileFile(architectures=architectures, variants=entries))
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(msgspec.json.format(content, indent=1) + b"\n")
    partial.replace(path)


def read_profiles(path: Path) -> ProfileFile:
    """The content of a file; InvalidInput where it is not one of ours, or of a later version."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ProfileFile)
    except OSError as error:
        raise InvalidInput(f"cannot read {path}: {error}") from None
    except (msgspec.MsgspecError, InvalidInput) as error:
        raise InvalidInput(f"{path} is not a file of 'infaas profile --export': {error}") from None
    if found.format != FORMAT or found.version > VERSION:
        raise InvalidInput(f"{path} has format {found.format} {found.version}; this INFaaS reads {FORMAT} {VERSION}")
    return found


def import_profiles(metadata: Metadata, path: Path, stored: Collection[str], *, replace: bool = False) -> Imported:
    """Add the file's architectures and variants; `stored` are the artifacts that this repository has.

    Raises InvalidInput for a wrong file, AlreadyExists where an architecture of that name is another.
    """
    found = read_profiles(path)
    names = {x.name for x in found.architectures}
    for entry in found.variants:
        if entry.variant.architecture not in names or entry.profile.variant != entry.variant.name:
            raise InvalidInput(
                f"{path}: variant {entry.variant.name!r} lacks its architecture or has another's profile"
            )
    for architecture in found.architectures:
        metadata.add_architecture(architecture)
    there = {x.name for x, _ in metadata.variants()}
    added, left = [], []
    for entry in found.variants:
        name = entry.variant.name
        if name in there and not replace:
            left.append(name)
            continue
        offered = entry.offered and entry.variant.artifact in stored
        metadata.put_variant(
            entry.variant, entry.profile, metadata.origins(entry.variant.architecture).get(name), offered=offered
        )
        added.append(name)
    return Imported(added=tuple(added), left=tuple(left))
